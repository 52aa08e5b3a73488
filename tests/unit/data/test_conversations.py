from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from metier.data.conversations import Conversation, read_conversations, role_of
from metier.data.sources import Row
from metier.domain import Domain
from metier.errors import DataError, Fault

CHAT = {"conversation": "ticket", "role": "sender", "content": "body"}


def domain(**keys: Any) -> Domain:
    return Domain(name="d", data="x.csv", **keys)


def rows(values: Sequence[dict[str, Any]]) -> list[Row]:
    return [Row(f"x.csv:{number + 2}", number, value) for number, value in enumerate(values)]


def messages(*said: tuple[str, Any]) -> list[Row]:
    return rows([{"messages": [{"role": role, "content": content} for role, content in said]}])


def chat(*said: tuple[str, str, str]) -> list[Row]:
    return rows([{"ticket": ticket, "sender": sender, "body": body} for ticket, sender, body in said])


def read(found: list[Row], **keys: Any) -> tuple[list[list[tuple[str, str]]], list[str], list[str]]:
    """Turns of each conversation, faults and notes."""
    notes: list[Fault] = []
    try:
        result = list(read_conversations(domain(**keys), found, notes.append))
    except DataError as error:  # the mapping's, of which no row is guilty
        return [], [str(each) for each in error.faults], []
    turns = [[(turn.role, turn.content) for turn in each.turns] for each in result if isinstance(each, Conversation)]
    return turns, [str(each) for each in result if isinstance(each, Fault)], [str(note) for note in notes]


UNORDERED = "domain d: no column tells when a message was sent; the file's order is taken"


def test_a_list_of_messages_is_a_conversation() -> None:
    found = messages(("system", "Be kind."), ("human", "Hi"), ("gpt", "Hello"), ("user", "Help"), ("assistant", "Sure"))
    turns, faults, _ = read(found, messages="messages")
    assert [role for role, _ in turns[0]] == ["system", "user", "assistant", "user", "assistant"]
    assert faults == []


def test_from_and_value_and_json_text_are_read_too() -> None:
    found = rows(
        [
            {"c": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
            {"c": '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]'},
        ]
    )
    turns, faults, _ = read(found, messages="c")
    assert turns == [[("user", "a"), ("assistant", "b")]] * 2
    assert faults == []


def test_messages_of_one_role_in_a_row_are_joined() -> None:
    turns, _, _ = read(messages(("user", "a"), ("user", "b"), ("bot", "c"), ("agent", "d")), messages="messages")
    assert turns == [[("user", "a\nb"), ("assistant", "c\nd")]]


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ([("user", "a")], "x.csv:2: messages[0]: has no answer"),
        ([("user", "a"), ("bot", "b"), ("user", "c")], "x.csv:2: messages[2]: has no answer"),
        ([("bot", "a"), ("user", "b"), ("bot", "c")], "x.csv:2: messages[0]: no user speaks first"),
        ([("system", "a"), ("bot", "b")], "x.csv:2: messages[0]: no user speaks first"),
        ([("user", "a"), ("system", "b"), ("bot", "c")], "x.csv:2: messages[1]: is a system message in the middle"),
        ([("user", "a"), ("bott", "b")], "x.csv:2: messages[1].role: 'bott' is no known role"),
        ([("user", "a"), ("bot", " ")], "x.csv:2: messages[1]: is empty; remove the row or fill it in"),
        ([("user", "a"), ("bot", None)], "x.csv:2: messages[1]: is empty"),
        ([("user", [{"type": "text"}]), ("bot", "b")], "x.csv:2: messages[0].content: is no text"),
    ],
)
def test_a_conversation_that_cannot_be_used_is_a_fault(said: list[tuple[str, Any]], fault: str) -> None:
    turns, faults, _ = read(messages(*said), messages="messages")
    assert turns == []
    assert len(faults) == 1
    assert faults[0].startswith(fault)


@pytest.mark.parametrize("value", [None, "", "text", [], [1], "[1", {"a": 1}])
def test_a_cell_without_messages_is_a_fault(value: Any) -> None:
    turns, faults, _ = read(rows([{"m": value}]), messages="m")
    assert turns == []
    assert faults[0].startswith("x.csv:2: m: is no list of messages")


def test_messages_a_row_are_gathered_though_conversations_interleave() -> None:
    found = chat(
        ("1", "Customer", "a"), ("2", "client", "A"), ("1", "Agent", "b"), ("2", "End-User", "B"), ("2", "bot", "C")
    )
    turns, faults, notes = read(found, **CHAT)
    assert turns == [[("user", "a"), ("assistant", "b")], [("user", "A\nB"), ("assistant", "C")]]
    assert (faults, notes) == ([], [UNORDERED])


def test_a_help_desks_own_notes_are_left_out_and_counted() -> None:
    found = chat(("1", "user", "a"), ("1", "system", "Ticket assigned"), ("1", "user", "A"), ("1", "agent", "b"))
    turns, faults, notes = read(found, **CHAT)
    assert turns == [[("user", "a\nA"), ("assistant", "b")]]
    assert faults == []
    assert notes[1:] == ["domain d: 1 conversations have system messages in the middle; those messages are left out"]


def test_greetings_and_thanks_are_left_out_and_counted() -> None:
    found = chat(
        ("1", "agent", "Welcome"), ("1", "user", "a"), ("1", "agent", "b"), ("1", "user", "thanks"),
        ("2", "user", "nobody there?"), ("3", "agent", "hello?"),
    )  # fmt: skip
    turns, faults, notes = read(found, **CHAT)
    assert turns == [[("user", "a"), ("assistant", "b")]]
    assert faults == []
    assert [note.split("; ")[0] for note in notes[1:]] == [
        "domain d: 1 conversations begin with the assistant",
        "domain d: 1 conversations end without an answer",
        "domain d: 2 conversations have no answer at all",
    ]


def test_roles_are_looked_up_in_the_recipe_first() -> None:
    own = domain(role_map={"Anna": "assistant", "agent": "user"})
    assert [role_of(name, own) for name in ("anna", "AGENT", "Support", "gibberish")] == [
        "assistant",
        "user",
        "assistant",
        None,
    ]
    _, faults, _ = read(chat(("1", "user", "a"), ("1", "anna", "b")), **CHAT, role_map={"anna": "helper"})
    assert faults == ["domain d: role_map.anna: 'helper' is no role; write system, user or assistant"]


def test_time_orders_the_messages() -> None:
    times = ["2026-01-01T10:00", "2026-01-01T09:58:00", "2026-01-01 09:57"]
    found = chat(("1", "agent", "c"), ("1", "user", "b"), ("1", "user", "a"))
    for row, time in zip(found, times, strict=True):
        row.values["at"] = time
    turns, _, _ = read(found, **CHAT, time="at")
    assert turns == [[("user", "a\nb"), ("assistant", "c")]]


def test_times_of_several_kinds_are_a_fault() -> None:
    found = chat(("1", "user", "a"), ("1", "agent", "b"))
    found[0].values["at"], found[1].values["at"] = "2026-01-01", "soon"
    _, faults, _ = read(found, **CHAT, time="at")
    assert "column 'at': '2026-01-01' (x.csv:2) is an ISO date, 'soon' (x.csv:3) is text" in faults[0]


def test_columns_that_are_not_there_are_one_fault_each() -> None:
    found = chat(("1", "user", "a"), ("1", "agent", "b"))
    _, faults, _ = read(found, conversation="tickt", role="sender", content="body", group="grp")
    assert [fault.split(";")[0] for fault in faults] == [
        "domain d: conversation: there is no column 'tickt'",
        "domain d: group: there is no column 'grp'",
    ]
    assert "did you mean `ticket`" in faults[0]


def test_a_message_without_conversation_is_a_fault() -> None:
    _, faults, _ = read(chat(("1", "user", "a"), ("", "agent", "b"), ("1", "agent", "b")), **CHAT)
    assert [fault.split(";")[0] for fault in faults] == ["x.csv:3: ticket: is empty"]


def test_templates_make_a_turn_of_each_party() -> None:
    found = rows([{"q": " why? ", "a": " so ", "n": [{"x": "y"}], "lines": ["one", "two"]}])
    turns, _, _ = read(found, prompt="Q: {q}", answer="{a}")
    assert turns == [[("user", "Q: why?"), ("assistant", "so")]]
    turns, _, _ = read(found, prompt="{lines}\n{q}", answer="{a}")
    assert turns[0][0] == ("user", "one\ntwo\nwhy?")
    _, faults, _ = read(found, prompt="{q} {n}", answer="{a}")
    assert faults == ["x.csv:2: n: holds no text; write it as text"]


def test_a_key_that_a_json_row_leaves_out_is_empty() -> None:
    turns, faults, _ = read(
        rows([{"q": "a", "x": "b", "a": "c"}, {"q": "d", "a": "e"}]), prompt="{q}\n{x}", answer="{a}"
    )
    assert [each[0] for each in turns] == [("user", "a\nb"), ("user", "d")]
    assert faults == []


def test_marks_within_a_message_are_a_fault() -> None:
    found = messages(("user", "Why?"), ("assistant", "So."))
    found[0].values["messages"][1]["train_detail"] = [{"begin_offset": 0, "end_offset": 1, "train": False}]
    _, faults, _ = read(found, messages="messages")
    assert faults == [
        "x.csv:2: messages[1].train_detail: marks parts of a message, which is not read; "
        "mark whole messages with train = true or false, and remove it"
    ]


def test_what_is_not_read_of_messages_is_noted_once() -> None:
    found = rows([messages(("user", f"Why {n}?"), ("assistant", "So."))[0].values for n in range(3)])
    for row in found:
        row.values["messages"][1]["reasoning_content"] = "Hm."
    _, faults, notes = read(found, messages="messages")
    assert (faults, notes) == ([], ["domain d: reasoning_content stands in 3 messages; it is not read"])


def test_an_answer_of_which_a_part_is_not_learned_is_noted() -> None:
    found = messages(("user", "Why?"), ("assistant", "Um."), ("assistant", "So."))
    found[0].values["messages"][1]["training"] = False
    turns, faults, notes = read(found, messages="messages")
    assert (turns, faults) == ([[("user", "Why?"), ("assistant", "Um.\nSo.")]], [])
    (note,) = notes
    assert note.startswith("domain d: 1 rows have answers that follow each other and are not all to be learned")
    found[0].values["messages"][2]["training"] = False
    assert read(found, messages="messages")[2] == []


PARTS = [{"text": "Be kind."}, {"text": "Be brief."}]


def test_a_system_prompt_in_parts_is_a_text_and_one_that_is_none_is_a_fault() -> None:
    keys = {"prompt": "{q}", "answer": "{a}", "system": "{s}"}
    turns, _, _ = read(rows([{"q": "Why?", "a": "So.", "s": PARTS}]), **keys)
    assert turns[0][0] == ("system", "Be kind.\nBe brief.")
    _, faults, _ = read(rows([{"q": "Why?", "a": "So.", "s": {"x": 1}}]), **keys)
    assert faults == ["x.csv:2: s: holds no text; write it as text"]


def test_tools_that_are_none_are_a_fault() -> None:
    found = messages(("user", "Why?"), ("assistant", "So."))
    found[0].values["tools"] = "a hammer"
    _, faults, _ = read(found, messages="messages", tools="tools")
    assert faults == ["x.csv:2: tools: describes no tools; write a JSON list of them"]
