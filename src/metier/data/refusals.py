"""What people are told where a file's columns do not say what they are for."""

from __future__ import annotations

from collections.abc import Sequence

from metier.data.columns import Column, named
from metier.data.mappings import short
from metier.data.sources import Row, columns_of, text_of
from metier.domain import Domain
from metier.errors import DataError, Fault

_LISTED = 12  # columns that a fault lists


def unclear(rows: Sequence[Row], free: Sequence[Column], answers: Sequence[str], more: str = "") -> DataError:
    """The columns as they are, and an example of what to write; `answers` are names that answers often have."""
    place = rows[0].place.rpartition(":")[0]
    if "input_ids" in columns_of(rows):
        fix = "give the text or the messages that they were made from: every base has its own tokens"
        return DataError(place, [Fault(place, "holds tokens (input_ids), not text", fix)])
    columns = columns_of(rows)
    shown = ", ".join(f"{name} ({short(text_of(rows[0].values.get(name)), 40)!r})" for name in columns[:_LISTED])
    shown += f", … {len(columns)} in all" if len(columns) > _LISTED else ""
    ranked = sorted(free, key=lambda column: not column.is_readable)
    likely = named(ranked, answers, lambda _: True) if len(ranked) > 1 else None
    names = [column.name for column in ranked if column != likely]
    one = names[0] if names and ranked[0].is_readable else "question"
    other = likely.name if likely else (*names, "reply", "reply")[1]
    fix = f'call them so, or write into its [[domain]] for example prompt = "{{{one}}}" and answer = "{{{other}}}"'
    if len(rows) == 1 and (lists := [name for name, value in rows[0].values.items() if isinstance(value, list)]):
        fix = f'if its rows are in the list {lists[0]!r}, write into its [[domain]] explode = "{lists[0]}"'
    return DataError(
        place, [Fault(place, f"its columns do not tell which is prompt and which answer: {shown}{more}", fix)]
    )


def unclear_chat(domain: Domain, rows: Sequence[Row]) -> DataError:
    keys = ", ".join(key for key in ("conversation", "role", "content") if getattr(domain, key) is None)
    fix = f'name them: for example {keys.split(", ")[0]} = "{columns_of(rows)[0]}"'
    problem = f"no column is clearly the {keys}: {', '.join(columns_of(rows))}"
    return DataError(f"domain {domain.name}", [Fault(f"domain {domain.name}", problem, fix)])


def headless(rows: Sequence[Row]) -> DataError:
    place = rows[0].place.rpartition(":")[0]
    problem = f"its first line seems to be a row, not the names of columns: {', '.join(columns_of(rows))}"
    return DataError(place, [Fault(place, problem, "put names in front, such as text,label or prompt,answer")])


def unbinned(rows: Sequence[Row], text: str, score: str) -> DataError:
    place = rows[0].place.rpartition(":")[0]
    fix = (
        f'to make labels of it, write into the recipe\'s [[domain]] prompt = "{{{text}}}", answer = "{{{score}}}" and '
        f'bins = {{ low = 0, high = inf }} (numbers below each bound); to read the text alone, text = "{text}"'
    )
    return DataError(place, [Fault(place, f"{score} holds numbers beside the text", fix)])
