"""A model's name → its directory, revision and the shapes of its tensors, read from the headers."""

from __future__ import annotations

import json
import math
import socket
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from metier.errors import ModelError
from metier.files import digest, file_digest, read_json

EMBEDDED = {"nano": Path(__file__).parent / "assets" / "nano"}
_WEIGHTS = "*.safetensors"
_PATTERNS = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True)
class Tensor:
    """A tensor as its file's header describes it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.size * _BYTES.get(self.dtype, 1)


@dataclass(frozen=True)
class Source:
    """Where a base lies: `name` as the recipe gives it, its directory, and the hub's revision if it has one."""

    name: str
    directory: Path
    revision: str | None

    def tensors(self) -> list[Tensor]:
        """Every tensor's name, type and shape, without reading a weight."""
        return [tensor for path in self._weights() for tensor in _header(path)]

    @cached_property
    def weights_digest(self) -> str:
        """One hash of the weights' bytes and the configuration: what an adapter is bound to."""
        files = [*self._weights(), self.directory / "config.json"]
        return digest({path.name: file_digest(path) for path in files})

    def _weights(self) -> list[Path]:
        """The files that transformers reads; Mistral's folders hold the same weights a second time."""
        index = self.directory / "model.safetensors.index.json"
        if index.is_file():
            return sorted({self.directory / name for name in read_json(index)["weight_map"].values()})
        single = self.directory / "model.safetensors"
        return [single] if single.is_file() else sorted(self.directory.glob(_WEIGHTS))


def find(name: str, anchor: Path, *, offline: bool = False) -> Source:
    """Locate a base: embedded, a directory (relative to `anchor`), or a hub name that is fetched or cached."""
    if name in EMBEDDED:
        return Source(name, EMBEDDED[name], None)
    for directory in (anchor / name, Path(name).expanduser()):
        if directory.is_dir():
            return Source(name, _complete(name, directory), None)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"model: {name}: does not exist; give a directory, a hub name such as owner/name, or nano")
    return _fetch(name, offline=offline)


def _complete(name: str, directory: Path) -> Path:
    """Refuse a directory that lacks what a base needs, before anything heavy is loaded."""
    if not (directory / "config.json").is_file():
        raise ModelError(f"model: {name}: has no config.json; give a directory that holds a transformers model")
    if not list(directory.glob(_WEIGHTS)):
        raise ModelError(f"model: {name}: has no *.safetensors file; save the model as safetensors first")
    return directory


def _fetch(name: str, *, offline: bool) -> Source:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    local = offline or not _network()
    try:
        directory = Path(snapshot_download(name, allow_patterns=_PATTERNS, local_files_only=local))
    except LocalEntryNotFoundError:
        why = "--offline was given" if offline else "the hub cannot be reached"
        raise ModelError(f"model: {name}: is not on this machine, and {why}; give a local path, or nano") from None
    except HfHubHTTPError as error:
        raise ModelError(f"model: {name}: the hub refuses it: {str(error).splitlines()[0]}; check the name") from None
    return Source(name, _complete(name, directory), directory.name)


def _network() -> bool:
    """One attempt of two seconds decides whether there is a network; a proxy's word is taken for it."""
    from urllib.parse import urlparse
    from urllib.request import getproxies

    from huggingface_hub.constants import ENDPOINT

    address = urlparse(ENDPOINT)
    if address.scheme in getproxies():
        return True
    try:
        with socket.create_connection((address.hostname, address.port or 443), timeout=2):
            return True
    except OSError:
        return False


def _header(path: Path) -> list[Tensor]:
    """The header of a safetensors file: eight bytes of length, then JSON."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError("its header would be longer than the file")
            entries = json.loads(file.read(length))
    except (struct.error, ValueError) as error:
        raise ModelError(f"{path}: is not a safetensors file: {error}; fetch it again") from None
    entries.pop("__metadata__", None)
    return [Tensor(name, entry["dtype"], tuple(entry["shape"])) for name, entry in entries.items()]
