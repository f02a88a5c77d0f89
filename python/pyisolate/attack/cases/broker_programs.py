"""Programs: other ones than granted, other arguments, and what a granted one does in its jail."""

from pyisolate.attack.asked import Asked, Ways
from pyisolate.attack.texts import BROKER, NAIVE

# --- what is asked for ---------------------------------------------------------------------------

_ASK = "return request('subprocess', 'run', {{'program': {p!r}, 'args': {a!r}}})"


def _asked(program: str, *args: str) -> str:
    return _ASK.format(p=program, a=list(args))


GRANTED: list[tuple[str, list[str]]] = [
    ("sort", ["*"]),
    ("git", ["log", "*"]),
    ("git", ["clone", "https://*"]),
    ("echo", ["a*", "[0-9]", "x"]),
]
"""Programs and patterns of arguments."""

INJECTED = [
    Asked(" ".join(words)[:60], _asked(*words))
    for words in (
        ("sort", "--output=/tmp/x"),
        ("sort", "-o/tmp/x"),
        ("sort", "--compress-program=sh"),
        ("sort", "--files0-from=/etc/passwd"),
        ("sort", "-"),
        ("sort", "--"),
        ("sort", "-T/tmp"),
        ("git", "log", "--output=/tmp/x"),
        ("git", "log", "-O/tmp/x"),
        ("git", "log", "--ext-diff"),
        ("git", "clone", "--upload-pack=touch /tmp/x"),
        ("git", "clone", "-u/tmp/x"),
        ("git", "clone", "ext::sh -c x"),
    )
]
"""Options where a pattern's `*` stands. A broker that compares with `fnmatch` lets them through."""

OTHERS = [
    Asked(f"{program!r} {args!r}"[:60], _asked(program, *args), "DENIED ValueError ENOENT")
    for program, args in (
        ("git", ["-c", "core.pager=touch /tmp/x", "log", "a"]),
        ("git", ["--exec-path=/tmp", "log", "a"]),
        ("git", ["log"]),
        ("git", ["log", "a", "b"]),
        ("git", ["log", "a", "--output=x"]),
        ("git", ["LOG", "a"]),
        ("git", ["lo", "g", "a"]),
        ("git", ["log a"]),
        ("git", ["log\0", "a"]),
        ("git", ["push", "a"]),
        ("git", []),
        ("sort", []),
        ("sort", ["a", "b"]),
        ("sort", ["a\0-o/tmp/x"]),
        ("echo", ["b", "1", "x"]),
        ("echo", ["a", "12", "x"]),
        ("echo", ["a", "1", "x "]),
        ("echo", ["a", "1"]),
        ("sh", ["-c", "true"]),
        ("bash", []),
        ("./sort", ["a"]),
        ("../sort", ["a"]),
        ("bin/sort", ["a"]),
        ("/tmp/sort", ["a"]),
        ("/usr/bin/sort", ["a"]),
        ("/usr/bin/../bin/sort", ["a"]),
        ("//usr/bin/sort", ["a"]),
        ("/proc/self/exe", ["a"]),
        ("../../bin/sh", ["a"]),
        ("/bin/sh", ["-c", "true"]),
        ("sort\0x", ["a"]),
        ("sort\0", ["a"]),
        ("\0sort", ["a"]),
        ("sort ", ["a"]),
        (" sort", ["a"]),
        ("sort\n", ["a"]),
        ("SORT", ["a"]),
        ("ｓｏｒｔ", ["a"]),
        ("sort/", ["a"]),
        ("sort/.", ["a"]),
        ("", ["a"]),
        (".", ["a"]),
        ("..", ["a"]),
        ("/", ["a"]),
        ("-c", ["a"]),
        ("sort a", []),
        ("sort;sh", ["a"]),
        ("$(sh)", ["a"]),
        ("s?rt", ["a"]),
        ("*", ["a"]),
        ("~/sort", ["a"]),
        ("x" * 5000, ["a"]),
    )
]

PAYLOADS = {
    "no program": {},
    "a program of bytes": {"program": b"sort"},
    "a list": {"program": ["sort", "a"]},
    "arguments as text": {"program": "sort", "args": "a"},
    "arguments of bytes": {"program": "sort", "args": [b"a"]},
    "arguments of numbers": {"program": "sort", "args": [1]},
    "nested arguments": {"program": "sort", "args": [["a"]]},
    "text for stdin": {"program": "sort", "args": ["a"], "stdin": "x"},
    "an environment": {"program": "sort", "args": ["a"], "env": {"LD_PRELOAD": "/tmp/x"}},
    "a folder": {"program": "sort", "args": ["a"], "cwd": "/"},
    "a shell": {"program": "sort", "args": ["a"], "shell": True},
    "another executable": {"program": "sort", "args": ["a"], "executable": "/bin/sh"},
    "a user": {"program": "sort", "args": ["a"], "user": 0},
    "a negative time": {"program": "sort", "args": ["a"], "timeout": -1},
    "no time at all": {"program": "sort", "args": ["a"], "timeout": float("nan")},
    "time without end": {"program": "sort", "args": ["a"], "timeout": float("inf")},
    "a time of text": {"program": "sort", "args": ["a"], "timeout": "1"},
    "too many arguments": {"program": "sort", "args": ["a"] * 1001},
    "too long an argument": {"program": "sort", "args": ["a" * 200_000]},
    "too long a stdin": {"program": "sort", "args": ["a"], "stdin": bytes((16 << 20) + 1)},
}

STAND_INS = [
    Asked(name, body, "EPERM EACCES DENIED ENOSYS ENOENT LookupError")
    for name, body in {
        "a shell": "subprocess.run('true', shell=True, check=True)",
        "a shell of one word": "subprocess.run(['true'], shell=True, check=True)",
        "another executable": "subprocess.run(['x'], executable='/bin/true', check=True)",
        "an environment": "subprocess.run(['true'], env={'LD_PRELOAD': '/tmp/x.so'}, check=True)",
        "a folder": "subprocess.run(['true'], cwd='/proc', check=True)",
        "a function": "subprocess.run(['true'], preexec_fn=lambda: None, check=True)",
        "descriptors": "subprocess.run(['true'], pass_fds=[0], check=True)",
        "a user": "subprocess.run(['true'], umask=0o777, check=True)",
        "a program": "subprocess.run(['true'], check=True)",
        "check_output": "subprocess.check_output(['true'])",
        "getoutput": "need(subprocess.getoutput('echo x') == 'x')",
        "Popen": "need(subprocess.Popen(['true']).wait() == 0)",
        "os.system": "need(os.system('true') == 0)",
        "os.popen": "need(os.popen('echo x').read() == 'x\\n')",
        "posix_spawn": "pid = os.posix_spawn('/bin/true', ['true'], {})\nos.waitpid(pid, 0)",
        "spawnv": "need(os.spawnv(os.P_WAIT, '/bin/true', ['true']) == 0)",
        "fork": "pid = os.fork()\nif pid == 0: os._exit(0)\nos.waitpid(pid, 0)",
        "fork_exec":
            "import _posixsubprocess\n"
            "r, w = os.pipe()\n"
            "pid = _posixsubprocess.fork_exec([b'true'], [b'/bin/true'], True, (w,), None, None,"
            " -1, -1, -1, -1, -1, -1, r, w, False, False, -1, None, None, None, -1, None, False)\n"
            "os.waitpid(pid, 0)",
        "system of libc":
            "need(libc.system(b'true') == 0)",
    }.items()
]  # fmt: skip

# --- what a granted shell does -------------------------------------------------------------------

JAILED = {
    "a file of the host's": "cat '{SECRET}'",
    "a file by its own root": "cat /proc/self/root'{SECRET}'",
    "a file by another's root": "cat /proc/{VICTIM}/root'{SECRET}'",
    "a folder of the host's": "ls '{BASE}' && cat '{BASE}/secret.txt'",
    "a file by dotdot": "cat /tmp/../../../../..'{SECRET}'",
    "a link": "ln -s '{SECRET}' /tmp/l && cat /tmp/l",
    "changing a file": "echo changed > '{BASE}/victim.txt'",
    "making a file": "echo x > '{BASE}/new'",
    "removing a file": "rm '{BASE}/victim.txt'",
    "a stream": "exec 3<>/dev/tcp/127.0.0.1/{CANARY} && head -c 6 <&3",
    "a datagram": "exec 3<>/dev/udp/127.0.0.1/{CANARY} && echo x >&3 && false || "
    "exec 3<>/dev/tcp/127.0.0.1/{CANARY}",
    "seeing a process": "kill -0 {VICTIM}",
    "a process in /proc": "test -e /proc/{VICTIM}/status && grep -q sleep /proc/{VICTIM}/cmdline",
    "variables of the host's": 'test -n "$PLANTED" && echo "$PLANTED"',
}
"""Scripts that end with status 0 where there is no jail. They need bash."""

INSIDE = {
    "its folder for programs": "echo x > /usr/bin/new",
    "its libraries": "echo x > /lib/new",
    "its own /etc": "echo x > /etc/new",
    "its root": "echo x > /new",
    "its /dev": "mknod /tmp/null c 1 3",
    "rights": "chown 0:0 /tmp && mount -t tmpfs none /mnt",
    "namespaces": "unshare -Ur true",
    "another root": "chroot / true",
    "a setuid program": "su -c true root",
    "kernel settings": "echo 1 > /proc/sys/kernel/sysrq",
    "the score": "echo -1000 > /proc/self/oom_score_adj",
    "the host's name": "hostname changed",
    "a FIFO that outlives": "test -e /tmp/left",
    "more memory": "ulimit -v unlimited && ulimit -d unlimited && false",
    "core files": 'test "$(ulimit -c)" != 0',
}
"""Scripts that fail in the jail."""

# --- as trials ------------------------------------------------------------------------------------

_STAGE = f"""
import builtins
def fresh():
    return lambda: False
patterns = {[[name, *args] for name, args in GRANTED]!r} + [["git", "clone", "*"]]
builtins.request = naive_programs(patterns)
"""
TRIALS = [
    Ways(
        "an option for a word",
        "programs",
        tuple(INJECTED),
        (BROKER, NAIVE, _STAGE),
        lambda asked, value, changed, token: value == "would run",
    )
]
