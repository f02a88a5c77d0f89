"""Hosts in processes of their own, each of which runs out of something and has it back.

Each prints what came of it as a line of JSON. The tests read it, and the soak looks on.
"""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any


def in_host_of_its_own(program: str) -> Any:
    """What a program prints, as JSON: it changes its own limits."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        cwd=Path(__file__).parent,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def parent(pid: int) -> int:
    """The process that a process is a child of."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def is_alive(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


DESCRIPTORS = """
import json, os, resource, threading
import pyisolate
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 256), hard))
supervisor = pyisolate.Supervisor()
template = supervisor.template(setup="x = 1")
old = supervisor.spawn("old", allowed_imports=["math"], message_bytes_max=64 << 20)
errors, taken = {}, []

def attempt(name, action):
    try:
        result = action()
    except (pyisolate.SandboxError, OSError) as error:
        errors.setdefault(name, []).append(str(error))
        return None
    return result

def grab():
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass

def operations(number):
    for name, action in {
        "spawn": lambda: supervisor.spawn(f"c{number}").kill(),
        "templated": lambda: supervisor.spawn(f"t{number}", template=template).kill(),
        "template": lambda: supervisor.template(setup="y = 2"),
        "call": lambda: old.call("math.gcd", 12, 18, timeout=20),
        "large": lambda: (old.post(b"x" * 10_000_000, timeout=20), old.exec("recv(9)").wait(20)),
        "answer": lambda: (old.exec("post(b'x' * 10_000_000)").wait(20), old.recv(20)),
        "supervisor": lambda: pyisolate.Supervisor().shutdown(),
    }.items():
        attempt(name, action)

for number in range(9):
    grab()
    for _ in range(number):
        os.close(taken.pop())  # room for so many
    operations(number)
# Somebody who takes every descriptor that comes free, at any moment.
stop = False
def hold():
    while not stop:
        grab()
holder = threading.Thread(target=hold)
holder.start()
for number in range(30):
    attempt("spawn", lambda: supervisor.spawn(f"h{number}").kill())
    attempt("call", lambda: old.call("math.gcd", 12, 18, timeout=20))
stop = True
holder.join()
for fd in taken:
    os.close(fd)
taken.clear()
again = {}
first, errors = errors, again
operations("again")
print(json.dumps([first, again, old.call("math.gcd", 12, 18, timeout=20)]))
"""

MEMORY = """
import json, resource
import pyisolate
supervisor = pyisolate.Supervisor()
old = supervisor.spawn("old", allowed_imports=["math"])
sender = supervisor.spawn("sender", mem_bytes=512 << 20)
old.call("math.gcd", 12, 18, timeout=20)
sender.exec("data = b'x' * 100_000_000").wait(20)
status = open("/proc/self/status").read()
size = int(status.split("VmSize:")[1].split()[0]) * 1024
soft, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (size + (32 << 20), hard))
errors = {}
def attempt(name, action):
    try:
        action()
    except (pyisolate.SandboxError, MemoryError) as error:
        errors[name] = [type(error).__name__, str(error)]
attempt("call", lambda: old.call("math.gcd", 12, 18, timeout=20))
sender.exec("post(1)\\npost(data)\\npost(2)")
attempt("first", lambda: sender.recv(20))
attempt("large", lambda: sender.recv(20))
attempt("call", lambda: old.call("math.gcd", 12, 18, timeout=20))
resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
again = supervisor.spawn("again")
again.exec("post(b'x' * 100_000_000)")
print(json.dumps([errors, len(again.recv(20)), old.call("math.gcd", 12, 18, timeout=20)]))
"""

THREADS = """
import json, resource
import pyisolate
supervisor = pyisolate.Supervisor()
def slow(action, payload):
    return "answered"
old = supervisor.spawn("old", allowed_imports=["math"], capabilities={"db": slow})
old.call("math.gcd", 12, 18, timeout=20)
status = open("/proc/self/status").read()
size = int(status.split("VmSize:")[1].split()[0]) * 1024
soft, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 20), hard))  # no room for a thread's stack
old.exec('''
try:
    post(request("db", "get"))
except RuntimeError as error:
    post(str(error))
''')
refused = old.recv(20)
resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
old.exec("post(request('db', 'get'))")
print(json.dumps([refused, old.recv(20)]))
"""

FULL_DISK = """
import ctypes, json, os, sys, tempfile
import pyisolate
libc = ctypes.CDLL(None, use_errno=True)
folder = tempfile.mkdtemp()
os.unshare(os.CLONE_NEWNS)
def mount(*arguments):
    if libc.mount(*arguments):
        print(json.dumps([f"mount: {os.strerror(ctypes.get_errno())}"]))
        sys.exit()
mount(b"none", b"/", None, 1 << 18 | 1 << 14, None)  # MS_PRIVATE | MS_REC
mount(b"tmpfs", folder.encode(), b"tmpfs", 0, b"size=256k")
policy = pyisolate.Policy.from_text(
    f"version: 1\\nfs: {{write: ['{folder}/**'], read: ['{folder}/**']}}\\n", source="p.yml"
)
supervisor = pyisolate.Supervisor()
cell = supervisor.spawn("writer", policy=policy)
cell.exec(f'''
def write(name, count):
    try:
        with open("{folder}/" + name, "wb") as out:
            for _ in range(count):
                out.write(b"x" * 65536)
    except OSError as error:
        return error.errno
''').wait(20)
full = cell.call("__main__.write", "large", 10, timeout=20)
os.unlink(f"{folder}/large")
fits = cell.call("__main__.write", "small", 2, timeout=20)
os.unlink(f"{folder}/small")
journal = pyisolate.Supervisor(journal=f"{folder}/journal")
noted = journal.spawn("noted", allowed_imports=["math"])
answers = [noted.call("math.gcd", 12, 18, timeout=20) for _ in range(4000)]
broken = ""
try:
    journal.shutdown()
except pyisolate.SandboxError as error:
    broken = str(error)
os.unlink(f"{folder}/journal")
with pyisolate.Supervisor(journal=f"{folder}/another") as journal:
    journal.spawn("noted").close()
more = cell.call("__main__.write", "more", 1, timeout=20)
supervisor.shutdown()
print(json.dumps(["ok", full, fits, set(answers) == {6}, broken, more]))
os.chdir("/")
libc.umount2(folder.encode(), 2)
os.rmdir(folder)
"""
