"""A model's name → its directory, revision and the shapes of its tensors, read from the headers."""

from __future__ import annotations

import json
import math
import os
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from metier import bases
from metier.errors import ModelError, nearest
from metier.events import Listener, silent
from metier.figures import disk
from metier.files import digest, file_digest, read_json

EMBEDDED = {"nano": Path(__file__).parent / "assets" / "nano"}
_WEIGHTS = "*.safetensors"
_CONFIG = "config.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_INDEX = "model.safetensors.index.json"
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
    """Where a base lies: its name without a revision, its directory, and the hub's revision if it has one."""

    name: str
    directory: Path
    revision: str | None

    @property
    def whole(self) -> bool:
        """Whether the weights are here too."""
        return not _lacking(self.directory)

    def tensors(self) -> list[Tensor]:
        """Every tensor's name, type and shape, without reading a weight."""
        return [tensor for path in self._weights() for tensor in header(path)]

    @cached_property
    def weights_digest(self) -> str:
        """One hash of the weights' bytes and the configuration: what an adapter is bound to."""
        files = [*self._weights(), self.directory / _CONFIG]
        return digest({path.name: file_digest(path) for path in files})

    def _weights(self) -> list[Path]:
        """The files that transformers reads; Mistral's folders hold the same weights a second time."""
        index = self.directory / _INDEX
        if index.is_file():
            return sorted({self.directory / name for name in read_json(index)["weight_map"].values()})
        single = self.directory / "model.safetensors"
        return [single] if single.is_file() else sorted(self.directory.glob(_WEIGHTS))


def find(name: str, anchor: Path, *, offline: bool = False, listen: Listener = silent, weights: bool = True) -> Source:
    """Locate a base: embedded, a directory (relative to `anchor`), or a hub name that is cached or fetched.

    A hub name may end in `@revision`. Without one the snapshot that lies on this machine counts, and the
    hub is asked only where there is none; a fetch is announced to `listen`. Without `weights` a hub's base may
    come without them, until `complete` fetches them.
    """
    if name in EMBEDDED:
        return Source(name, EMBEDDED[name], None)
    assert_named(name, anchor)
    if directory := _folder(name, anchor):
        return Source(name, _complete(name, directory), None)
    return _from_hub(name, offline, listen, weights)


def assert_named(name: str, anchor: Path) -> None:
    """Raise `ModelError` for what is neither embedded, nor a directory, nor a name that the hub may have."""
    if name in EMBEDDED or _folder(name, anchor):
        return
    if name.startswith("runs/"):
        raise ModelError(f"model: {name}: there is no such run", "`metier runs` lists those that there are")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        problem = f"model: {name}: does not exist{nearest(name, EMBEDDED)}"
        raise ModelError(problem, "give a directory, a hub name such as owner/name, or nano")


def _folder(name: str, anchor: Path) -> Path | None:
    return next((each for each in (anchor / name, Path(os.path.expanduser(name))) if each.is_dir()), None)


def complete(source: Source, *, offline: bool = False, listen: Listener = silent) -> Source:
    """The same base with its weights, fetched at the same revision where they are not on this machine."""
    return source if source.whole else _from_hub(f"{source.name}@{source.revision}", offline, listen, weights=True)


def to_fetch(source: Source, size: int) -> str:
    """What people are told of weights that are not on this machine, of about `size` bytes."""
    from metier import download

    listed = bases.find(source.name)
    licence = f", licence {listed.licence}" if listed else ""
    return f"about {disk(size)}, fetched when a run begins{licence}; {disk(download.room())} free on the disk"


def _from_hub(name: str, offline: bool, listen: Listener, weights: bool) -> Source:
    from metier import download

    repository, _, revision = name.partition("@")
    directory = download.cached(repository, revision or None, weights=False)
    lacking = (_lacking(directory, weights=False) or (_lacking(directory) and "weights")) if directory else "files"
    if lacking and not (barrier := "--offline was given" if offline else download.barrier()):
        listed = bases.find(repository)
        licence = listed.licence if listed else ""
        begun = directory.name if directory else None  # the snapshot of which a part is here
        directory = download.fetch(repository, revision or begun, licence, listen, weights=weights)
    elif lacking and (weights or lacking != "weights"):
        state = f"lies here without its {lacking}" if directory else "is not on this machine"
        raise ModelError(f"model: {name}: {state}, and {barrier}; give a local path, or nano")
    assert directory
    return Source(repository, _complete(name, directory) if weights else directory, directory.name)


def _complete(name: str, directory: Path) -> Path:
    """Refuse a directory that lacks what a base needs, before anything heavy is loaded."""
    if lacking := _lacking(directory):
        remedies = {
            _CONFIG: "give a directory that holds a transformers model",
            f"{_WEIGHTS} file": "save the model as safetensors first",
        }
        raise ModelError(
            f"model: {name}: has no {lacking}; {remedies.get(lacking, 'its index names it: copy it there')}"
        )
    return directory


def _lacking(directory: Path, *, weights: bool = True) -> str:
    """The first thing that a base needs and the directory has not, or nothing."""
    if not (directory / _CONFIG).is_file():
        return _CONFIG
    if not weights:
        return "" if any((directory / name).is_file() for name in _TOKENIZERS) else "tokenizer"
    index = directory / _INDEX
    if index.is_file():
        parts = sorted(set(read_json(index)["weight_map"].values()))
        return next((part for part in parts if not (directory / part).is_file()), "")
    return "" if list(directory.glob(_WEIGHTS)) else f"{_WEIGHTS} file"


def header(path: Path) -> list[Tensor]:
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
