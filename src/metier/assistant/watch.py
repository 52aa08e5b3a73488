"""What passes from a model to the reader: doses withheld sentence by sentence, a notice at the end."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

# A sentence ends at a mark with white space behind it, or with its line; not in a number, an abbreviation or a list's
# own number.
_END = re.compile(r"[.!?…][\"'”’)\]*_]*\s+|\n+")
_ABBREVIATED = re.compile(
    r"(?:\b(?:e\.g|i\.e|approx|max|min|dr|mr|mrs|ms|st|vs|tab|tabs|cap|caps|etc)|(?:^|\n)\s*\d+)\.$", re.I
)
_WORDS = 40  # characters in front of an end, by which an abbreviation is known


@dataclass
class Watch:
    """Stands between a stream of pieces and its reader; holds back at most the sentence that is not yet at its end.

    A sentence that `doses` is left out, the first one replaced by `instead`. With neither it passes everything on.
    """

    doses: Callable[[str], bool] | None = None
    instead: str = ""
    notice: str = ""
    withheld: int = 0
    _held: str = field(default="", repr=False)
    _looked: int = field(default=0, repr=False)  # up to here no sentence ends in it
    _said: bool = field(default=False, repr=False)

    def push(self, piece: str) -> str:
        """What may be shown now that this piece has come too."""
        if self.doses is None:
            self._said = self._said or bool(piece.strip())
            return piece
        self._held += piece
        passed, begin = "", 0
        for match in _END.finditer(self._held, self._looked):
            if match.end() == len(self._held) and "\n" not in match[0]:
                break  # more white space may follow
            self._looked = match.end()
            if not _ABBREVIATED.search(self._before(match, begin)):
                passed += self._passed(self._held[begin : match.end()])
                begin = match.end()
        self._held, self._looked = self._held[begin:], self._looked - begin
        return passed

    def _before(self, match: re.Match[str], begin: int) -> str:
        """The last words of a sentence, up to where it may end."""
        last = max(begin, match.start() - _WORDS)
        cut = "" if last == begin else "…"  # a line does not begin there
        return cut + self._held[last : match.end()].rstrip()

    def end(self) -> str:
        """What is left, and the notice below it, a blank line between."""
        rest, self._held = self._passed(self._held) if self._held else "", ""
        if not self.notice:
            return rest
        return f"{rest}\n\n{self.notice}" if self._said else f"{rest}{self.notice}"

    def whole(self, text: str) -> str:
        """An answer that came in one piece."""
        return self.push(text) + self.end()

    def _passed(self, sentence: str) -> str:
        assert self.doses is not None
        shown = sentence
        if self.doses(sentence):
            self.withheld += 1
            behind = sentence[len(sentence.rstrip()) :]
            first = self.withheld == 1
            shown = (self.instead if first else "") + (behind if first or "\n" in behind else "")
        self._said = self._said or bool(shown.strip())
        return shown
