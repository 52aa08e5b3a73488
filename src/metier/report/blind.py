"""Pairs of answers → a page on which people judge them: it needs nothing else, and tells nobody anything."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from hashlib import sha256
from pathlib import Path

from metier.evaluation.blinded import Ticket, page_of
from metier.report.page import environment


def render(shown: Sequence[Ticket]) -> str:
    """The page; the same pairs give the same text. Its policy lets run only its own script, by hash."""
    script, style = (_beside(name) for name in ("blind.js", "blind.css"))
    values = json.dumps({"page": page_of(shown), "items": [asdict(each) for each in shown]}, ensure_ascii=False)
    return (
        environment()
        .get_template("blind.html.jinja")
        .render(
            script=script,
            style=style,
            policy=f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'",
            values=values.replace("<", "\\u003c"),  # no answer ends the element that it stands in
            count=len(shown),
        )
    )


def _hash(text: str) -> str:
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()


@cache
def _beside(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
