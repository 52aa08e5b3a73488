"""Items → training, validation and held-out sides; nothing that is measured on is ever trained on."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from metier.data.items import Item
from metier.data.replies import Kind
from metier.domain import Domain, Permutation
from metier.errors import DataError, Fault
from metier.files import digest

Drawn = Mapping[str, bool]  # an item's id → whether it was cut off


@dataclass(frozen=True)
class Remembered:
    """How items were drawn before: who was held out, and who of the others became validation."""

    heldout: Drawn = field(default_factory=dict)
    validation: Drawn = field(default_factory=dict)


@dataclass(frozen=True)
class Split:
    """Training items in file order; the others in the order drawn, so that the first n are a sample.

    `left_out` lists the items that would have leaked what is held out or validated on.
    """

    train: tuple[Item, ...]
    validation: tuple[Item, ...]
    heldout: tuple[Item, ...]
    left_out: tuple[Fault, ...]


def split(
    domain: Domain,
    items: Sequence[Item],
    heldout_items: Sequence[Item] | None = None,
    validation_items: Sequence[Item] | None = None,
    remembered: Remembered | None = None,
) -> Split:
    """Cut off the held-out items, then validation from the rest; files give theirs as they are.

    Raises `DataError` where a side would be empty.
    """
    remembered = remembered or Remembered()
    left_out: list[Fault] = []
    if heldout_items is not None:
        heldout, rest = _shuffled(heldout_items), list(items)
    elif isinstance(domain.heldout, Permutation):
        heldout, rest = _permuted(items, domain.heldout)
    else:
        assert isinstance(domain.heldout, float), "a file's items are given"
        heldout, rest = _draw(items, domain.heldout, remembered.heldout)
    rest, faults = apart(rest, heldout, ("held-out", "training"))
    left_out += faults
    if validation_items is not None:
        validation, faults = apart(_shuffled(validation_items), heldout, ("held-out", "validation"))
        left_out += faults
    else:
        validation, rest = _draw(rest, float(domain.validation), remembered.validation)
    train, faults = apart(rest, validation, ("validation", "training"))
    found = Split(tuple(train), tuple(validation), tuple(heldout), (*left_out, *faults))
    if not (train and validation and heldout):
        raise DataError(f"domain {domain.name}", [_too_few(domain, items, found)])
    return found


def fewer(items: Sequence[Item], count: int, seed: int) -> tuple[Item, ...]:
    """`count` of the items in the same order, of each label about its share; the fewer lie in the more."""
    strata: defaultdict[str, list[Item]] = defaultdict(list)
    for item in sorted(items, key=lambda each: digest([seed, each.id])):
        strata[item.reference if item.kind == "label" else ""].append(item)
    places = [(place + 0.5) / len(each) for each in strata.values() for place in range(len(each))]
    drawn = [item.id for each in strata.values() for item in each]
    chosen = {drawn[index] for index in sorted(range(len(drawn)), key=places.__getitem__)[:count]}
    return tuple(item for item in items if item.id in chosen)


def apart(items: Iterable[Item], others: Iterable[Item], names: tuple[str, str]) -> tuple[list[Item], list[Fault]]:
    """Those of `items` that share neither prompt nor group with `others`, and a fault for each that does."""
    other, side = names
    prompts: dict[Hashable, str] = {}
    members: dict[Hashable, str] = {}
    for each in others:
        prompts.setdefault(each.prompt, each.place)
        members.setdefault(each.group, each.place)
    kept: list[Item] = []
    faults: list[Fault] = []
    for item in items:
        if item.prompt in prompts:
            problem = f"has the same prompt as {other} {prompts[item.prompt]}"
        elif item.group in members:
            problem = f"is of the same group as {other} {members[item.group]}"
        else:
            kept.append(item)
            continue
        faults.append(Fault(item.place, problem, f"left out of {side}"))
    return kept, faults


def _permuted(items: Sequence[Item], spec: Permutation) -> tuple[list[Item], list[Item]]:
    """As `datasets.Dataset.train_test_split(test_size=share, seed=permutation)` draws rows."""
    rows: defaultdict[int, list[Item]] = defaultdict(list)
    for item in items:
        rows[item.row].append(item)
    numbers = sorted(rows)
    order = np.random.default_rng(spec.permutation).permutation(len(numbers)).tolist()
    first = [numbers[index] for index in order[: math.ceil(len(numbers) * spec.share)]]
    chosen = set(first)
    return [item for row in first for item in rows[row]], [item for item in items if item.row not in chosen]


def _draw(items: Sequence[Item], share: float, drawn: Drawn) -> tuple[list[Item], list[Item]]:
    """Cut off about `share` of the groups, of each label's groups in a closed set.

    Items that were `drawn` before keep their side; the others fill up what is wanting, in the order of a
    hash of their ids, so that neither file order nor any random state has a say.
    """
    clusters = _clusters(items)
    cut = _cut(clusters, _strata(clusters), share, drawn)
    if not cut:  # every label has a single group
        cut = _cut(clusters, [""] * len(clusters), share, drawn)
    sides = [(item, drawn.get(item.id, index in cut)) for index, each in enumerate(clusters) for item in each]
    rest = {id(item) for item, away in sides if not away}
    return [item for item, away in sides if away], [item for item in items if id(item) in rest]


def _cut(clusters: Sequence[Sequence[Item]], strata: Sequence[str], share: float, drawn: Drawn) -> set[int]:
    """The clusters that are cut off: those with an item that was, and of each stratum as many as are wanting."""
    known = [{drawn[item.id] for item in each if item.id in drawn} for each in clusters]
    cut = {index for index, sides in enumerate(known) if True in sides}
    by_stratum: defaultdict[str, list[int]] = defaultdict(list)
    for index, stratum in enumerate(strata):
        by_stratum[stratum].append(index)
    for members in by_stratum.values():
        wanted = 0 if len(members) < 2 else min(max(round(share * len(members)), 1), len(members) - 1)
        fresh = [index for index in members if not known[index]]
        cut |= set(fresh[: max(0, wanted - len(cut & set(members)))])
    return cut


def _clusters(items: Iterable[Item]) -> list[list[Item]]:
    """Items that no split may part, joined by group and by prompt; ordered by the hash of their smallest id."""
    parent: dict[Hashable, Hashable] = {}

    def root(node: Hashable) -> Hashable:
        while parent.setdefault(node, node) != node:
            parent[node] = node = parent[parent[node]]
        return node

    listed = list(items)
    for item in listed:
        parent[root(item.prompt)] = root(item.group)
    found: defaultdict[Hashable, list[Item]] = defaultdict(list)
    for item in listed:
        found[root(item.group)].append(item)
    return sorted(found.values(), key=lambda each: digest(min(item.id for item in each)))


def _shuffled(items: Sequence[Item]) -> list[Item]:
    return [item for each in _clusters(items) for item in each]


def _strata(clusters: Sequence[Sequence[Item]]) -> list[str]:
    """Of each cluster the rarest label, or rating, that can be on both sides; none for open answers."""
    named: dict[Kind, Callable[[Item], str]] = {
        "label": lambda item: item.reference,
        "rated": lambda item: str(item.liked),
    }
    labels = [{named[item.kind](item) for item in each if item.kind in named} for each in clusters]
    frequency = Counter(label for each in labels for label in each)
    return [min(each, key=lambda label: (frequency[label] < 2, frequency[label], label), default="") for each in labels]


def _too_few(domain: Domain, items: Sequence[Item], found: Split) -> Fault:
    rows, groups = len({item.row for item in items}), len(_clusters(items))
    needed = 1 + (not isinstance(domain.heldout, str)) + (not isinstance(domain.validation, str))
    counted = f"{rows} rows" + (f" in {groups} group{'s' * (groups > 1)}" if groups != rows else "")
    if found.left_out:
        problem = f"has {counted}, and those that do not leak leave a side of the split empty"
        return Fault(domain.data, problem, f"{len(found.left_out)} are left out: {found.left_out[0]}")
    if groups >= needed:
        problem = f"has {counted}, of which the shares of heldout and validation leave a side without any"
        return Fault(domain.data, problem, "lower the shares, or add rows")
    noun = "groups" if groups != rows else "rows"
    return Fault(domain.data, f"has {counted}; at least {needed} {noun} are needed to split", "add rows")
