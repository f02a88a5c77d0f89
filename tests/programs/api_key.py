"""Asks a service that wants a key."""

import json
import os
import sys
import urllib.error
import urllib.request

import requests

SERVICE = sys.argv[1]

try:
    key = vault.use("api_key")
except NameError:  # started by hand
    key = os.environ["API_KEY"]

headers = {"Authorization": f"Bearer {key}", "Accept": "application/json"}
request = urllib.request.Request(f"{SERVICE}/balance", headers=headers)
with urllib.request.urlopen(request) as response:
    print("urllib", response.status, json.load(response))

with requests.Session() as session:
    session.headers.update(headers)
    response = session.get(f"{SERVICE}/balance")
    print("requests", response.status_code, response.json())
    response = session.post(f"{SERVICE}/orders", json={"item": 7})
    print("posted", response.status_code, response.json())

print("without", requests.get(f"{SERVICE}/balance").status_code)
try:
    urllib.request.urlopen(f"{SERVICE}/balance")
except urllib.error.HTTPError as error:
    print("without", error.code)
