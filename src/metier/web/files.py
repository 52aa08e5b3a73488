"""`/v1/files`: data that clients send, kept as it came."""

from __future__ import annotations

import re
import secrets
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from metier.files import MANIFEST, plain_name, read_json, write_directory, write_json
from metier.web.failures import Refusal

_FACTS = "file.json"


@dataclass(frozen=True)
class Kept:
    """A file that was sent; OpenAI's own words."""

    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    owner: str
    object: str = "file"
    status: str = "processed"

    def told(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "owner"}


@dataclass(frozen=True)
class Files:
    """Those of everybody, in one folder; each key sees its own alone."""

    folder: Path

    def keep(self, name: str, purpose: str, content: bytes, owner: str) -> Kept:
        """Raises `Refusal` for an empty file."""
        if not content:
            raise Refusal(400, "file: is empty", "send a file with rows", param="file")
        kept = Kept(new_id("file"), len(content), int(time.time()), _plain(name), purpose, owner)

        def fill(to: Path) -> None:
            (to / kept.filename).write_bytes(content)
            write_json(to / _FACTS, asdict(kept))

        self.folder.mkdir(parents=True, exist_ok=True)
        write_directory(self.folder / kept.id, fill)
        return kept

    def all(self, owner: str) -> list[Kept]:
        """Newest first."""
        found = [Kept(**read_json(path)) for path in self.folder.glob(f"file-*/{_FACTS}")]
        return sorted((each for each in found if each.owner == owner), key=lambda each: each.id, reverse=True)

    def get(self, id: str, owner: str, param: str = "file_id") -> Kept:
        """Raises `Refusal` where there is none of this key's, of which `param` speaks."""
        path = self.folder / id / _FACTS
        kept = Kept(**read_json(path)) if is_id("file", id) and path.exists() else None
        if kept is None or kept.owner != owner:
            raise Refusal(404, f"there is no file {id!r}", "GET /v1/files lists yours", param=param)
        return kept

    def path(self, kept: Kept) -> Path:
        return self.folder / kept.id / kept.filename

    def remove(self, kept: Kept) -> None:
        shutil.rmtree(self.folder / kept.id)


def is_id(kind: str, text: str) -> bool:
    """Whether it is what something of this kind may be called, be it there or not."""
    return bool(re.fullmatch(rf"{kind}-[0-9a-f]{{32}}", text))


def new_id(kind: str) -> str:
    """Nobody guesses it, and those of one kind sort by when they were made."""
    return f"{kind}-{time.time_ns():016x}{secrets.token_hex(8)}"


def _plain(name: str) -> str:
    """A name without anything that leads elsewhere, or lies beside it, with an end by which its kind is known."""
    plain = plain_name(Path(name.replace("\\", "/")).name) or "data"
    if plain.casefold() in (_FACTS, MANIFEST):
        plain = f"data-{plain}"
    return plain if Path(plain).suffix else f"{plain}.jsonl"
