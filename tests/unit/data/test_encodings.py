from __future__ import annotations

import codecs

import pytest

from metier.data.encodings import decode, guess_encoding
from metier.errors import DataError


@pytest.mark.parametrize(
    "encoding",
    ["utf-ate", "", "a\0b", "hex", "rot13", "punycode", "idna", "undefined", "unicode_escape", "raw-unicode-escape"],
)
def test_what_is_no_encoding_of_text_is_told(encoding: str) -> None:
    with pytest.raises(DataError, match="is no encoding"):
        decode("größer-als,b\n".encode(), encoding, "x.csv")
    with pytest.raises(DataError, match="is no encoding"):
        decode(b"text,label\nplain-ascii,b\n", encoding, "x.csv")


def test_a_byte_that_does_not_fit_is_told_with_its_line() -> None:
    with pytest.raises(DataError, match=r"x.csv:2: byte 0xfc is not utf-8; set encoding"):
        decode("a\nü".encode("latin-1"), "utf-8", "x.csv")


def test_an_encoding_is_guessed_from_the_bytes() -> None:
    assert guess_encoding("café".encode()) == "utf-8"
    assert guess_encoding("café".encode("latin-1")) == "latin-1"
    assert guess_encoding("it’s".encode("cp1252")) == "cp1252"
    assert guess_encoding(codecs.BOM_UTF16_LE + b"a\0") == "utf-16"
