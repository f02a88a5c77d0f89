"""Tells about a repository by asking git in three ways."""

import subprocess
import sys

folder = sys.argv[1]

version = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True)
print(version.stdout.strip())

log = subprocess.check_output(["git", "-C", folder, "log", "--format=%an %s"], encoding="utf-8")
for line in log.splitlines():
    print("commit:", line)

command = ["git", "-C", folder, "show", "--stat", "--format=%h"]
with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
    out, err = process.communicate()
print(process.returncode, out.decode().split()[1:], err)

unknown = subprocess.run(["git", "-C", folder, "rev-parse", "nothing"], capture_output=True)
print("unknown revision:", unknown.returncode, b"unknown revision" in unknown.stderr)
try:
    subprocess.run(["git", "-C", folder, "show", "gone"], check=True, stderr=subprocess.DEVNULL)
except subprocess.CalledProcessError as error:
    print("failed:", error.returncode, error.cmd[-1])
