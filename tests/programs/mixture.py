"""Does a little of everything that scripts do: files of many kinds, threads, a socket, clocks."""

import asyncio
import collections
import contextlib
import csv
import functools
import glob
import hashlib
import io
import json
import logging
import mmap
import os
import random
import secrets
import shutil
import sqlite3
import struct
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCE, TARGET = map(Path, sys.argv[1:3])
HOST, PORT = sys.argv[3], int(sys.argv[4])
started = time.monotonic()


@contextlib.contextmanager
def step(name):
    print("--", name)
    logging.info("begin %s", name)
    try:
        yield
    finally:
        logging.info("end %s", name)


def relative(paths):
    return sorted(os.path.relpath(path, SOURCE) for path in paths)


logging.basicConfig(
    filename=TARGET / "run.log", level=logging.INFO, format="%(levelname)s %(message)s"
)

with step("looking around"):
    for folder, folders, names in os.walk(SOURCE):
        folders.sort()
        print(os.path.relpath(folder, SOURCE), sorted(names))
    print(relative(glob.glob(f"{SOURCE}/**/*.txt", recursive=True)))
    print(relative(SOURCE.rglob("*.csv")), relative(SOURCE.glob("*/")))
    with os.scandir(SOURCE) as entries:
        print(sorted((entry.name, entry.is_dir(), entry.stat().st_size > 0) for entry in entries))
    notes = SOURCE / "notes" / "a.txt"
    print(notes.exists(), notes.is_file(), notes.suffix, notes.stat().st_size)
    print((SOURCE / "missing").exists(), os.path.getsize(notes))
    print(notes.read_text(encoding="utf-8").splitlines()[0])

with step("copying"):
    copy = shutil.copytree(SOURCE / "notes", TARGET / "copy")
    shutil.copy2(SOURCE / "numbers.bin", TARGET / "copy" / "deep")
    shutil.copyfile(SOURCE / "table.csv", TARGET / "table.csv")
    shutil.move(TARGET / "copy" / "b.txt", TARGET / "copy" / "moved.txt")
    print(sorted(str(path.relative_to(copy)) for path in copy.rglob("*")))

with step("temporary files"):
    with tempfile.TemporaryDirectory(dir=TARGET) as folder:
        (Path(folder) / "x").write_bytes(b"x" * 100_000)
        print(os.path.getsize(os.path.join(folder, "x")), os.listdir(folder))
    print(os.path.exists(folder))
    with tempfile.NamedTemporaryFile("w+", dir=TARGET, suffix=".txt", delete=False) as file:
        file.write("one\ntwo\n")
        file.seek(0)
        print(file.readlines())
    os.replace(file.name, TARGET / "kept.txt")
    with tempfile.SpooledTemporaryFile(max_size=100, dir=TARGET) as file:
        file.write(b"y" * 1000)
        file.seek(0)
        print(len(file.read()))

with step("archives"):
    with zipfile.ZipFile(TARGET / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(SOURCE.rglob("*.txt")):
            archive.write(path, path.relative_to(SOURCE))
        archive.writestr("extra.json", json.dumps({"a": 1}))
    with zipfile.ZipFile(TARGET / "all.zip") as archive:
        print(archive.testzip(), archive.namelist())
        archive.extract("notes/a.txt", TARGET / "unpacked")
        with archive.open("extra.json") as member:
            print(json.load(io.TextIOWrapper(member)))
    shutil.make_archive(str(TARGET / "copy"), "gztar", TARGET / "copy")
    shutil.unpack_archive(TARGET / "copy.tar.gz", TARGET / "untarred", filter="data")
    print(sorted(os.listdir(TARGET / "untarred")))
    for name in ("all.zip", "copy.tar.gz"):
        os.remove(TARGET / name)
    shutil.rmtree(TARGET / "untarred")

with step("tables"):
    with open(SOURCE / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    database = sqlite3.connect(":memory:")
    database.execute("create table sale (day text, amount real)")
    database.executemany("insert into sale values (:day, :amount)", rows)
    total = database.execute("select count(*), sum(amount) from sale").fetchone()
    print(total)
    database.close()
    with open(TARGET / "table.json", "w") as file:
        json.dump({"rows": rows, "total": total}, file, sort_keys=True)
    with open(TARGET / "out.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["day", "amount"])
        writer.writerows((row["day"], row["amount"]) for row in rows)
    print(collections.Counter(row["day"][:7] for row in rows))

with step("bytes"):
    with open(SOURCE / "numbers.bin", "rb") as file:
        print(hashlib.file_digest(file, "sha256").hexdigest())
        file.seek(8)
        print(struct.unpack("<4I", file.read(16)), file.tell())
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            print(len(mapped), struct.unpack_from("<I", mapped, 4000), mapped.find(b"\xff\x00"))
    with open(SOURCE / "numbers.bin", "rb", buffering=0) as file:
        print(sum(iter(functools.partial(lambda: len(file.read(1000))), 0)))
    shutil.copyfile(SOURCE / "numbers.bin", TARGET / "numbers.bin")
    with open(TARGET / "numbers.bin", "r+b") as file:
        file.seek(100)
        before = file.read(4)
        file.seek(-4, os.SEEK_CUR)
        file.write(b"HERE")
        file.seek(0, os.SEEK_END)
        end = file.tell()
        file.write(b"tail")
        file.seek(98)
        print(before, end, file.read(8), file.tell())
        file.truncate(5000)
    print(os.path.getsize(TARGET / "numbers.bin"))
    with open(TARGET / "counts.txt", "a+") as file:
        for number in range(3):
            file.write(f"{number}\n")
        file.seek(0)
        print(file.read().split())
    descriptor = os.open(TARGET / "low.bin", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    os.write(descriptor, b"0123456789")
    os.pwrite(descriptor, b"xx", 2)
    print(os.pread(descriptor, 5, 0), os.fstat(descriptor).st_size)
    os.close(descriptor)

with step("threads"):

    def digest(path):
        return path.name, hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()

    with ThreadPoolExecutor(4) as pool:
        paths = sorted(path for path in SOURCE.rglob("*") if path.is_file())
        print(dict(pool.map(digest, paths * 5)))

        def write_part(number):
            with open(TARGET / f"part-{number}", "w") as file:
                file.writelines(f"{number} {line}\n" for line in range(1000))

        list(pool.map(write_part, range(8)))
    print(sum(len(path.read_text().splitlines()) for path in TARGET.glob("part-*")))

with step("a conversation"):

    async def talk(name):
        reader, writer = await asyncio.open_connection(HOST, PORT)
        answers = []
        for word in ("hello", "goodbye"):
            writer.write(f"{name} says {word}\n".encode())
            await writer.drain()
            answers.append((await reader.readline()).decode().strip())
        writer.close()
        await writer.wait_closed()
        return answers

    async def talk_all():
        async with asyncio.timeout(20):
            return await asyncio.gather(*map(talk, ("ann", "bob", "cleo")))

    print(asyncio.run(talk_all()))

with step("chance and time"):
    random.seed(7)
    print(random.randint(1, 6), random.choice("abc"), random.sample(range(9), 3))
    print(len(secrets.token_hex(8)), len(secrets.token_urlsafe()), secrets.randbelow(1))
    print(time.strftime("%Y-%m-%d", time.gmtime(86400 * 365)), time.time() > 1.6e9)
    time.sleep(0.01)
    print(time.monotonic() > started, time.perf_counter() > 0)

logging.shutdown()
print((TARGET / "run.log").read_text().count("begin"))
