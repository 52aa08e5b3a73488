from __future__ import annotations

from typing import Any

import pytest

from metier.data.items import Item, Message, make_items
from metier.data.sources import Row
from metier.domain import Domain
from metier.errors import DataError, Fault

PAIR = {"prompt": "{q}", "answer": "{a}"}


def make(values: list[dict[str, Any]], **keys: Any) -> list[Item]:
    rows = [Row(f"x.csv:{number + 2}", number, value) for number, value in enumerate(values)]
    return make_items(Domain(name="d", data="x.csv", **keys), rows)


def faults(values: list[dict[str, Any]], **keys: Any) -> list[str]:
    with pytest.raises(DataError) as raised:
        make(values, **keys)
    return [str(fault) for fault in raised.value.faults]


def turns(*said: tuple[str, str]) -> dict[str, Any]:
    return {"m": [{"role": role, "content": content} for role, content in said]}


def test_a_row_is_an_item() -> None:
    (item,) = make([{"q": "why?", "a": "so"}], **PAIR, system="Be kind.")
    assert item.messages == (Message("system", "Be kind."), Message("user", "why?"))
    assert (item.replies, item.answer, item.reference, item.kind) == (("so",), 0, "so", "open")
    assert (item.domain, item.place, item.row) == ("d", "x.csv:2", 0)


def test_every_assistant_turn_is_an_item_given_the_true_history() -> None:
    first, second = make([turns(("user", "a"), ("bot", "b"), ("user", "c"), ("bot", "d"))], messages="m")
    assert [message.content for message in second.messages] == ["a", "b", "c"]
    assert (first.reference, second.reference) == ("b", "d")
    assert first.group == second.group
    assert first.row == second.row == 0
    assert first.id != second.id


def test_a_system_message_of_the_data_goes_before_the_domain_s() -> None:
    own, other = make(
        [turns(("system", "own"), ("user", "a"), ("bot", "b")), turns(("user", "a"), ("bot", "b"))],
        messages="m",
        system="theirs",
    )
    assert (own.messages[0].content, other.messages[0].content) == ("own", "theirs")


def test_ids_and_groups_come_from_what_is_asked_and_never_from_an_answer_or_a_wording() -> None:
    (item,) = make([{"q": "why?", "a": "so"}], **PAIR)
    (other,) = make([{"q": "why?", "a": "because"}], prompt="Please: {q}", answer="{a}", system="New.")
    (asked,) = make([{"q": "why not?", "a": "so"}], **PAIR)
    assert (item.id, item.group) == (other.id, other.group)
    assert item.id != asked.id
    assert len(item.id) == 16
    before = make([turns(("user", "a"), ("bot", "b"), ("user", "c"), ("bot", "d"))], messages="m")
    after = make([turns(("user", "a"), ("bot", "x"), ("user", "c"), ("bot", "y"))], messages="m")
    assert [each.id for each in before] == [each.id for each in after]


def test_a_repeated_prompt_gets_its_count() -> None:
    one, two, three = make([{"q": "why?", "a": answer} for answer in "abc"], **PAIR)
    assert (two.id, three.id) == (f"{one.id}#2", f"{one.id}#3")
    assert one.group == two.group


def test_a_group_is_part_of_the_id() -> None:
    one, two = make([{"q": "why?", "a": "a", "g": group} for group in ("x", "y")], **PAIR, group="g")
    assert (one.group, two.group) == ("d/x", "d/y")
    assert one.id != two.id
    assert "#" not in two.id


def test_a_row_s_own_id_is_used_and_numbered_where_it_has_several_turns() -> None:
    single = turns(("user", "a"), ("bot", "b")) | {"id": "7"}
    several = turns(("user", "a"), ("bot", "b"), ("user", "c"), ("bot", "d")) | {"id": "8"}
    assert [item.id for item in make([single, several], messages="m", id="id")] == ["7", "8/1", "8/2"]


def test_own_ids_must_be_unique_and_there() -> None:
    found = faults([{"q": "a", "a": "b", "id": own} for own in ("7", "8", "7", "")], **PAIR, id="id")
    assert found == [
        "x.csv:4: id: '7' is the id of x.csv:2 too; give every row its own",
        "x.csv:5: id: is empty; give every row an id",
    ]


def test_in_a_chat_the_conversation_is_the_group_and_the_answer_s_row_gives_id_and_place() -> None:
    values = [
        {"c": "t1", "r": role, "t": text, "id": str(number)}
        for number, (role, text) in enumerate([("user", "a"), ("agent", "b"), ("user", "c"), ("agent", "d")])
    ]
    first, second = make(values, conversation="c", role="r", content="t", id="id")
    assert (first.group, first.id, first.place) == ("d/t1", "1", "x.csv:3")
    assert (second.group, second.id, second.place) == ("d/t1", "3", "x.csv:5")


LABELS = {**PAIR, "labels": ("no", "yes")}


def test_labels_are_replies_of_which_one_is_right() -> None:
    item, other = make([{"q": "a", "a": " yes "}, {"q": "b", "a": "no"}], **LABELS)
    assert (item.replies, item.answer, item.kind) == (("no", "yes"), 1, "label")
    assert other.reference == "no"
    mapped = make([{"q": "a", "a": "1"}, {"q": "b", "a": "0"}], **PAIR, label_map={"0": "no", "1": "yes"})
    assert [each.reference for each in mapped] == ["yes", "no"]


def test_strange_labels_are_named_with_those_allowed() -> None:
    assert faults([{"q": "a", "a": "yess"}], **LABELS) == [
        "x.csv:2: a: 'yess' is no label; did you mean `yes`?; allowed: no, yes"
    ]
    assert faults([{"q": "a", "a": "2"}], **PAIR, label_map={"0": "no", "1": "yes"}) == [
        "x.csv:2: a: '2' is not in label_map; allowed: 0, 1"
    ]
    many = tuple(f"l{number}" for number in range(77))
    assert "… 77 in all" in faults([{"q": "a", "a": "?"}], **PAIR, labels=many)[0]


def test_every_empty_cell_is_listed() -> None:
    assert faults([{"q": "a", "a": " "}, {"q": "", "a": "b"}, {"q": "a", "a": "b"}], **PAIR) == [
        "x.csv:2: a: is empty; remove the row or fill it in",
        "x.csv:3: q: is empty; remove the row or fill it in",
    ]


def test_a_file_without_any_answer_is_a_fault() -> None:
    values = [{"c": "1", "r": "user", "t": "hello?"}]
    assert "has no answer" in faults(values, conversation="c", role="r", content="t")[0]


def test_what_is_left_out_is_counted_by_kind_and_a_tenth_is_much() -> None:
    values = [{"q": f"why {n}?", "a": "up"} for n in range(40)]
    for number in range(3):
        values[number]["a"] = f"sideways {number}"
    values[3]["q"] = ""
    rows = [Row(f"x.csv:{number + 2}", number, value) for number, value in enumerate(values)]
    told: list[Fault] = []
    domain = Domain(name="d", data="x.csv", skip_faulty=True, labels=("up", "down"), **PAIR)
    assert len(make_items(domain, rows, told.append)) == 36
    (note,) = told  # exactly a tenth
    assert note.problem.startswith("3 rows like x.csv:2: a: 'sideways 0' is no label;")
    assert note.problem.endswith("1 row like x.csv:5: q: is empty")
    make_items(domain, rows[:30], told.append)
    assert told[-1].problem == "4 rows of 30 are left out, more than a tenth"


def test_a_row_without_its_own_id_can_be_left_out() -> None:
    values = [{"q": f"why {n}?", "a": "so", "k": key} for n, key in enumerate(["1", "", "1", "2"])]
    rows = [Row(f"x.csv:{number + 2}", number, value) for number, value in enumerate(values)]
    domain = Domain(name="d", data="x.csv", id="k", **PAIR)
    with pytest.raises(DataError, match=r"2 faults\n  x.csv:3: k: is empty.*\n  x.csv:4: k: '1' is the id of x.csv:2"):
        make_items(domain, rows)
    items = make_items(domain.model_copy(update={"skip_faulty": True}), rows)
    assert [(item.id, item.place) for item in items] == [("1", "x.csv:2"), ("2", "x.csv:5")]


def test_faulty_rows_are_left_out_where_the_domain_says_so() -> None:
    values = [{"q": "why?", "a": "so"}, {"q": "how?", "a": " "}, {"q": "", "a": "so"}]
    told: list[str] = []
    rows = [Row(f"x.csv:{number + 2}", number, value) for number, value in enumerate(values)]
    items = make_items(
        Domain(name="d", data="x.csv", skip_faulty=True, **PAIR), rows, lambda fault: told.append(str(fault))
    )
    assert [item.place for item in items] == ["x.csv:2"]
    assert told == [
        "domain d: 1 row like x.csv:3: a: is empty; 1 row like x.csv:4: q: is empty; left out (skip_faulty)",
        "domain d: 2 rows of 3 are left out, more than a tenth; "
        "mend them: what is left may not be what the file is about",
    ]
    with pytest.raises(DataError, match="is empty"):  # a file of faults alone is no data
        make_items(Domain(name="d", data="x.csv", skip_faulty=True, **PAIR), rows[1:])
    with pytest.raises(DataError, match="no column"):  # what is wrong with all rows is no row's fault
        make_items(Domain(name="d", data="x.csv", skip_faulty=True, prompt="{p}", answer="{a}"), rows)
    with pytest.raises(DataError) as raised:
        make_items(Domain(name="d", data="x.csv", **PAIR), rows)
    assert "skip_faulty" in raised.value.hint
