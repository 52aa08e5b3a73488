"""Tokens → text, piece by piece as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_BROKEN = "\ufffd"  # what a character looks like of which tokens are still missing
_LATEST = 16  # tokens that are decoded anew with every one, and as many again before some are settled


Decode = Callable[[Sequence[int]], str]
"""All tokens so far → their text."""


class Speech:
    """One answer's text; it ends before the first of `stop`, of which nothing is ever said.

    A character of several tokens is held back until it is whole, and so is what may become a stop string.
    """

    def __init__(self, decode: Decode, stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stop = [each for each in stop if each]
        self._tokens: list[int] = []
        self._latest: list[int] = []
        self._settled = ""  # the text of those before the latest
        self.text = ""
        self._said = 0
        self.stopped = False

    def push(self, token: int) -> str:
        """What may be said once this token is there."""
        self._tokens.append(token)
        self._latest.append(token)
        if len(self._latest) % max(1, len(self._latest) // (2 * _LATEST)):  # one that never is whole: not every time
            return ""
        text = self._decode(self._latest)
        whole = self._settled + text
        if whole.endswith(_BROKEN):
            return ""
        if len(self._latest) >= 2 * _LATEST:
            self._settle(text)
        return self._release(whole, held=True)

    def end(self) -> str:
        """What was held back, for nothing comes any more."""
        return "" if self.stopped else self._release(self._decode(self._tokens), held=False)

    def _settle(self, text: str) -> None:
        """Decode the older half of the latest no more, where the others read the same without it."""
        rest = self._decode(self._latest[-_LATEST:])
        if rest and text.endswith(rest):
            self._settled += text.removesuffix(rest)
            del self._latest[:-_LATEST]

    def _release(self, whole: str, *, held: bool) -> str:
        found = [place for each in self._stop if (place := whole.find(each)) >= 0]
        if found:
            whole, self.stopped, held = whole[: min(found)], True, False
        end = len(whole) - (max((_begun(whole, each) for each in self._stop), default=0) if held else 0)
        piece = whole[self._said : end]
        self._said = max(self._said, end)
        self.text = whole[: self._said]
        return piece


def _begun(text: str, stop: str) -> int:
    """How much of a text's end is the beginning of a stop string."""
    place = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while place >= 0 and not stop.startswith(text[place:]):
        place = text.find(stop[0], place + 1)
    return len(text) - place if place >= 0 else 0
