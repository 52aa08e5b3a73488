from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metier.data.items import Item, Message
from metier.data.splitting import Remembered, Split, split
from metier.domain import Domain, Permutation
from metier.errors import DataError

LABELS = ("a", "b", "c")


def domain(**keys: Any) -> Domain:
    return Domain(name="d", data="x.csv", **keys)


def item(number: int, prompt: str | None = None, group: str | None = None, answer: int | None = None) -> Item:
    """Open unless it has the number of a label."""
    prompt = f"prompt {number}" if prompt is None else prompt
    return Item(
        id=f"id {number}",
        domain="d",
        group=f"group of {prompt}" if group is None else group,
        place=f"x.csv:{number + 2}",
        row=number,
        messages=(Message("user", prompt),),
        replies=("reply",) if answer is None else LABELS,
        answer=answer or 0,
        kind="open" if answer is None else "label",
    )


def ids(items: Sequence[Item]) -> set[str]:
    return {each.id for each in items}


def sides(found: Split) -> tuple[set[str], set[str], set[str]]:
    return ids(found.train), ids(found.validation), ids(found.heldout)


@st.composite
def tables(draw: st.DrawFn, *, closed: bool = True) -> list[Item]:
    rows = draw(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12), st.integers(0, 2)), min_size=3, max_size=40))
    return [
        item(number, f"prompt {prompt}", f"group {group}", label if closed else None)
        for number, (prompt, group, label) in enumerate(rows)
    ]


@given(tables(), st.floats(0.05, 0.6), st.floats(0.05, 0.6))
def test_neither_a_group_nor_a_prompt_is_ever_on_two_sides(
    items: list[Item], heldout: float, validation: float
) -> None:
    try:
        found = split(domain(heldout=heldout, validation=validation), items)
    except DataError:
        return  # too few groups
    parts = (found.train, found.validation, found.heldout)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not {each.group for each in parts[one]} & {each.group for each in parts[other]}
        assert not {each.messages for each in parts[one]} & {each.messages for each in parts[other]}
    assert sum(map(len, parts)) == len(items)
    assert all(parts)
    assert found.left_out == ()


@given(st.lists(st.integers(0, 2), min_size=4, max_size=80), st.floats(0.05, 0.6))
def test_each_label_has_its_share_and_is_on_both_sides_where_it_can(labels: list[int], share: float) -> None:
    items = [item(number, answer=label) for number, label in enumerate(labels)]
    found = split(domain(heldout=share, validation=0.1), items)
    if all(labels.count(label) == 1 for label in set(labels)):
        return
    for label in set(labels):
        held = sum(each.answer == label for each in found.heldout)
        total = labels.count(label)
        assert abs(held - share * total) <= 1
        assert (0 < held < total) if total > 1 else held == 0


@given(st.integers(5, 200), st.floats(0.05, 0.6))
def test_open_answers_are_shared_out_by_groups(count: int, share: float) -> None:
    found = split(domain(heldout=share, validation=0.1), [item(number) for number in range(count)])
    assert abs(len(found.heldout) - share * count) <= 1


@given(tables(closed=False), st.randoms(use_true_random=False))
def test_the_file_s_order_has_no_say(items: list[Item], random: Any) -> None:
    try:
        first = split(domain(), items)
    except DataError:
        return
    assert sides(split(domain(), random.sample(items, len(items)))) == sides(first)


def test_training_items_stand_in_file_order_and_the_others_as_drawn() -> None:
    found = split(domain(heldout=0.4), [item(number) for number in range(50)])
    assert [each.row for each in found.train] == sorted(each.row for each in found.train)
    assert [each.row for each in found.heldout] != sorted(each.row for each in found.heldout)


def drawn(found: Split) -> Remembered:
    train, validation, heldout = sides(found)
    rest = dict.fromkeys(train, False)
    return Remembered(
        dict.fromkeys(heldout, True) | dict.fromkeys(validation, False) | rest, dict.fromkeys(validation, True) | rest
    )


@given(tables(), st.integers(0, 20))
@settings(max_examples=60)
def test_who_was_drawn_keeps_its_side_when_rows_are_added(items: list[Item], more: int) -> None:
    try:
        first = split(domain(heldout=0.3, validation=0.2), items)
    except DataError:
        return
    grown = [*items, *(item(100 + number, answer=number % 3) for number in range(more))]
    second = split(domain(heldout=0.3, validation=0.2), grown, remembered=drawn(first))
    for before, after in zip(sides(first), sides(second), strict=True):
        assert before <= after


def test_new_rows_fill_up_what_is_wanting() -> None:
    items = [item(number) for number in range(10)]
    first = split(domain(heldout=0.2), items)
    second = split(domain(heldout=0.2), [item(number) for number in range(20)], remembered=drawn(first))
    assert (len(first.heldout), len(second.heldout)) == (2, 4)


def test_a_newcomer_that_ties_training_to_held_out_rows_leaves_them_where_they_are() -> None:
    items = [item(number, group=f"g{number}") for number in range(10)]
    memory = Remembered({each.id: each.row == 0 for each in items}, {each.id: each.row == 1 for each in items[1:]})
    tie = item(10, prompt="prompt 2", group="g0")  # prompt of a training row, group of the held-out one
    found = split(domain(heldout=0.1), [*items, tie], remembered=memory)
    assert ids(found.heldout) == {"id 0", "id 10"}
    assert "id 2" not in ids(found.train)
    assert [str(fault) for fault in found.left_out] == [
        "x.csv:4: has the same prompt as held-out x.csv:12; left out of training"
    ]


def test_a_permutation_is_the_one_of_the_datasets_library() -> None:
    # datasets.Dataset.from_dict({"n": range(10)}).train_test_split(test_size=0.25, seed=42)["test"]["n"]
    found = split(domain(heldout=Permutation(permutation=42, share=0.25)), [item(number) for number in range(10)])
    assert [each.row for each in found.heldout] == [5, 6, 0]


def test_with_a_permutation_training_rows_give_way_to_held_out_ones() -> None:
    items = [item(number, prompt="same" if number in (1, 5) else None) for number in range(10)]
    found = split(domain(heldout=Permutation(permutation=42, share=0.25)), items)
    assert [each.row for each in found.heldout] == [5, 6, 0]
    assert "id 1" not in ids(found.train) | ids(found.validation)
    assert [str(fault) for fault in found.left_out] == [
        "x.csv:3: has the same prompt as held-out x.csv:7; left out of training"
    ]


def test_turns_of_one_row_stay_together_in_a_permutation() -> None:
    items = [
        Item(f"{row}/{turn}", "d", f"g{row}", "x:1", row, (Message("user", f"{row} {turn}"),), ("r",), 0)
        for row in range(10)
        for turn in range(2)
    ]
    found = split(domain(heldout=Permutation(permutation=42, share=0.25)), items)
    assert [each.id for each in found.heldout] == ["5/0", "5/1", "6/0", "6/1", "0/0", "0/1"]


def test_files_are_taken_whole_and_training_rows_give_way() -> None:
    items = [item(number) for number in range(6)]
    heldout = [item(0), item(20), item(21, prompt="prompt 20")]
    validation = [item(1), item(20), item(30, group="group of prompt 2")]
    found = split(domain(heldout="h", validation="v"), items, heldout, validation)
    assert ids(found.heldout) == {"id 0", "id 20", "id 21"}
    assert ids(found.validation) == {"id 1", "id 30"}
    assert ids(found.train) == {"id 3", "id 4", "id 5"}
    assert sorted(map(str, found.left_out)) == [
        "x.csv:22: has the same prompt as held-out x.csv:22; left out of validation",
        "x.csv:2: has the same prompt as held-out x.csv:2; left out of training",
        "x.csv:3: has the same prompt as validation x.csv:3; left out of training",
        "x.csv:4: is of the same group as validation x.csv:32; left out of training",
    ]


@pytest.mark.parametrize(
    ("count", "keys", "needed"),
    [(2, {}, 3), (1, {"heldout": Permutation(permutation=1, share=0.3)}, 3), (1, {"heldout": "file"}, 2)],
)
def test_too_few_rows_are_a_fault_that_says_how_many_are_needed(count: int, keys: dict[str, Any], needed: int) -> None:
    other = [item(9)] if "file" in keys.values() else None
    with pytest.raises(DataError, match=f"has {count} rows; at least {needed} rows are needed"):
        split(domain(**keys), [item(number) for number in range(count)], other)
    assert all(sides(split(domain(**keys), [item(number) for number in range(needed)], other)))


def test_shares_that_leave_nothing_are_a_fault_of_the_shares() -> None:
    with pytest.raises(DataError, match="leave a side without any; lower the shares"):
        split(domain(heldout=0.6), [item(number) for number in range(3)])
    assert all(sides(split(domain(heldout=0.4), [item(number) for number in range(3)])))


def test_too_few_groups_are_a_fault_of_groups() -> None:
    with pytest.raises(DataError, match="has 9 rows in 2 groups; at least 3 groups are needed"):
        split(domain(), [item(number, group=str(number % 2)) for number in range(9)])


def test_a_file_that_leaks_wholly_is_a_fault() -> None:
    items = [item(number) for number in range(6)]
    with pytest.raises(DataError, match=r"6 are left out: x\.csv:2: has the same prompt as held-out"):
        split(domain(heldout="h"), items, items)


def test_a_rare_label_stays_in_training() -> None:
    items = [item(number, answer=2 if number == 0 else number % 2) for number in range(20)]
    found = split(domain(), items)
    by_side = defaultdict(set)
    for side in ("train", "validation", "heldout"):
        by_side[side] = {each.reference for each in getattr(found, side)}
    assert by_side == {"train": {"a", "b", "c"}, "validation": {"a", "b"}, "heldout": {"a", "b"}}
