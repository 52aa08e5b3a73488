"""What nobody should send to anybody: card and account numbers, PINs, passwords, one-time codes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

from metier import personal
from metier.assistant.rules import Secret
from metier.personal import Found

_BETWEEN = r"[^\d\n.!?]{0,25}?"  # of cue and digits
_SAYS = r"(?:\s+(?:is|was|are|for \w+ is)\b(?:\s*:)?|\s*[:=])\s*[\"'“]?"  # of cue and word
# Visa, Mastercard, American Express, Diners Club, JCB, Discover and UnionPay by length and first digits (ISO/IEC 7812).
_NETWORKS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}"
    r"|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|6(?:011|4[4-9]\d|5\d\d)\d{12}|62\d{14}"
)
_CARD = "a card number"
_ARTICLES = {_CARD: "card number", "an account number": "account number"}


@dataclass(frozen=True)
class Disclosures:
    """Finds them by their shape, or by a cue beside the value."""

    patterns: Sequence[tuple[Secret, re.Pattern[str]]]

    @classmethod
    def of(cls, secrets: Sequence[Secret]) -> Self:
        return cls([(secret, _pattern(secret)) for secret in secrets])

    def find(self, text: str) -> list[Found]:
        """In order; `kind` has its article."""
        return personal.apart(self._places(text))

    def payment_cards(self, text: str) -> list[Found]:
        """Those that a network gives out, by their checksum: other numbers, of devices and parcels, have that, too."""
        found = (replace(each, kind=_CARD) for each in personal.find(text) if each.kind == _ARTICLES[_CARD])
        return [each for each in found if _NETWORKS.fullmatch(re.sub(r"\D", "", text[each.start : each.end]))]

    def masked(self, text: str) -> str:
        bare = (replace(each, kind=each.kind.split(" ", 1)[1]) for each in self.find(text))
        return personal.without(text, bare)

    def _places(self, text: str) -> Iterator[Found]:
        """The surest first; some may overlap."""
        kinds = {own: name for name, own in _ARTICLES.items()}
        yield from (replace(each, kind=kinds[each.kind]) for each in personal.find(text) if each.kind in kinds)
        for secret, pattern in self.patterns:
            for match in pattern.finditer(text):
                place = match.lastindex or 0
                if _holds(secret, match[place]):
                    yield Found(*match.span(place), secret.name)


def _pattern(secret: Secret) -> re.Pattern[str]:
    cues = rf"\b(?:{'|'.join('[ -]?'.join(map(re.escape, cue.split())) for cue in secret.cues)})(?!\w)"
    if secret.value == "word":
        return re.compile(rf"{cues}{_SAYS}([^\s\"'”]{{4,}})", re.IGNORECASE)
    least, most = secret.digits
    digits = rf"(?<![\d.,:/-])(?<!\bin )(?<!\bsince )(\d(?:[ -]?\d){{{least - 1},{most - 1}}})(?![\d/:]|[.,]\d)"
    return re.compile(rf"{cues}{_BETWEEN}{digits}|{digits}\s+(?:is|was)\s+(?:\w+\s+){{0,2}}?{cues}", re.IGNORECASE)


def _holds(secret: Secret, value: str) -> bool:
    """Whether it may be such a value; of digits their pattern has decided."""
    bare = value.strip(".,;!?)").casefold()
    return secret.value == "digits" or (len(bare) >= 4 and bare not in secret.not_values)
