"""Who may ask: keys that are kept as hashes only, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from metier.errors import MetierError
from metier.files import read_json, write_json

Role = Literal["user", "admin"]
_LOCAL = "local"


@dataclass(frozen=True)
class Caller:
    """Who asks, by the name of the key, and what it may do."""

    name: str
    role: Role


@dataclass(frozen=True)
class Keys:
    """By name the SHA-256 of a key, and its role. Where there is none, whoever is on this machine may do everything."""

    known: Mapping[str, tuple[str, Role]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> Keys:
        """Raises `MetierError` where the file is no list of keys."""
        try:
            entries: dict[str, dict[str, Any]] = read_json(path) if path.exists() else {}
            return cls({name: (str(each["sha256"]), each["role"]) for name, each in entries.items()})
        except (ValueError, KeyError, TypeError, AttributeError):
            raise MetierError(f"{path}: is no list of keys", "metier serve --new-key NAME writes one") from None

    def caller(self, key: str | None) -> Caller | None:
        """Whose key it is; None where it is nobody's. Every known one is compared."""
        if not self.known:
            return Caller(_LOCAL, "admin")
        given = _hash(key or "")
        found = None
        for name, (known, role) in self.known.items():
            if hmac.compare_digest(given, known) and key:
                found = Caller(name, role)
        return found


def new_key(path: Path, name: str, role: Role) -> str:
    """Make a key, of which only the hash is kept. Raises `MetierError` where the name has one."""
    entries = dict(read_json(path)) if path.exists() else {}
    if name in entries:
        raise MetierError(f"{name}: has a key already", f"remove it from {path}, or take another name")
    key = f"mk-{secrets.token_urlsafe(32)}"
    entries[name] = {"sha256": _hash(key), "role": role}
    write_json(path, entries)
    return key


def _hash(key: str) -> str:
    # Keys are 256 random bits: nothing is gained by a slow hash, which is for what people choose.
    return hashlib.sha256(key.encode()).hexdigest()


def bearer(headers: Iterator[tuple[bytes, bytes]]) -> str | None:
    """The key of `Authorization: Bearer …`."""
    for name, value in headers:
        if name.lower() == b"authorization" and value[:7].lower() == b"bearer ":
            return value[7:].decode("latin-1").strip()
    return None
