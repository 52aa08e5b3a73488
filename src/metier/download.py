"""A hub name → its files in the hub's own cache: said before, resumed after a cut, verified, never half there.

huggingface_hub keeps nothing of a file whose download was interrupted, and verifies no checksum. So the
bytes are fetched here, into `blobs/CHECKSUM.part` of its cache, and become `blobs/CHECKSUM` only if they
have that checksum; its own `snapshot_download` then finds them there and links the snapshot. The layout:
https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlparse
from urllib.request import getproxies

from huggingface_hub import (
    HfApi,
    constants,
    get_session,
    get_token,
    hf_hub_url,
    hf_raise_for_status,
    is_offline_mode,
    snapshot_download,
)
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is not re-exported
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented, not re-exported
from huggingface_hub.utils.tqdm import disable_progress_bars

from metier.errors import DoesNotFit, ModelError
from metier.events import Event, Listener
from metier.figures import disk
from metier.files import file_digest, locked

_SMALL = ["*.json", "*.model", "*.jinja", "*.txt"]  # configuration and tokenizer
_WEIGHTS = "*.safetensors"
_WANTED = [*_SMALL, _WEIGHTS]
_UNWANTED = ["*/*", "consolidated*"]  # other formats' folders; Mistral's second copy of the same weights
_AGAIN = "what has arrived is kept: run the same command again later"
_CHECKSUM = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before the hub is asked once more
_LONGEST_WAIT = 60.0  # that the hub may ask for
_TIMEOUT = 30.0  # seconds without a byte
_TOLD_EVERY = 1 << 24

T = TypeVar("T")


@dataclass(frozen=True)
class _File:
    """A file as the hub lists it; `checksum` is what its cache calls it by."""

    name: str
    size: int
    checksum: str

    @property
    def large(self) -> bool:
        """Whether it is kept outside git: then its checksum is SHA-256, else git's SHA-1."""
        return len(self.checksum) == 64

    @property
    def weights(self) -> bool:
        return fnmatch.fnmatch(self.name, _WEIGHTS)


def cached(name: str, revision: str | None, *, weights: bool = True) -> Path | None:
    """The snapshot that lies on this machine, whole (but for its weights) as far as the cache can tell.

    Opens no socket.
    """
    try:
        return _snapshot(name, revision, local=True, weights=weights)
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise _refusal(name, error) from None


def _snapshot(name: str, revision: str | None, *, local: bool, weights: bool) -> Path:
    wanted = _WANTED if weights else _SMALL
    return Path(
        snapshot_download(
            name, revision=revision, local_files_only=local, allow_patterns=wanted, ignore_patterns=_UNWANTED
        )
    )


def cached_data(name: str, revision: str | None) -> Path | None:
    """The snapshot of a data set that lies on this machine. Opens no socket."""
    try:
        return _data_snapshot(name, revision, local=True)
    except LocalEntryNotFoundError:
        return None


def fetch_data(name: str, revision: str | None, listen: Listener) -> Path:
    """Bring a data set's files into the cache; never code. Raises `ModelError` with the remedy."""
    disable_progress_bars()
    listen(Event("note", values={"text": f"fetching the data set {name}; its licence stands on {page(name)}"}))
    return _patiently(f"datasets/{name}", lambda: _data_snapshot(name, revision, local=False))


def page(name: str) -> str:
    """Where people read of a data set."""
    return f"{constants.ENDPOINT}/datasets/{name}"


def _data_snapshot(name: str, revision: str | None, *, local: bool) -> Path:
    found = snapshot_download(
        name, repo_type="dataset", revision=revision, local_files_only=local, ignore_patterns=["*.py"]
    )
    return Path(found)


def barrier() -> str:
    """Why the hub is out of reach, or nothing: one attempt of two seconds; a proxy's word is taken for it."""
    if is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    address = urlparse(constants.ENDPOINT)
    if address.scheme in getproxies():
        return ""
    try:
        with socket.create_connection((address.hostname, address.port or 443), timeout=2):
            return ""
    except OSError:
        return "the hub cannot be reached"


@contextmanager
def closed() -> Iterator[None]:
    """For vendors that fetch by themselves: as long as the block lasts they use only what is on this machine."""
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def room() -> int:
    """Free bytes on the disk that holds the cache."""
    place = Path(constants.HF_HUB_CACHE).absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def has_token() -> bool:
    """Whether HF_TOKEN is set, or a log-in has left one."""
    return get_token() is not None


def fetch(name: str, revision: str | None, licence: str, listen: Listener, *, weights: bool = True) -> Path:
    """Bring a model into the cache, or all of it but the weights, and return its snapshot.

    `licence` is what is known of it; else the hub's word is told. Raises `DoesNotFit` where the disk is
    too small for all of it, `ModelError` with the remedy for everything that the hub or its files refuse.
    """
    disable_progress_bars()  # `listen` hears of progress
    found = _patiently(name, lambda: HfApi().model_info(name, revision=revision, files_metadata=True))
    commit = str(found.sha)
    files = _files(name, found.siblings or [])
    blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model") / "blobs"
    absent = [file for file in files if not (blobs / file.checksum).exists()]
    missing = [file for file in absent if weights or not file.weights]
    _check_room(name, absent, blobs)
    if missing:
        later = sum(file.size for file in absent) - sum(file.size for file in missing)
        _tell(f"{name} at {commit[:12]}", missing, later, licence or _licence(found), listen)
    blobs.mkdir(parents=True, exist_ok=True)
    for file in sorted(missing, key=lambda file: file.size):  # what is refused is refused before the large ones
        _bring(name, commit, file, blobs, listen)
    snapshot = _patiently(name, lambda: _snapshot(name, revision, local=False, weights=weights))
    if snapshot.name != commit:
        raise ModelError(f"model: {name}: changed on the hub while it was fetched", "run the same command again")
    return snapshot


def _files(name: str, siblings: Sequence[Any]) -> list[_File]:
    """What transformers needs: weights as safetensors, tokenizer, configuration; never code."""
    files = [
        _File(each.rfilename, each.size or 0, str(each.lfs.sha256 if each.lfs else each.blob_id))
        for each in siblings
        if any(fnmatch.fnmatch(each.rfilename, pattern) for pattern in _WANTED)
        and not any(fnmatch.fnmatch(each.rfilename, pattern) for pattern in _UNWANTED)
    ]
    if strange := next((file for file in files if not _CHECKSUM.fullmatch(file.checksum)), None):
        raise ModelError(f"model: {name}: {strange.name}: the hub lists it without a checksum; choose another model")
    if not any(file.name == "config.json" for file in files):
        raise ModelError(f"model: {name}: has no config.json on the hub; choose a transformers model")
    if not any(file.weights for file in files):
        raise ModelError(f"model: {name}: has no *.safetensors file on the hub; choose a model that has")
    return files


def _licence(found: Any) -> str:
    card = found.card_data
    licence = getattr(card, "license_name", None) or getattr(card, "license", None)
    return str(licence) if licence else "not stated"


def _check_room(name: str, missing: Sequence[_File], blobs: Path) -> None:
    total = sum(file.size for file in missing)
    there = sum(_size(_part(blobs, file)) for file in missing)
    free = room()
    if total - there > free:
        arithmetic = f"{disk(total)} to fetch, {disk(there)} of it there, {disk(free)} free"
        raise DoesNotFit(
            f"model: {name}: does not fit on the disk of {constants.HF_HUB_CACHE}: {arithmetic}",
            f"free {disk(total - there - free)}, or set HF_HOME to a folder on another disk",
        )


def _tell(what: str, missing: Sequence[_File], later: int, licence: str, listen: Listener) -> None:
    """What is fetched now, and how many bytes of weights only when something reads them."""
    size = disk(sum(file.size for file in missing))
    files = f"{size} in {len(missing)} file" + ("s" if len(missing) != 1 else "")
    weights = f", its weights ({disk(later)}) when they are read" if later else ""
    text = f"fetching {what}: {files}{weights}, licence {licence}; {disk(room())} free on the disk"
    listen(Event("note", values={"text": text}))


def _bring(name: str, commit: str, file: _File, blobs: Path, listen: Listener) -> None:
    """One file into the cache: whatever lies there of it is kept, and only the right bytes get its name."""
    part = _part(blobs, file)
    with locked(part.with_suffix(".lock"), wait=True):
        if (blobs / file.checksum).exists():  # by a process that we waited for
            return
        if _size(part) > file.size:
            part.unlink()
        part.touch()
        while _size(part) < file.size:
            _patiently(name, lambda: _continue(name, commit, file, part, listen))
        if _checksum(part, file) != file.checksum:
            part.unlink()
            raise ModelError(
                f"model: {name}: {file.name}: what arrived has not the checksum that the hub states "
                f"({file.checksum[:12]}…); it was removed",
                "run the same command again; if that does not help, the hub or a proxy in between changes the file",
            )
        os.replace(part, blobs / file.checksum)
    part.with_suffix(".lock").unlink(missing_ok=True)


def _continue(name: str, commit: str, file: _File, part: Path, listen: Listener) -> None:
    """Append what the hub sends until it is done or cut. Raises where not a byte has come."""
    have = before = _size(part)
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    url = hf_hub_url(name, file.name, revision=commit)
    try:
        with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT) as answer, part.open("ab") as stream:
            hf_raise_for_status(answer)
            if have and answer.status_code != 206:  # all of it again, though a rest was asked for
                stream.truncate(have := 0)
            for block in answer.iter_raw():  # as it comes: what is gathered first is lost in a cut
                stream.write(block)
                stream.flush()
                steps, have = have // _TOLD_EVERY, have + len(block)
                if have // _TOLD_EVERY > steps or have == file.size > _TOLD_EVERY:
                    listen(Event("download", have >> 20, file.size >> 20, {"MiB of": file.name}))
    except HTTPError:
        if _size(part) <= before:
            raise
        return
    if _size(part) <= before:
        raise ModelError(f"model: {name}: {file.name}: the hub sends less than the {file.size} bytes that it lists")


def _part(blobs: Path, file: _File) -> Path:
    return blobs / f"{file.checksum}.part"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _checksum(path: Path, file: _File) -> str:
    """SHA-256, or for small files what git calls the blob: SHA-1 of a header and the bytes."""
    if file.large:
        return file_digest(path)
    return hashlib.sha1(f"blob {file.size}\0".encode() + path.read_bytes(), usedforsecurity=False).hexdigest()


def _patiently(name: str, work: Callable[[], T]) -> T:
    """`work()`, again with growing waits while the hub throttles, fails or is silent."""
    for wait in _WAITS:
        try:
            return work()
        except (HTTPError, LocalEntryNotFoundError, ValueError) as error:  # the last is no JSON, or no name
            cause = _cause(error)
            if not _passing(cause):
                raise _refusal(name, cause) from None
            time.sleep(max(wait, _asked_for(cause)))
    try:
        return work()
    except (HTTPError, LocalEntryNotFoundError) as error:
        raise _refusal(name, _cause(error)) from None


def _cause(error: BaseException) -> BaseException:
    """What lies behind the library's "not found in the cache either"."""
    return error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error


def _passing(error: BaseException) -> bool:
    """Whether another attempt may help: too many requests, a server's fault, no answer."""
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return status in (408, 429) or status >= 500
    return isinstance(error, HTTPError)


def _asked_for(error: BaseException) -> float:
    """Seconds that the hub asks to wait (`Retry-After`)."""
    asked = error.response.headers.get("Retry-After", "") if isinstance(error, HfHubHTTPError) else ""
    return min(_LONGEST_WAIT, float(asked)) if asked.isdecimal() else 0.0


def _refusal(name: str, error: BaseException) -> ModelError:
    """The hub's no in a sentence, with the way in."""
    problem, hint = _explained(name, error)
    return ModelError(f"{_kind(name)}: {name}: {problem}", hint)


def _kind(name: str) -> str:
    return "data set" if name.startswith("datasets/") else "model"


def _explained(name: str, error: BaseException) -> tuple[str, str]:
    page = f"{constants.ENDPOINT}/{name}"
    if isinstance(error, GatedRepoError):
        there = "the token in use was not granted access" if has_token() else "no token is set"
        token = f"set HF_TOKEN to a token from {constants.ENDPOINT}/settings/tokens"
        return f"is gated, and {there}", f"accept its licence on {page}, then {token}"
    if isinstance(error, RepositoryNotFoundError):
        return f"the hub has no such {_kind(name)}, or it is private", "check the name; for a private one set HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return "has no such revision", f"{page}/commits/main lists them"
    if isinstance(error, HFValidationError):
        return "is no name that the hub allows", "write owner/name or owner/name@revision"
    if isinstance(error, ValueError):
        hint = f"a proxy or a log-in page may stand in between: open {page}, or mend HF_ENDPOINT"
        return f"what answers at {constants.ENDPOINT} is not the hub", hint
    if isinstance(error, HfHubHTTPError):
        return _status(error.response.status_code, page)
    return f"the connection to the hub fails: {error or type(error).__name__}", _AGAIN


def _status(status: int, page: str) -> tuple[str, str]:
    """What an answer's number means to the user."""
    if status in (401, 403):
        remedy = "renew HF_TOKEN, or unset it" if has_token() else f"set HF_TOKEN, or read {page} for who may have it"
        return f"the hub refuses {'the token' if has_token() else 'whoever has no token'} ({status})", remedy
    if status == 429:
        return "the hub asks for patience (429: too many requests)", _AGAIN
    return f"the hub answers with an error ({status})", _AGAIN if status >= 500 else f"look at {page}"
