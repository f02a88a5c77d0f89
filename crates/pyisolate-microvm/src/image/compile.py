"""Compiles the Python files of an image, one after the other, in an order that is always the same.

Standard input has pairs of NUL-ended paths: where a source is, and what it is called in the image.
Standard output gets two NUL-ended lines, the interpreter's version and the tag of its bytecode, and
for each file four bytes with a length and so many of bytecode. A file that cannot be compiled (there
are some that are meant to be wrong) gets none.
"""

import _imp
import importlib._bootstrap_external as external
import sys

names = sys.stdin.buffer.read().split(b"\0")[:-1]
out = sys.stdout.buffer
version = ".".join(map(str, sys.version_info[:3]))
out.write(f"{version}\0{sys.implementation.cache_tag}\0".encode())
for source, name in zip(names[::2], names[1::2], strict=True):
    with open(source, "rb") as file:
        text = file.read()
    try:
        code = compile(text, name.decode("utf-8", "surrogateescape"), "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        compiled = b""
    else:
        digest = _imp.source_hash(external._RAW_MAGIC_NUMBER, text)
        # Never compared with the source: an image does not change.
        compiled = bytes(external._code_to_hash_pyc(code, digest, checked=False))
    out.write(len(compiled).to_bytes(4, "little") + compiled)
