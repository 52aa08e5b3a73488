"""Durable writes, canonical hashes, checksum manifests and locks: every lasting byte goes through here."""

from __future__ import annotations

import atexit
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from metier.errors import RunError

MANIFEST = "manifest.json"
_BLOCK = 1 << 20
_KEPT = 16  # directories of one sort in the user's cache
_NAME = 200  # bytes; file systems allow 255, of which a suffix and a temporary file's mark take some


def canonical(value: Any) -> str:
    """The one JSON text of `value`: keys sorted, no white space, NaN refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`, in hexadecimal."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks so that no mapped page stays resident."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            sha.update(block)
    return sha.hexdigest()


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content`, or leave it as it was: temporary file, fsync, rename."""
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` of indented JSON in the given key order."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def append_line(path: Path, line: str, *, sync: bool = False) -> None:
    """Append one line in a single write, so that a kill leaves at most one torn last line.

    With `sync` it is on the disk when this returns.
    """
    try:
        with path.open("ab") as file:
            file.write(line.encode() + b"\n")
            if sync:
                file.flush()
                os.fsync(file.fileno())
    except OSError:  # a full disk may have taken a part of it
        with suppress(OSError):
            cut_torn_line(path)
        raise


def cut_torn_line(path: Path) -> None:
    """Drop a last line without its end, which a kill tore, so that the next line stands by itself."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end and file.seek(end - 1) >= 0 and file.read(1) != b"\n":
            end -= 1
        if end < size:
            file.truncate(end)


def is_full(error: Exception) -> bool:
    """Whether something could not be written because there is no room."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def plain_name(name: str) -> str:
    """What of `name` a file may be called by: its end, as long as may be, and nothing that leads elsewhere; or ""."""
    plain = re.sub(r"[^\w.-]+", "_", name).strip("._").encode()[-_NAME:]
    return plain.decode(errors="ignore").strip("._")


def write_directory(path: Path, fill: Callable[[Path], None]) -> None:
    """Stage a directory beside `path`, let `fill` write into it, seal it and rename it into place.

    A directory at `path` is replaced; a kill leaves the old one or the new one, or in the moment between
    two renames neither, and never one that `verify` accepts and that is not whole.
    """
    staged = path.parent / f".{path.name}.staged"
    old = path.parent / f".{path.name}.old"
    for leftover in (staged, old):
        shutil.rmtree(leftover, ignore_errors=True)
    staged.mkdir(parents=True)
    try:
        fill(staged)
        _seal(staged)
        if path.exists():
            os.replace(path, old)
        os.replace(staged, path)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    _sync_directory(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def kept_directory(what: str, key: str, fill: Callable[[Path], None]) -> Path:
    """A directory that `fill` writes once on this machine, in the user's cache, where it may be removed at any time."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metier" / what
    with suppress(OSError):
        home.mkdir(parents=True, exist_ok=True)
    if not os.access(home, os.W_OK):
        home = _own_folder()
    path = home / key
    with locked(home / f"{key}.lock", wait=True):
        if not verify(path):
            write_directory(path, fill)
            _thin_out(home)
    return path


@cache
def _own_folder() -> Path:
    """One that goes with this process."""
    folder = tempfile.TemporaryDirectory(prefix="metier-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def _thin_out(home: Path) -> None:
    """Remove what was written longest ago."""
    newest = sorted((path for path in home.iterdir() if path.is_dir()), key=lambda path: -path.stat().st_mtime)
    for path in newest[_KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock file at `path`, which ends with the process; raises `RunError` where another one has it."""
    # Whichever thread ends what holds it, the lock is released.
    lock = FileLock(path, timeout=-1 if wait else 0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(f"{path.parent}: another process is at work on it", "wait for it, or stop it first") from None
    try:
        yield
    finally:
        lock.release()


def held(path: Path) -> bool:
    """Whether some process holds the lock file at `path`; makes none."""
    try:
        if not path.exists():
            return False
        with locked(path, wait=False):
            return False
    except (RunError, OSError):  # also where this user may not ask
        return True


def verify(directory: Path) -> bool:
    """Whether every file that the directory's manifest names is there with its checksum."""
    try:
        manifest: dict[str, str] = read_json(directory / MANIFEST)
        return all(file_digest(directory / name) == checksum for name, checksum in manifest.items())
    except (OSError, ValueError):
        return False


def _seal(directory: Path) -> None:
    """Write the checksum of every file into the manifest and push all of it to the disk."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    for path in files:
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    write_json(directory / MANIFEST, {path.relative_to(directory).as_posix(): file_digest(path) for path in files})


def _sync_directory(directory: Path) -> None:
    """Make a rename durable; Windows has no handle on directories and needs none."""
    if os.name == "nt":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
