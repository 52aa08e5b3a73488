"""Runs in a child process: one Python program, kept from the network, other files, other programs, and with limits.

Read by no import: `python -I confined.py` takes {program, seconds, memory, file, token} as JSON on stdin and writes
the token where the program came to its end, else why it did not. Only the standard library stands here.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import struct
import sys
from collections.abc import Iterator, Mapping
from typing import Any

_NAMESPACES = 0x10000000 | 0x40000000 | 0x20000000  # CLONE_NEWUSER, NEWNET, NEWPID: linux/sched.h
_CREATE, _ADD, _RESTRICT = 444, 445, 446  # system calls of Landlock, the same on every architecture
_NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS
_READ = 1 << 2 | 1 << 3  # READ_FILE, READ_DIR: linux/landlock.h
_BY_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}  # every access to files that a version handles
_EXECUTE = 1 << 0
_LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/lib", "/lib64")


def main() -> None:
    task = json.load(sys.stdin)
    report = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    if separate():
        in_child()  # the first of a namespace takes all others in it along when it ends, but no signal ends it
        in_child()
    confine_files()
    limit(task)
    os.write(report, run(task["program"], task["token"]).encode())
    os._exit(0)


def in_child() -> None:
    """Go on in a child process; this one ends as that one does, of signal s with 128 + s."""
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)


def run(program: str, token: str) -> str:
    """The token where the program runs to its end, else its error in a line."""
    try:
        exec(compile(program, "answer.py", "exec"), {"__name__": "__main__"})
    except BaseException as error:  # SystemExit among them: whoever leaves early has not passed
        return f"{type(error).__name__}: {error}"[:300].replace("\n", " ")
    return token


def separate() -> bool:
    """Into namespaces of its own: no network but a loopback that is down, no process but its own."""
    return sys.platform == "linux" and bool(ctypes.CDLL(None).unshare(_NAMESPACES) == 0)


def confine_files() -> bool:
    """By Landlock, where the kernel has it: the working folder, and Python's own files to read; no programs."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if (version := libc.syscall(_CREATE, None, 0, 1)) < 1:
        return False
    every = _BY_VERSION[min(version, 3)]
    handled = struct.pack("QQ", every, 3) if version >= 4 else struct.pack("Q", every)  # 3: no TCP either
    if (rules := libc.syscall(_CREATE, handled, len(handled), 0)) < 0:
        return False
    for path, allowed in _allowed(every):
        with contextlib.suppress(OSError):
            folder = os.open(path, os.O_PATH | os.O_DIRECTORY)
            libc.syscall(_ADD, rules, 1, struct.pack("=Qi", allowed, folder), 0)
            os.close(folder)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    refused = libc.syscall(_RESTRICT, rules, 0)
    os.close(rules)
    return bool(refused == 0)


def _allowed(every: int) -> Iterator[tuple[str, int]]:
    yield ".", every & ~_EXECUTE
    for path in {sys.prefix, sys.base_prefix, *_LIBRARIES}:
        yield path, _READ


def limit(task: Mapping[str, Any]) -> None:
    """Seconds of the processor, bytes of memory and of a file, no core dumps; what a system lacks is left out."""
    limits = {
        "RLIMIT_CPU": (task["seconds"], task["seconds"] + 1),  # told, then ended
        "RLIMIT_AS": (task["memory"],) * 2,
        "RLIMIT_FSIZE": (task["file"],) * 2,
        "RLIMIT_CORE": (0, 0),
        "RLIMIT_NPROC": (0, 0),
    }
    for name, both in limits.items():
        if (which := getattr(resource, name, None)) is not None:
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(which, both)


if __name__ == "__main__":
    if sys.argv[1:] == ["--probe"]:  # what this machine keeps a program from
        print(json.dumps({"network": separate(), "files": confine_files()}))
    else:
        main()
