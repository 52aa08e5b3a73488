"""Personal data in a text: where it stands, and the text without it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from stdnum import iban, luhn
from stdnum.br import cpf
from stdnum.ca import sin
from stdnum.de import idnr
from stdnum.es import dni, nie
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.in_ import aadhaar
from stdnum.it import codicefiscale
from stdnum.nl import bsn
from stdnum.pl import pesel
from stdnum.us import ssn

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?!example\.)(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,}")
_CARD = re.compile(r"(?<![\w.,-])(?:[3-6]\d|2[2-7])\d{2}(?:[ -]?\d){9,15}(?![\w-]|[.,]\d)")
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?!\w)", re.IGNORECASE)
# Separated as people separate them: a year, an amount or an order number is no phone number. Digits are never given
# back (+), or a long row of them would be tried in every way in which it falls into groups.
_PHONE = re.compile(
    r"""(?<![\w.,/-])(?!\d{1,2}[./-]\d{1,2}[./-]\d{2,4}\b)(?:
        (?:\+[1-9]\d{0,2}[ .-]?|00[ ]?[1-9]\d{0,2}[ .-])     # +44 20 7946 0958, 0049 30 901820
          (?:\(0\)[ .-]?)?\(?\d{1,5}+(?:\)?[ .-]?\(?\d{1,5}+){0,6}
      | (?:\(0\d{1,4}\)|0\d{1,4})(?:[ -]\d{2,8}){1,4}        # 020 7946 0958
      | (?:1[ .-])?(?:\(\d{3}\)[ ]?|\d{3}[.-])\d{3}[.-]\d{4}  # (212) 555-0142
    )(?![\w-]|[.,]\d)""",
    re.VERBOSE,
)
# National numbers whose shape, with its checksum, is hardly ever anything else.
_SHAPED: tuple[tuple[re.Pattern[str], Callable[[str], bool]], ...] = (
    (re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])"), ssn.is_valid),
    (re.compile(r"(?<!\w)[A-CEGHJ-PR-TW-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D](?!\w)", re.IGNORECASE), bool),  # UK NINO
    (re.compile(r"(?<!\w)[12] ?\d{2} ?\d{2} ?\d[\dAB] ?\d{3} ?\d{3} ?\d{2}(?!\w)", re.IGNORECASE), nir.is_valid),
    (re.compile(r"(?<!\w)\d{8}-?[A-Z](?!\w)", re.IGNORECASE), dni.is_valid),
    (re.compile(r"(?<!\w)[XYZ]-?\d{7}-?[A-Z](?!\w)", re.IGNORECASE), nie.is_valid),
    (re.compile(r"(?<!\w)[A-Z]{6}\w{2}[A-Z]\w{2}[A-Z]\w{3}[A-Z](?!\w)", re.IGNORECASE), codicefiscale.is_valid),
    (re.compile(r"(?<![\w.])\d{3}\.\d{3}\.\d{3}-\d{2}(?!\w)"), cpf.is_valid),
)
# Digits alone, which could be an order number: a cue stands in front, or the number in its country's groups.
_CUE = (
    r"(?:social security|national insurance|national id\w*|id(?:entity)? (?:card|number|no)|tax (?:id|number)|insurance"
    r" number|steuer\w*|idnr|bsn|burgerservice\w*|aadhaar|aadhar|uid|sin|pesel|nhs|nir|ssn|passport)"
)
_CUED = re.compile(rf"\b{_CUE}\b[^\d\n]{{0,30}}?((?:\d[ -]?){{8,14}}\d|[A-Z]{{1,2}}\d{{6,8}})(?!\w)", re.IGNORECASE)
_GROUPED = re.compile(r"(?<!\d)\d{4} \d{4} \d{4}(?! ?\d)")  # Aadhaar as it is printed
_CHECKED = (idnr.is_valid, bsn.is_valid, aadhaar.is_valid, sin.is_valid, pesel.is_valid, nhs.is_valid, ssn.is_valid)
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_DATE = (
    rf"(?:\d{{1,2}}[./ -]\d{{1,2}}[./ -]\d{{2,4}}|\d{{4}}-\d{{2}}-\d{{2}}|\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {_MONTH},?"
    rf" \d{{4}}|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}})"
)
_BIRTH = re.compile(
    rf"\b(?:born|d\.?o\.?b\.?|date of birth|birth ?da(?:te|y))\b[^\d\n]{{0,20}}?({_DATE})", re.IGNORECASE
)
_STREET = re.compile(
    r"""(?<![\w.,])(?:
        (?:flat\ \w{1,4},?\ )?\d{1,4}[a-z]?,?\ (?:[A-Z][\w'.-]+\ ){1,3}(?:Street|Road
          |Avenue|Lane|Drive|Close|Court|Crescent|Terrace|Square|Boulevard|Gardens|Grove|Mews|Hill|Row|Way|Place
          |St|Rd|Ave|Ln|Dr|Blvd)\b\.?
      | (?:flat\ \w{1,4},?\ )?\d{1,4}[a-z]?\ (?!lane\b|way\b|hour|week|day|month|year|minute|mile|km)[a-z'-]{3,}
          \ (?:street|road|avenue|crescent|boulevard)\b
      | \d{1,4}(?:\ (?:bis|ter))?,?\ (?:rue|avenue|boulevard|place|chemin)\ (?:(?:de|du|des|la|le|les|l')\ ?){0,2}
          [A-Z][\w'-]+(?:\ [A-Z][\w'-]+){0,2}
      | [A-ZÄÖÜ][\w.-]{0,60}(?:straße|strasse|str\.|gasse|weg|platz|allee)\ \d{1,4}\ ?[a-z]?\b
      | [A-Z]{1,2}\d[A-Z\d]?\ \d[A-Z]{2}\b               # a British postcode
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Found:
    """Personal data of a kind at text[start:end]."""

    start: int
    end: int
    kind: str


def find(text: str) -> list[Found]:
    """All that is found, in order; of what overlaps the kind that is surest."""
    return apart(Found(start, end, kind) for kind, places in _PLACES.items() for start, end in places(text))


def apart(found: Iterable[Found]) -> list[Found]:
    """In order, without what overlaps another that was found before it; in time that grows with their length alone."""
    taken, kept = bytearray(), list[Found]()
    for each in found:
        taken.extend(bytes(max(0, each.end - len(taken))))
        if taken.find(1, each.start, each.end) < 0:
            taken[each.start : each.end] = b"\1" * (each.end - each.start)
            kept.append(each)
    return sorted(kept, key=lambda each: each.start)


def masked(text: str) -> str:
    """The text with `[e-mail address]`, `[phone number]` and so on in place of what is found; masked again it stays."""
    return without(text, find(text))


def without(text: str, found: Iterable[Found]) -> str:
    """With each one's kind in its place; they stand in order and `apart`."""
    parts, read = list[str](), 0
    for each in found:
        parts += text[read : each.start], f"[{each.kind}]"
        read = each.end
    return "".join([*parts, text[read:]])


def has_email(text: str) -> bool:
    return "@" in text and bool(_EMAIL.search(text))


def has_card(text: str) -> bool:
    return any(_cards(text))


def has_phone(text: str) -> bool:
    return any(_phones(text))


def _emails(text: str) -> Iterator[tuple[int, int]]:
    return (match.span() for match in _EMAIL.finditer(text)) if "@" in text else iter(())


def _cards(text: str) -> Iterator[tuple[int, int]]:
    """With Luhn's checksum, which one in ten other numbers has too."""
    return (match.span() for match in _CARD.finditer(text) if _is_card(match[0]))


def _is_card(written: str) -> bool:
    digits = re.sub(r"\D", "", written)
    return 13 <= len(digits) <= 19 and bool(luhn.is_valid(digits))


def _phones(text: str) -> Iterator[tuple[int, int]]:
    for match in _PHONE.finditer(text):
        if 9 <= sum(map(str.isdigit, match[0])) <= 15 and not has_card(match[0]):
            yield match.span()


def _ibans(text: str) -> Iterator[tuple[int, int]]:
    """The longest beginning that has the checksum: a word may follow without a mark between."""
    for match in _IBAN.finditer(text):
        ends = [place.start() for place in re.finditer(r" |$", match[0])]
        if end := next((end for end in reversed(ends) if iban.is_valid(match[0][:end], check_country=False)), None):
            yield match.start(), match.start() + end


def _national(text: str) -> Iterator[tuple[int, int]]:
    for pattern, is_valid in _SHAPED:
        yield from (match.span() for match in pattern.finditer(text) if is_valid(match[0]))
    yield from (match.span(1) for match in _CUED.finditer(text) if _is_national(match[1]))
    yield from (match.span() for match in _GROUPED.finditer(text) if aadhaar.is_valid(match[0]))


def _is_national(number: str) -> bool:
    """One of the checksums holds, or it is a passport's, which has none."""
    return number[:1].isalpha() or any(is_valid(number) for is_valid in _CHECKED)


def _births(text: str) -> Iterator[tuple[int, int]]:
    return (match.span(1) for match in _BIRTH.finditer(text))


def _streets(text: str) -> Iterator[tuple[int, int]]:
    return (match.span() for match in _STREET.finditer(text))


_PLACES: dict[str, Callable[[str], Iterator[tuple[int, int]]]] = {
    "e-mail address": _emails,
    "account number": _ibans,
    "card number": _cards,
    "national number": _national,
    "date of birth": _births,
    "phone number": _phones,
    "address": _streets,
}
