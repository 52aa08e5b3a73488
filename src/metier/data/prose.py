"""Plain text → passages, cut between paragraphs, so that a long text is many items, some of which can be held out."""

from __future__ import annotations

import re
from collections.abc import Iterator

LENGTH = 2000  # characters, about 500 tokens
_SEAMS = (r"\n[ \t]*\n\s*", r"\n\s*", r"(?<=[.!?…。！？])\s+", r"\s+")  # the later ones where a piece is still too long


def cut(text: str, length: int = LENGTH) -> list[tuple[int, str]]:
    """The passages of a text, each with its offset; what is lost between them is white space.

    A passage ends with the paragraph that brings it to `length` characters, and has twice as many at most.
    """
    spans: list[tuple[int, int]] = []
    for start, stop in _pieces(text, (0, len(text)), _SEAMS, length):
        begin, end = spans[-1] if spans else (0, length)
        if end - begin >= length or stop - begin > 2 * length:
            spans.append((start, stop))
        else:
            spans[-1] = (begin, stop)
    return [(begin, text[begin:end]) for begin, end in spans]


def _pieces(text: str, span: tuple[int, int], seams: tuple[str, ...], length: int) -> Iterator[tuple[int, int]]:
    """Spans between the first kind of seam; those that are too long are cut at the next kind, or anywhere."""
    begin, end = span
    if not seams:
        yield from ((start, min(start + length, end)) for start in range(begin, end, length))
        return
    edges = [begin, *(edge for match in re.compile(seams[0]).finditer(text, begin, end) for edge in match.span()), end]
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if stop - start > 2 * length:
            yield from _pieces(text, (start, stop), seams[1:], length)
        elif piece := text[start:stop].strip():
            start += text[start:stop].index(piece)
            yield start, start + len(piece)
