"""Fetches pages with requests: sessions, parameters, uploads, streams, retries."""

import hashlib
import io
import sys

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

SITE, MIRROR = sys.argv[1:]


def path_of(url):
    return url.replace(SITE, "").replace(MIRROR, "mirror:")


def show(what, response):
    told = response.json()
    print(what, response.status_code, path_of(response.url), told["method"], told["body"])
    return told


# Plain pages.
response = requests.get(f"{SITE}/page", params={"q": ["a b", "ü"], "n": 1}, timeout=20)
print(response.ok, response.reason, response.encoding, response.headers["content-type"])
print(show("params", response)["path"])
told = show("headers", requests.get(f"{SITE}/page", headers={"X-One": "1", "X-Two": "zwei"}))
print(told["headers"]["x-one"], told["headers"]["x-two"], told["headers"]["accept-encoding"])

# Bodies.
show("form", requests.post(f"{SITE}/page", data={"a": "1", "b": ["2", "3"]}))
told = show("json", requests.post(f"{SITE}/page", json={"deep": [1, {"x": None}]}))
print(told["headers"]["content-type"], told["headers"]["content-length"])
show("text", requests.put(f"{SITE}/page", data="grün".encode()))
show("patch", requests.patch(f"{SITE}/page", json=[]))
show("delete", requests.delete(f"{SITE}/page"))
print("options", requests.options(f"{SITE}/page").status_code)
print("head", requests.head(f"{SITE}/large").headers["content-length"])
files = {"one": ("one.txt", io.BytesIO(b"first"), "text/plain"), "two": ("two.bin", b"\0" * 9000)}
response = requests.post(f"{SITE}/parts", files=files, data={"field": "value"})
print("multipart", response.json())


def pieces():
    for number in range(50):
        yield b"%d" % number * 1000


print("generated body", requests.post(f"{SITE}/digest", data=pieces()).text)

# Redirects.
for status in (301, 302, 303, 307, 308):
    response = requests.post(f"{SITE}/redirect/{status}/path", data="body")
    show(f"redirect {status}", response)
    print([(step.status_code, path_of(step.url)) for step in response.history])
for kind in ("absolute", "relative", "mirror", "twice"):
    response = requests.get(f"{SITE}/redirect/302/{kind}")
    show(f"redirect {kind}", response)
    print(len(response.history), response.history[0].headers["location"].startswith("http"))
response = requests.get(f"{SITE}/redirect/302/path", allow_redirects=False)
print("not followed", response.status_code, response.is_redirect, response.headers["location"])
try:
    requests.get(f"{SITE}/redirect/302/loop")
except requests.TooManyRedirects as error:
    print("loop", len(error.response.history))

# Contents.
print("gzip", requests.get(f"{SITE}/gzip").text[:20])
for path in ("large", "chunked", "until-close"):
    digest, count = hashlib.sha256(), 0
    with requests.get(f"{SITE}/{path}", stream=True) as response:
        for part in response.iter_content(50_000):
            digest.update(part)
            count += len(part)
    print(path, count, digest.hexdigest())
with requests.get(f"{SITE}/lines", stream=True) as response:
    lines = response.iter_lines(decode_unicode=True)
    print("lines", next(lines), sum(1 for _ in lines))
with requests.get(f"{SITE}/large", stream=True) as response:
    print("begun and left", len(response.raw.read(10)))

# What goes wrong.
response = requests.get(f"{SITE}/status/404")
print(response.status_code, response.text)
try:
    response.raise_for_status()
except requests.HTTPError as error:
    print("HTTPError", error.response.status_code)
try:
    requests.get(f"{SITE}/slow", timeout=(20, 0.5))
except requests.ReadTimeout as error:
    print("ReadTimeout", type(error).__name__)
try:
    response.json()
except requests.JSONDecodeError as error:
    print("JSONDecodeError", error.pos)

# Sessions.
with requests.Session() as session:
    session.headers["X-Client"] = "session"
    session.params = {"always": "1"}
    session.get(f"{SITE}/cookies/set", params={"more": "2"})
    told = show("session", session.get(f"{SITE}/page"))
    print(told["path"], told["headers"]["x-client"], told["headers"]["cookie"])
    print(sorted(session.cookies.get_dict().items()))
    print("many", {session.get(f"{SITE}/page?{n}").status_code for n in range(20)})
response = requests.get(f"{SITE}/auth", auth=("user", "pass"))
print("basic auth", response.status_code, response.text)
print("no auth", requests.get(f"{SITE}/auth").status_code)

with requests.Session() as session:
    retry = Retry(total=3, status_forcelist=[503], backoff_factor=0.01)
    session.mount("http://", HTTPAdapter(max_retries=retry))
    response = session.get(f"{SITE}/flaky")
    print("retried", response.status_code, response.text, len(response.raw.retries.history))
