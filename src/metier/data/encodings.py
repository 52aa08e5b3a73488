"""Bytes → text, and which encoding somebody may have used."""

from __future__ import annotations

import codecs
import re

from metier.errors import DataError, Fault

# Codecs that Python has for names of hosts and for its own source, which nobody saves a file in.
_NO_TEXT = {"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape"}


def guess_encoding(data: bytes) -> str:
    """utf-8 where the bytes are, else what Windows or an older system would have written."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        # Where Latin-1 has control characters that nobody types, Windows has its quotes and dashes.
        return "cp1252" if re.search(rb"[\x80-\x9f]", data) else "latin-1"
    return "utf-8"


def decode(data: bytes, encoding: str, shown: str) -> str:
    """The text of the file that people know as `shown`. Raises `DataError`."""
    try:
        if codecs.lookup(encoding).name in _NO_TEXT:
            raise LookupError(encoding)
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = f"byte 0x{data[error.start]:02x} is not {encoding}"
        guess = guess_encoding(data)
        fix = f'set encoding = "{guess}"' if guess != encoding else "save the file as UTF-8"
        fault = Fault(f"{shown}:{line}", problem, fix)
    except (LookupError, ValueError):  # a name that no codec can have is a ValueError
        problem = f"cannot be read: {encoding!r} is no encoding"
        fault = Fault(shown, problem, 'set encoding = "utf-8" or "latin-1"')
    raise DataError(shown, [fault])
