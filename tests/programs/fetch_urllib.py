"""Fetches pages with the standard library: redirects, forms, headers, compression, errors."""

import gzip
import hashlib
import io
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar

SITE, MIRROR = sys.argv[1:]


def path_of(url):
    return url.replace(SITE, "").replace(MIRROR, "mirror:")


def show(what, response):
    told = json.load(response)
    print(what, response.status, path_of(response.url), told["method"], told["path"], told["body"])
    return told


# Plain pages.
with urllib.request.urlopen(f"{SITE}/page?q=1&r=a%20b", timeout=20) as page:
    show("page", page)
    print("headers", page.headers["Content-Type"], page.headers.get_all("X-Several"))

request = urllib.request.Request(
    f"{SITE}/page", headers={"Accept-Language": "de", "User-Agent": "report/1.0"}
)
with urllib.request.urlopen(request) as page:
    told = show("with headers", page)
    print("sent", told["headers"]["accept-language"], told["headers"]["user-agent"])

# Redirects: to a path, to a whole URL, to a relative one, to another server.
for status in (301, 302, 303, 307, 308):
    with urllib.request.urlopen(f"{SITE}/redirect/{status}/path") as page:
        show(f"redirect {status}", page)
for kind in ("absolute", "relative", "mirror", "twice"):
    with urllib.request.urlopen(f"{SITE}/redirect/302/{kind}") as page:
        show(f"redirect {kind}", page)
try:
    urllib.request.urlopen(f"{SITE}/redirect/302/loop")
except urllib.error.HTTPError as error:
    print("loop", error.code, "infinite loop" in str(error))
    error.close()

# Forms and other methods.
form = urllib.parse.urlencode({"name": "Zoë", "n": 1}).encode()
with urllib.request.urlopen(f"{SITE}/page", data=form) as page:
    print(show("form", page)["headers"]["content-type"])
with urllib.request.urlopen(f"{SITE}/redirect/302/path", data=b"dropped") as page:
    show("form redirected", page)
try:
    urllib.request.urlopen(f"{SITE}/redirect/307/path", data=b"kept?")
except urllib.error.HTTPError as error:
    print("form redirected by 307", error.code)
    error.close()
for method in ("PUT", "DELETE", "PATCH"):
    request = urllib.request.Request(f"{SITE}/page", data=b"x", method=method)
    with urllib.request.urlopen(request) as page:
        show(method, page)
request = urllib.request.Request(f"{SITE}/large", method="HEAD")
with urllib.request.urlopen(request) as page:
    print("HEAD", page.status, page.headers["Content-Length"], page.read())
request = urllib.request.Request(f"{SITE}/digest", data=io.BytesIO(b"z" * 700_000), method="POST")
with urllib.request.urlopen(request) as page:
    print("body of unknown length", page.read().decode())

# Contents.
with urllib.request.urlopen(f"{SITE}/gzip") as page:
    data = page.read()
    print("gzip", page.headers["Content-Encoding"], gzip.decompress(data)[:20])
with urllib.request.urlopen(f"{SITE}/empty") as page:
    print("empty", page.status, page.read())
for path in ("large", "chunked", "until-close"):
    digest, count = hashlib.sha256(), 0
    with urllib.request.urlopen(f"{SITE}/{path}") as page:
        while part := page.read(60_000):
            digest.update(part)
            count += len(part)
    print(path, count, digest.hexdigest())
with urllib.request.urlopen(f"{SITE}/lines") as page:
    print("lines", sum(1 for _ in page))

# What goes wrong.
for status in (404, 500):
    try:
        urllib.request.urlopen(f"{SITE}/status/{status}")
    except urllib.error.HTTPError as error:
        print("error", error.code, error.reason, error.read())
for path in ("slow", "slow-body"):
    try:
        with urllib.request.urlopen(f"{SITE}/{path}", timeout=0.5) as page:
            page.read()
    except TimeoutError as error:
        print(path, type(error).__name__)
    except urllib.error.URLError as error:
        print(path, "wrapped", type(error.reason).__name__)

# Sessions of a kind.
jar = CookieJar()
opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
opener.addheaders = [("User-agent", "jar")]
with opener.open(f"{SITE}/cookies/set") as page:
    page.read()
with opener.open(f"{SITE}/page") as page:
    print("cookies", json.load(page)["headers"]["cookie"], len(jar))
passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
passwords.add_password(None, SITE, "user", "pass")
opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(passwords))
with opener.open(f"{SITE}/auth") as page:
    print("basic auth", page.status, page.read())
