"""What people should know of their data before they train on it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence

from metier.data.items import Item
from metier.domain import Domain
from metier.errors import Fault
from metier.personal import has_card, has_email, has_phone

_SHOWN = 3  # places named of each kind
_USUAL = 5  # rows of a label, on average; where there are fewer, one row says nothing
_FEW, _TIMES, _WORDS = 20, 5, 4  # a closed set in disguise: so few answers, each so often, so short

_REMAINS = (
    (
        re.compile(r"\{\{[^{}]+\}\}"),
        "{{placeholders}}",
        "fill them in, or in whatever shows the answers: the model will write them as they stand",
    ),
    (
        re.compile(r"(?:-->|>>|»|read more|click here)\W*\Z", re.IGNORECASE),
        "the end of a web page's link",
        "cut it off: the model will end its answers so",
    ),
)


def warnings(domain: Domain, items: Sequence[Item]) -> list[Fault]:
    """Personal data, answers that nobody would want to hear, prompts that repeat, labels that look odd; with places."""
    told = [*_personal_data(domain, items), *_unfinished(domain, items), *_repeated(domain, items)]
    if domain.labelled_by == "model":
        problem = "its answers came from a model: agreement with them is not correctness"
        told.append(Fault(f"domain {domain.name}", problem, "have people answer those held out at least"))
    return [*told, *_hidden_labels(domain, items), *_twin_labels(domain, items), *_rare_labels(domain, items)]


def few(domain: Domain, heldout: Sequence[Item], validation: Sequence[Item]) -> Iterator[Fault]:
    """Warnings where so little is held out that hardly any difference can be shown, or so little to choose by."""
    place = f"domain {domain.name}"
    if len(heldout) < _FEW:
        told = f"only {_counted(heldout)} held out: a difference must be large to show"
        yield Fault(place, told, "give more rows, or a larger heldout")
    if len(validation) < _FEW // 2:
        told = f"only {_counted(validation)} to validate on: chance has a large say in which checkpoint is the best"
        yield Fault(place, told, "give more rows, or a larger validation")


def _counted(items: Sequence[Item]) -> str:
    return f"{len(items)} item" + "s" * (len(items) != 1)


def _personal_data(domain: Domain, items: Sequence[Item]) -> list[Fault]:
    found = []
    for name, has in _KINDS.items():
        places = [item.place for item in items if any(map(has, _texts(item)))]
        if places:
            problem = f"{name} in {len(places)} of {len(items):,} items: {_listed(places)}"
            fix = "replace what belongs to real people: a model can repeat what it was trained on"
            found.append(Fault(f"domain {domain.name}", problem, fix))
    return found


def _listed(places: Sequence[str]) -> str:
    more = f", and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    return ", ".join(places[:_SHOWN]) + more


def _unfinished(domain: Domain, items: Sequence[Item]) -> Iterator[Fault]:
    """What a template's author or a web page left in answers."""
    for pattern, name, fix in _REMAINS:
        places = [item.place for item in items if item.kind == "open" and pattern.search(item.reference)]
        if places:
            problem = f"{name} in {len(places)} of {len(items):,} answers: {_listed(places)}"
            yield Fault(f"domain {domain.name}", problem, fix)


def _repeated(domain: Domain, items: Sequence[Item]) -> Iterator[Fault]:
    """One question with several answers: what is measured against is one of them by chance."""
    first: dict[Hashable, str] = {}
    places = [item.place for item in items if item.kind == "open" and first.setdefault(item.prompt, item.id) != item.id]
    if places:
        problem = f"{len(places)} of {len(items):,} items ask what another one asks: {_listed(places)}"
        pairs = {(item.prompt, item.reference) for item in items if item.kind == "open"}
        alike = len(pairs) == len(first)
        fix = (
            f"they stay on one side of the split; {'remove the copies' if alike else 'keep the better answer of each'}"
        )
        yield Fault(f"domain {domain.name}", problem, fix)


def _texts(item: Item) -> tuple[str, str]:
    """What only this item says; its history is that of the items in front of it."""
    return item.messages[-1].content if item.messages else "", item.reference


_KINDS: dict[str, Callable[[str], bool]] = {
    "an e-mail address": has_email,
    "a phone number": has_phone,
    "a payment card number": has_card,
}


def _hidden_labels(domain: Domain, items: Sequence[Item]) -> list[Fault]:
    answers = {item.reference for item in items if item.kind == "open"}
    few = 1 < len(answers) <= _FEW and len(items) >= _TIMES * len(answers)
    if not few or any(len(answer.split()) > _WORDS for answer in answers):
        return []
    listed = ", ".join(f'"{answer}"' for answer in sorted(answers))
    problem = f"has only {len(answers)} different answers and no labels, so that they are measured as open text"
    return [Fault(f"domain {domain.name}", problem, f"if they are a closed set, add labels = [{listed}]")]


def _rare_labels(domain: Domain, items: Sequence[Item]) -> Iterator[Fault]:
    """Labels of one row among many: slips, or classes that nobody can learn."""
    counts = Counter(item.reference for item in items if item.kind == "label")
    places = {item.reference: item.place for item in items if counts[item.reference] == 1}
    if counts and sum(counts.values()) >= _USUAL * len(counts):
        for label, place in places.items():
            fix = "mend it if it is a slip; a class needs more rows"
            yield Fault(f"domain {domain.name}", f"label {label!r} is that of one row alone, {place}", fix)


def _twin_labels(domain: Domain, items: Sequence[Item]) -> Iterator[Fault]:
    """Labels that only case, white space or a final stop tell apart: hardly ever two classes."""
    spelled: dict[str, list[str]] = {}
    for label in items[0].replies if items[0].kind == "label" else ():
        spelled.setdefault("".join(filter(str.isalnum, label.casefold())), []).append(label)
    for twins in spelled.values():
        if twins[0] and len(twins) > 1:
            named = " and ".join(map(repr, twins))
            quoted = {each: json.dumps(each, ensure_ascii=False) for each in items[0].replies}
            mapped = ", ".join(f"{own} = {quoted[twins[0] if each in twins else each]}" for each, own in quoted.items())
            problem = f"labels {named} look like one, but are measured as {len(twins)}"
            yield Fault(f"domain {domain.name}", problem, f"if they are one, write label_map = {{ {mapped} }}")
