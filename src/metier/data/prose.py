"""Plain text → passages, cut between paragraphs, so that a long text is many items, some of which can be held out."""

from __future__ import annotations

import re
from collections.abc import Iterator

_LENGTH = 2000  # characters, about 500 tokens; a passage ends with the paragraph that reaches it
_LONGEST = 2 * _LENGTH
_SEAMS = (r"\n[ \t]*\n\s*", r"\n\s*", r"(?<=[.!?…。！？])\s+", r"\s+")  # the later ones where a piece is still too long


def cut(text: str) -> list[tuple[int, str]]:
    """The passages of a text, each with its offset; what is lost between them is white space."""
    spans: list[tuple[int, int]] = []
    for start, stop in _pieces(text, 0, len(text), _SEAMS):
        begin, end = spans[-1] if spans else (0, _LENGTH)
        if end - begin >= _LENGTH or stop - begin > _LONGEST:
            spans.append((start, stop))
        else:
            spans[-1] = (begin, stop)
    return [(begin, text[begin:end]) for begin, end in spans]


def _pieces(text: str, begin: int, end: int, seams: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Spans between the first kind of seam; those that are too long are cut at the next kind, or anywhere."""
    if not seams:
        yield from ((start, min(start + _LENGTH, end)) for start in range(begin, end, _LENGTH))
        return
    edges = [begin, *(edge for match in re.compile(seams[0]).finditer(text, begin, end) for edge in match.span()), end]
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if stop - start > _LONGEST:
            yield from _pieces(text, start, stop, seams[1:])
        elif piece := text[start:stop].strip():
            start += text[start:stop].index(piece)
            yield start, start + len(piece)
