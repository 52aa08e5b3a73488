"""Thumbs and corrected answers, and the training rows that they become."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from metier.assistant.store import Masking, Store, Turn, read_turns, utc_now
from metier.errors import DataError, Fault, MetierError
from metier.files import plain_name, write_atomic
from metier.personal import masked

Row = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """Who answered: the run's name ("" for the untuned base) and the hash of its adapter."""

    run: str
    adapter: str = ""


@dataclass(frozen=True)
class Thumb:
    """One person's opinion of one answer; `given` in UTC, ISO 8601; `correction` is "" where there is none."""

    id: int
    given: str
    liked: bool
    domain: str
    model: Model
    question: tuple[Turn, ...]
    answer: str
    correction: str


class Feedback:
    """Opinions in an SQLite file; texts are masked before they are kept. May be shared between threads."""

    def __init__(self, path: Path, masking: Masking = masked) -> None:
        self._store = Store.open(path, masking)

    def add(
        self, question: Sequence[Turn], answer: str, domain: str, model: Model, *, liked: bool, correction: str = ""
    ) -> int:
        """Keep an opinion; `question` is the conversation up to the answer. Returns its number.

        Raises `MetierError` where the last turn is no user's, or there is no answer.
        """
        if not question or question[-1].role != "user" or not answer.strip():
            raise MetierError(
                "feedback: is of no answer to a question", "send the turns up to the user's, and the answer"
            )
        mask = self._store.masking
        row = (utc_now(), liked, domain, model.run, model.adapter)
        texts = (self._store.written(question), mask(answer.strip()), mask(correction.strip()))
        columns = "given, liked, domain, run, adapter, question, answer, correction"
        with self._store.connected() as connection:
            sql = f"INSERT INTO feedback ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            return int(connection.execute(sql, (*row, *texts)).lastrowid or 0)

    def listed(self, runs: Collection[str] | None = None) -> list[Thumb]:
        """The oldest first; all, or of some runs."""
        with self._store.connected() as connection:
            thumbs = [_thumb(row) for row in connection.execute("SELECT * FROM feedback ORDER BY id")]
        return [each for each in thumbs if runs is None or each.model.run in runs]

    def export(self, to: Path, runs: Collection[str] | None = None) -> dict[Path, int]:
        """Write what can be learned from into the folder `to`; returns the files with their numbers of rows.

        For each domain DOMAIN.answers.jsonl holds conversations that end with a corrected answer, and
        DOMAIN.pairs.jsonl answers that were preferred to others: a correction to what it corrects, a liked answer to a
        disliked one of the same question. Raises `DataError` where a file is there already.
        """
        thumbs = sorted(self.listed(runs), key=_file_name)
        kinds: dict[str, Callable[[Sequence[Thumb]], Iterator[Row]]] = {"answers": _answers, "pairs": _pairs}
        made: dict[Path, list[Row]] = {}
        for name, members in groupby(thumbs, key=_file_name):
            own = [*members]
            made |= {to / f"{name}.{kind}.jsonl": [*_once(rows(own))] for kind, rows in kinds.items()}
        made = {path: rows for path, rows in made.items() if rows}
        if faults := [Fault(str(path), "is there already", "move it away") for path in made if path.exists()]:
            raise DataError(str(to), faults, "or name another folder with --out")
        to.mkdir(parents=True, exist_ok=True)
        for path, rows in made.items():
            write_atomic(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
        return {path: len(rows) for path, rows in made.items()}


def _file_name(thumb: Thumb) -> str:
    """By its domain, whatever the database says that this is."""
    return plain_name(thumb.domain) or "base"


def _answers(thumbs: Sequence[Thumb]) -> Iterator[Row]:
    for each in thumbs:
        if each.correction:
            # What the model said before is read, not learned: OpenAI's mark for that.
            before = [
                {**said, "weight": 0} if said["role"] == "assistant" else said for said in _messages(each.question)
            ]
            messages = [*before, _said(each.correction)]
            yield {"messages": messages, "provenance": _provenance("correction", each)}


def _pairs(thumbs: Sequence[Thumb]) -> Iterator[Row]:
    for each in thumbs:
        if each.correction and each.correction != each.answer:
            yield _pair(each.question, each.correction, each.answer, _provenance("correction", each))
    liked = [each for each in thumbs if each.liked and not each.correction]
    disliked = [each for each in thumbs if not each.liked]
    for up in liked:
        for down in disliked:
            if up.question == down.question and up.answer != down.answer:
                yield _pair(up.question, up.answer, down.answer, _provenance("thumbs", up, down))


def _pair(question: Sequence[Turn], chosen: str, rejected: str, provenance: Row) -> Row:
    """Conversational, as TRL has it: a prompt of messages, and two replies to it."""
    replies = {"chosen": [_said(chosen)], "rejected": [_said(rejected)]}
    return {"prompt": _messages(question), **replies, "provenance": provenance}


def _messages(turns: Sequence[Turn]) -> list[Row]:
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def _said(answer: str) -> dict[str, str]:
    return {"role": "assistant", "content": answer}


def _provenance(kind: str, *thumbs: Thumb) -> Row:
    """Why there is this row: which opinions on whose answers, and when they were given."""
    facts = [{"run": e.model.run, "adapter": e.model.adapter, "time": e.given, "liked": e.liked} for e in thumbs]
    return {"kind": kind, "feedback": facts}


def _once(rows: Iterable[Row]) -> Iterator[Row]:
    """Without rows that say what one before says."""
    seen: set[str] = set()
    for row in rows:
        said = json.dumps({key: value for key, value in row.items() if key != "provenance"}, sort_keys=True)
        if said not in seen:
            seen.add(said)
            yield row


def _thumb(row: sqlite3.Row) -> Thumb:
    model = Model(row["run"], row["adapter"])
    facts = (row["id"], row["given"], bool(row["liked"]), row["domain"])
    return Thumb(*facts, model, read_turns(row["question"]), row["answer"], row["correction"])
