"""Holds a thread of another process, by ptrace."""

import contextlib
import ctypes
import os
import platform
import struct
from collections.abc import Iterator

FUTEX = {"x86_64": 202, "aarch64": 98}[platform.machine()]
FUTEX_WAIT = 0
"""On a word that several processes share."""

_SYSCALL, _DETACH = 24, 17
_SEIZE, _INTERRUPT, _GET_SYSCALL_INFO = 0x4206, 0x4207, 0x420E
_TRACESYSGOOD = 1
_ENTRY = 1
_WALL = 0x40000000
# Operation, architecture, instruction and stack pointer; at an entry, then number and arguments.
_INFO = struct.Struct("=BxxxIQQQ6Q")
STOPS_MAX = 1000
"""After so many system calls a thread does not make the one that is waited for."""

_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.restype = ctypes.c_long
_ptrace.argtypes = [ctypes.c_long] * 4


def _call(request: int, tid: int, address: int = 0, data: int = 0) -> None:
    if _ptrace(request, tid, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _begins_to_wait(tid: int) -> bool:
    """Whether it is about to sleep on a shared word for as long as it takes."""
    info = ctypes.create_string_buffer(_INFO.size)
    _call(_GET_SYSCALL_INFO, tid, _INFO.size, ctypes.addressof(info))
    what, _, _, _, number, _, operation, _, timeout, *_ = _INFO.unpack(info.raw)
    return what == _ENTRY and (number, operation, timeout) == (FUTEX, FUTEX_WAIT, 0)


@contextlib.contextmanager
def held(tid: int) -> Iterator[None]:
    """The thread stands still. `PermissionError` where the host refuses to trace."""
    _call(_SEIZE, tid, 0, _TRACESYSGOOD)
    try:
        _call(_INTERRUPT, tid)
        os.waitpid(tid, _WALL)
        yield
    finally:
        _call(_DETACH, tid)


@contextlib.contextmanager
def held_before_it_sleeps(tid: int) -> Iterator[None]:
    """The thread has looked whether there is anything for it, found nothing, and goes to sleep once
    this is over."""
    with held(tid):  # one that slept begins anew
        for _ in range(STOPS_MAX):
            _call(_SYSCALL, tid)
            os.waitpid(tid, _WALL)
            if _begins_to_wait(tid):
                break
        else:
            raise AssertionError(f"thread {tid} does not go to sleep")
        yield
