"""Rows that other tools fold into lists or one long text → the same rows with columns that say it plainly.

Every dialect adds columns where it is spoken and leaves all others alone, so that a recipe's own mapping
always finds the file's columns as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from itertools import groupby, product, takewhile
from typing import Any

from metier.data.majority import most
from metier.data.objects import listed

Values = dict[str, Any]

_MARKS = r"<\|?(?:s|/s|begin_of_text|bos|eos|im_end|end|endoftext|end_of_text|eot_id|end_of_turn)\|?>"
_ENDS = re.compile(rf"^(?:\s*{_MARKS})+|(?:{_MARKS}\s*)+$")  # the base's own template writes them
_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_BESIDE = {"chosen", "rejected", "id", "source", "margin"}
_VERDICTS = ("winner", "preference", "preferred", "better", "better_response_id", "chosen", "label")
_COMPARED = ("response", "answer", "completion", "output", "conversation", "reply")
_TIES = {"both", "neither", "equal", "draw", "same"}
TIED = "no better answer"  # a column of its own: such rows are left out
_MARKED = (("a", "b"), ("0", "1"), ("1", "2"))


def translate(rows: Sequence[Values]) -> list[Values]:
    """The rows, with a dialect's columns where most of them speak it."""
    columns = {name for values in rows for name in values}
    for needed, read in _DIALECTS.items():
        if needed in columns:
            found = [read(values) for values in rows]
            if most(map(bool, found)):
                return [{**more, **values} for values, more in zip(rows, found, strict=True)]
    if compared := _compared(columns):
        found = [_judged(values, *compared) for values in rows]
        if most(map(bool, found)):
            return [{**values, **more} for values, more in zip(rows, found, strict=True)]
    if {"chosen", "rejected"} <= columns and not any(_asks(rows, name) for name in columns - _BESIDE):
        return [{**values, **_shared(values)} for values in rows]
    return list(rows)


def _asks(rows: Sequence[Values], name: str) -> bool:
    """Whether a column may hold a prompt: scores and flags do not."""
    values = [value for values in rows[:20] if (value := values.get(name)) not in (None, "")]
    return most(isinstance(each, list | dict) or (isinstance(each, str) and " " in each.strip()) for each in values)


def _objects(value: Any, *keys: str) -> list[Values]:
    """A list of objects that all have these keys; empty for anything else."""
    found = listed(value)
    shaped = isinstance(found, list) and all(isinstance(each, dict) and set(keys) <= set(each) for each in found)
    return found if shaped else []


def _segments(values: Values) -> Values:
    """Axolotl's `input_output`: pieces of text, of which those with `label` are learned.

    https://docs.axolotl.ai/docs/dataset-formats/template_free.html
    """
    pieces = _objects(values.get("segments"), "label", "text")
    sides = groupby(pieces, key=lambda piece: piece["label"] in (True, "true", 1))
    said = [(learned, "".join(str(piece["text"]) for piece in group)) for learned, group in sides]
    if said and said[0][0]:  # nothing is asked first: a text to go on reading
        return {"text": _ENDS.sub("", "".join(text for _, text in said))}
    messages = [{"role": ("user", "assistant")[learned], "content": _ENDS.sub("", text)} for learned, text in said]
    return {"messages": messages} if messages else {}


def _two_outputs(values: Values) -> Values:
    """LLaMA-Factory's older pairs: the better answer first."""
    pair = listed(values.get("output"))
    fits = isinstance(pair, list) and len(pair) == 2 and all(isinstance(each, str) for each in pair)
    return dict(zip(("chosen", "rejected"), pair, strict=True)) if fits else {}


def _ranked(values: Values) -> Values:
    """Nectar's answers with their ranks: the best is held against the second, as in Axolotl's zephyr.nectar."""
    answers = _objects(values.get("answers"), "answer", "rank")
    if not all(isinstance(each["rank"], int | float) for each in answers):
        return {}
    answers = sorted(answers, key=lambda each: float(each["rank"]))
    return {"chosen": answers[0]["answer"], "rejected": answers[1]["answer"]} if len(answers) > 1 else {}


def _exchanged(values: Values) -> Values:
    """Capybara's conversation: a list of {input, output}."""
    turns = _objects(values.get("conversation"), "input", "output")
    roles = (("user", "input"), ("assistant", "output"))
    messages = [{"role": role, "content": each[key]} for each in turns for role, key in roles]
    return {"messages": messages} if messages else {}


def _shared(values: Values) -> Values:
    """TRL's implicit prompt: what two texts have in common in front; Anthropic's dialogues are taken apart.

    https://huggingface.co/docs/trl/dataset_formats
    """
    chosen, rejected = values.get("chosen"), values.get("rejected")
    if not isinstance(chosen, str) or not isinstance(rejected, str) or isinstance(listed(chosen), list | dict):
        return {}
    if (first := _dialogue(chosen)) and (second := _dialogue(rejected)):
        return {"chosen": first, "rejected": second}
    same = takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
    prompt = re.sub(r"\S+\Z", "", "".join(one for one, _ in same))  # never cut within a word
    return {"prompt": prompt, "chosen": chosen[len(prompt) :], "rejected": rejected[len(prompt) :]}


def _dialogue(text: str) -> list[dict[str, str]]:
    """The turns of a text whose speakers are called Human and Assistant; none where it is no such text."""
    before, *parts = _SPEAKER.split(text)
    said = list(zip(parts[::2], parts[1::2], strict=True))
    if before.strip() or not said or said[0][0] != "Human":
        return []
    return [{"role": _ROLES[name], "content": content.strip()} for name, content in said]


def _compared(columns: Collection[str]) -> tuple[str, dict[str, str]] | None:
    """The column that tells the better of two answers, and the two by the names that it may give them."""
    verdict = next((name for name in _VERDICTS if name in columns), None)
    for stem, pair in product(_COMPARED, _MARKED) if verdict else ():
        names = [next((n for n in (f"{stem}_{mark}", f"{stem}{mark}") if n in columns), "") for mark in pair]
        if verdict and all(names):
            marked = {**dict(zip(pair, names, strict=True)), **{name.lower(): name for name in names}}
            models = {f"model_{mark}": name for mark, name in zip(pair, names, strict=True)}
            return verdict, marked | models
    return None


def _judged(values: Values, verdict: str, names: dict[str, str]) -> Values:
    """The answer that won and the other one; nothing of a row whose winner is neither."""
    said = str(values.get(verdict)).strip().lower()
    if said.startswith("tie") or said in _TIES:
        return {TIED: said}
    won = names.get(said)
    (lost,) = {*names.values()} - {won} if won else {""}
    return {"chosen": values.get(won), "rejected": values.get(lost)} if won else {}


_DIALECTS: dict[str, Callable[[Values], Values]] = {
    "segments": _segments,
    "output": _two_outputs,
    "answers": _ranked,
    "conversation": _exchanged,
}
