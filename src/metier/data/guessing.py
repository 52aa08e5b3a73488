"""What a recipe leaves out of its mapping, guessed from the names and values of the columns."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metier.data.columns import Column, named, survey
from metier.data.conversations import exchange_list, role_of
from metier.data.delimited import guess_delimiter
from metier.data.encodings import decode, guess_encoding
from metier.data.majority import most
from metier.data.messages import in_one, message_list
from metier.data.refusals import headless, unbinned, unclear, unclear_chat
from metier.data.shapes import overlooked, recognise
from metier.data.sources import (
    DELIMITED,
    PARQUET,
    Row,
    as_prose,
    columns_of,
    read_bytes,
    read_rows,
    show,
    text_of,
)
from metier.data.templates import answer_template, closed_set, prompt_template
from metier.data.times import moments
from metier.data.tools import tools_of
from metier.domain import Domain
from metier.errors import Fault

# Names of columns by what they hold, the surest first.
_VOCABULARY = {
    "answer": "response answer output completion reply agent assistant bot target solution resolution summary "
    "translation reference",
    "label": "label labels sentiment class category intent topic emotion polarity stance rating stars grade tag target "
    "team queue department",
    "prompt": "prompt question instruction query input request message utterance customer user inquiry issue "
    "problem complaint source",
    "text": "text sentence tweet review headline comment post content body message utterance description "
    "document news statement title subject",
    "conversation": "conversation dialog dialogue thread ticket chat session case call",
    "role": "role sender author speaker from participant party",
    "content": "content message text body utterance comment",
    "time": "time timestamp datetime created sent date order turn position sequence seq index",
}
_NAMES = {use: names.split() for use, names in _VOCABULARY.items()}
_ANSWERS = [*_NAMES["answer"], *_NAMES["label"]]
# Names that the field's formats have: what is so called is what it is called, be it a number or a date.
_STANDARD = {
    "prompt": ["prompt", "question", "instruction", "query", "input"],
    "answer": ["response", "answer", "output", "completion"],
}
_PARTIES = {"agent", "assistant", "bot", "customer", "user"}  # whose words or whose names?
_BESIDE = {
    "instruction": [f"{{instruction}}\n\n{{{name}}}" for name in ("input", "context")],
    "question": [f"{{{name}}}\n\n{{question}}" for name in ("context", "article", "passage")],
}

_SYSTEMS = ("system", "system_prompt", "system_message")
_TOOLS = ("tools", "functions", "input")  # the last as OpenAI's preference files have it
_ASK = "Which label fits the text?"
_CHOOSE = " Please choose an answer from {labels}."
_LISTED = 12  # labels that an instruction lists
_FEW_ROWS, _FEW_SHARE = 50, 0.3
_MANY_FILES = 10
_LINE = 400  # characters
_TEXTS = ("text", "content", "document", "body")  # a lone column of such a name is plain text


@dataclass(frozen=True)
class _Right:
    """The column of answers; `asks` where the prompt still has to say that a label is wanted."""

    column: Column
    asks: bool


def propose(path: Path, collect: list[Fault] | None = None) -> Domain:
    """The domain that `metier init` writes for a file: name, format, and a complete mapping.

    Faults of single rows go to `collect`, as `read_rows` has it.
    """
    if path.is_dir():
        draft = as_prose(Domain(name=domain_name(path.stem), data=path.as_posix()), path)
        return complete(draft, read_rows(draft, path, collect))
    data = read_bytes(path)
    encoding = "utf-8" if path.suffix.lower() == PARQUET else guess_encoding(data)
    draft = as_prose(Domain(name=domain_name(path.stem), data=path.as_posix(), encoding=encoding), path)
    if path.suffix.lower() in DELIMITED:
        text = decode(data, encoding, show(path))
        if path.suffix.lower() == ".txt" and _in_paragraphs(text):
            draft = draft.model_copy(update={"text": "text"})
        delimiter = guess_delimiter(text)
        draft = draft.model_copy(update={"delimiter": None if delimiter == "," else delimiter})
    rows = read_rows(draft, path, collect)
    domain = complete(draft, rows)
    units = {row.values.get(domain.conversation) for row in rows} if domain.conversation else rows
    return domain.model_copy(update={"heldout": _FEW_SHARE}) if len(units) < _FEW_ROWS else domain


def _in_paragraphs(text: str) -> bool:
    """Whether a text is prose: its paragraphs stand apart, or are too long for a table's lines."""
    lines = text.strip().splitlines()
    return "\n\n" in text.strip().replace("\r", "") or sum(map(len, lines)) > _LINE * len(lines)


def complete(domain: Domain, rows: Sequence[Row]) -> Domain:
    """The domain with every key of its mapping. Raises `DataError` where the columns do not tell."""
    if domain.text:
        return domain.model_copy(update=_plain_text(domain, rows))
    if not (domain.labels or domain.bins or domain.messages or domain.conversation):
        update = {} if domain.prompt and domain.answer else recognise(domain, rows)
        if all(getattr(domain, key) in (None, value) for key, value in update.items()):  # what people wrote counts
            domain = domain.model_copy(update=update)
    found = survey(rows)
    chat = (domain.conversation, domain.role, domain.content)
    if domain.messages or all(chat) or (domain.prompt and domain.answer):
        update = {}
    elif any(chat):
        update = _chat(domain, found, rows) or {}
        if not update:
            raise unclear_chat(domain, rows)
    elif not domain.prompt and not domain.answer and (name := _message_columns(rows)):
        update = {"messages": name}
    else:
        asked = domain.prompt or domain.answer
        update = {} if asked else _chat(domain, found, rows) or {}
        update = update or _templates(domain, found, rows)
    if domain.label_map and not domain.labels and closed_set(domain):  # not the letters of choices
        update["labels"] = closed_set(domain)
    update |= _around(domain.model_copy(update=update), rows)
    return domain.model_copy(update=update)


def _plain_text(domain: Domain, rows: Sequence[Row]) -> dict[str, Any]:
    """Text files of a folder stay whole on one side, where there are enough of them."""
    files = {text_of(row.values.get("file")) for row in rows}
    update: dict[str, Any] = {"text": domain.text or "text"}
    return update | ({"group": "file"} if domain.group is None and len(files) >= _MANY_FILES else {})


def _around(domain: Domain, rows: Sequence[Row]) -> dict[str, Any]:
    """Columns that other tools' formats have beside the exchange: `system`, and Alpaca's `history`."""
    update: dict[str, Any] = {}
    columns = columns_of(rows)
    taken = f"{domain.prompt}{domain.answer}"
    named = next((name for name in _SYSTEMS if name in columns and f"{{{name}}}" not in taken), None)
    if domain.system is None and named and most(isinstance(in_one(cell), str) for cell in _filled(rows, named)):
        update["system"] = f"{{{named}}}"
    if domain.tools is None and domain.messages:
        update["tools"] = next((name for name in _TOOLS if most(map(_describes, _filled(rows, name)))), None)
    if domain.history is None and domain.prompt and "history" in columns and "{history}" not in taken:
        exchanges = [exchange_list(row.values.get("history")) for row in rows]
        update["history"] = "history" if most(each is not None for each in exchanges) else None
    return update


def _filled(rows: Sequence[Row], name: str) -> list[Any]:
    return [cell for row in rows if (cell := row.values.get(name)) not in (None, "", [])]


def _describes(value: Any) -> bool:
    """Whether a cell describes tools."""
    found = tools_of(value)
    return bool(found) and isinstance(found, list | dict)


def domain_name(stem: str, otherwise: str = "data") -> str:
    """A domain's name from a file's, or from what somebody calls it; `otherwise` where no letter of it may."""
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9_-]+", "-", plain).strip("-_") or otherwise


def _message_columns(rows: Sequence[Row]) -> str | tuple[str, ...] | None:
    """The first column that holds lists of messages, or TRL's two; none of those that only compare answers."""
    found = []
    for name in columns_of(rows[:20]):
        values = [value for row in rows[:20] if (value := row.values.get(name))]
        if most(message_list(value) is not None for value in values):
            found.append(name)
    if "completion" in found and (before := {"prompt", "chosen"} & set(found)):  # Axolotl's argilla_chat asks in chosen
        return (before.pop(), "completion")
    return found[0] if found else None


def _chat(domain: Domain, found: list[Column], rows: Sequence[Row]) -> dict[str, Any] | None:
    """The keys of a file with one message a row."""

    def known(column: Column) -> bool:
        roles = [role_of(value, domain) for value in column.values]
        return len(set(roles) - {None}) > 1 and 2 * roles.count(None) <= len(roles)

    def ordered(column: Column) -> bool:
        return len(column.values) == len(rows) and moments(column.values) is not None

    update: dict[str, Any] = {}
    wanted: dict[str, Callable[[Column], bool]] = {
        "conversation": lambda column: len(column.counts) < len(column.values),
        "role": known,
        "content": lambda column: column.is_readable,
        "time": ordered,
    }
    for key, suits in wanted.items():
        if getattr(domain, key) is None:
            column = named((each for each in found if each.name not in update.values()), _NAMES[key], suits)
            if column is None and key != "time":
                return None
            update |= {key: column.name} if column else {}
    return update


def _templates(domain: Domain, found: list[Column], rows: Sequence[Row]) -> dict[str, Any]:
    """Prompt, answer, and what a closed set needs besides."""
    names = columns_of(rows)
    used = {*prompt_template(domain, names).columns, *answer_template(domain, names).columns}
    used |= {name for name in (domain.rating, domain.rejected) if name}
    if domain.instruction is not None:
        used.add("instruction")  # its placeholder is taken
    free = [column for column in found if column.name not in used]
    left, right = _sides(domain, free, rows)
    if left and left.name in _TEXTS and right is None and not domain.answer:
        if scores := [column.name for column in free if _is_score(column)]:
            raise unbinned(rows, left.name, scores[0])
        return {"text": left.name}
    if (left is None and not domain.prompt) or (right is None and not domain.answer):
        raise unclear(rows, free, _ANSWERS)
    labels, update = closed_set(domain), dict[str, Any]()
    told = domain.rating or domain.rejected or domain.choices  # what the answers are, whatever they look like
    if right:
        update["answer"] = f"{{{right.column.name}}}"
        if not labels and not told and (right.asks or right.column.is_closed):
            update["labels"] = labels = right.column.labels
    asking = left and labels and (right is None or right.asks)
    if left:
        update |= _asking(domain, left, labels) if asking else {"prompt": _prompt(domain, left, free)}
    _check_sides(domain.model_copy(update=update), rows, free)
    return update


def _check_sides(domain: Domain, rows: Sequence[Row], free: list[Column]) -> None:
    """Raises `DataError` where the prompt tells the answer, or where a column is not used that the answer needs."""
    names = columns_of(rows)
    asked, answered = (set(each(domain, names).columns) for each in (prompt_template, answer_template))
    if asked & answered:
        raise unclear(rows, free, _ANSWERS)
    others = overlooked(rows, {*asked, *answered, *_named_in(domain)})
    if others and not (domain.rating or domain.rejected):
        raise unclear(rows, free, _ANSWERS, f"; {', '.join(others)} would not be used")


def _named_in(domain: Domain) -> tuple[str, ...]:
    """The columns of choices."""
    return (domain.choices,) if isinstance(domain.choices, str) else domain.choices or ()


def _is_score(column: Column) -> bool:
    """Whether a column holds numbers that people may want as labels."""
    named = {"score", "rating", "sentiment", "polarity", "label", "stars", "grade"} & set(column.parts)
    return bool(named) and column.is_filled and all(re.fullmatch(r"[-+]?\d*\.?\d+", value) for value in column.counts)


def _sides(domain: Domain, free: list[Column], rows: Sequence[Row]) -> tuple[Column | None, _Right | None]:
    """The columns of prompts and of answers that the recipe leaves out, by name and else by value."""
    right = None if domain.answer else _right(domain, free)
    left = None if domain.prompt else _left(free, right)
    if domain.prompt:
        return None, right or _only(free)
    if domain.answer:
        return left or _one([column for column in free if column.is_text]), None
    if not left and not right and any(column.name in column.counts for column in free):
        raise headless(rows)
    return _by_values(free, left, right)


def _right(domain: Domain, free: list[Column]) -> _Right | None:
    """The column of answers by its name, or because it holds the labels that the recipe lists."""
    allowed = set(domain.label_map or domain.labels or ())
    if allowed:
        fitting = [column for column in free if column.values and set(column.counts) <= allowed]
        if column := named(fitting, _NAMES["label"], lambda _: True) or next(iter(fitting), None):
            return _Right(column, True)
    vouched = named(free, _STANDARD["answer"], lambda column: column.is_filled, exact=True)
    asked = domain.prompt or named((each for each in free if each != vouched), _NAMES["prompt"], _speaks)
    if vouched and asked:  # a worked solution says more than its bare result
        worked = None if vouched.is_readable else named(free, ["solution"], _speaks, exact=True)
        return _Right(worked or vouched, False)
    for exact in (True, False):
        if column := named(free, _NAMES["answer"], _speaks, exact=exact):
            return _Right(column, False)
        if column := named(free, _NAMES["label"], lambda column: column.repeats(2, 300), exact=exact):
            return _Right(column, True)
        if vouched:
            return _Right(vouched, False)
    return None


def _left(free: list[Column], right: _Right | None) -> Column | None:
    """The column of prompts by its name."""
    names = _NAMES["text"] + _NAMES["prompt"] if right and right.asks else _NAMES["prompt"] + _NAMES["text"]
    return named((column for column in free if not right or column != right.column), names, _speaks)


def _speaks(column: Column) -> bool:
    """Whether it holds what somebody says: `agent` may hold words or names; a prompt may be a sum."""
    if "_".join(column.parts) in _STANDARD["prompt"]:
        return column.is_filled
    return column.is_readable and (not set(column.parts) <= _PARTIES or column.words >= 3)


def _by_values(free: list[Column], left: Column | None, right: _Right | None) -> tuple[Column | None, _Right | None]:
    """The sides that names left open, where the values leave one choice."""
    rest = [column for column in free if column != left and (not right or column != right.column)]
    texts = [column for column in rest if column.is_text]
    labels = [column for column in rest if column.is_label and column.is_readable]
    if left and right:
        return left, right
    if right:
        return _one(texts), right
    if left:
        return left, _only(rest)
    if len(texts) == 2:
        return texts[0], _Right(texts[1], False)
    if len(texts) == 0 and len(labels) == 2:  # short texts that repeat, and their labels, which repeat more
        labels.sort(key=lambda column: len(column.counts))
        texts = [labels.pop()]
    return (texts[0], _Right(labels[0], True)) if len(texts) == len(labels) == 1 else (None, None)


def _only(rest: list[Column]) -> _Right | None:
    """The one text, or where there is none the one label."""
    texts = [column for column in rest if column.is_text]
    column = _one(texts) or _one([column for column in rest if not texts and column.is_label and column.is_readable])
    return _Right(column, column.is_label) if column else None


def _one(found: list[Column]) -> Column | None:
    return found[0] if len(found) == 1 else None


def _prompt(domain: Domain, left: Column, free: list[Column]) -> str:
    """The prompt's column, with the one that belongs to it."""
    prompt = f"{{{left.name}}}"
    there = {f"{{{column.name}}}" for column in free if column.values}
    beside = (each for each in _BESIDE.get(left.name, []) if there >= set(re.findall(r"\{\w+\}", each)))
    prompt = next(beside, prompt)
    return prompt if domain.instruction is None else f"{{instruction}}\n\n{prompt}"


def _asking(domain: Domain, text: Column, labels: Sequence[str]) -> dict[str, Any]:
    """The prompt that asks for a label of a text."""
    ask = _ASK + (_CHOOSE if len(labels) <= _LISTED else "") if domain.instruction is None else domain.instruction
    rest = f"\nText: {{{text.name}}}\nAnswer:"
    if text.name == "instruction":  # its placeholder is the column
        return {"prompt": ask + rest}
    return {"prompt": f"{{instruction}}{rest}", "instruction": ask}
