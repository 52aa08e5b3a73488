from __future__ import annotations

import contextlib
import csv
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metier.data.guessing import complete, propose
from metier.data.items import Item, make_items
from metier.data.mappings import explain, unused
from metier.data.sources import Row, read_rows
from metier.domain import Domain
from metier.errors import DataError

THINGS = [
    "card",
    "loan",
    "savings account",
    "transfer",
    "statement",
    "limit",
    "fee",
    "branch",
    "app",
    "PIN",
    "cheque",
    "rate",
]
ASKED = [f"How do I change my {thing} today?" for thing in THINGS]
SAID = [f"Open the menu, choose {thing} and follow the steps; it takes a day." for thing in THINGS]
MOODS = ["good", "bad", "so so"] * 4


def rows(**values: Any) -> list[Row]:
    table = zip(*values.values(), strict=True)
    return [Row(f"x.csv:{line + 2}", line, dict(zip(values, each, strict=True))) for line, each in enumerate(table)]


def guess(found: list[Row], **keys: Any) -> dict[str, Any]:
    draft = Domain(name="d", data="x.csv", **keys)
    return complete(draft, found).model_dump(exclude_defaults=True, exclude={"name", "data", *keys})


PAIRS = [
    ("prompt", "response"), ("question", "answer"), ("Instruction", "Output"), ("message", "reply"),
    ("customer", "agent"), ("query", "response"), ("input", "output"), ("customer_question", "agentReply"),
    ("text", "completion"), ("dialogue", "summary"), ("Frage", "Antwort"), ("what they ask", "what we say"),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_pairs_are_found_by_name_or_else_from_left_to_right(left: str, right: str) -> None:
    assert guess(rows(**{left: ASKED, right: SAID})) == {"prompt": f"{{{left}}}", "answer": f"{{{right}}}"}


def test_names_count_for_more_than_the_order_of_columns() -> None:
    assert guess(rows(response=SAID, context=SAID, id=THINGS, prompt=ASKED)) == {
        "prompt": "{prompt}",
        "answer": "{response}",
    }


def test_text_is_not_found_in_context() -> None:
    with pytest.raises(DataError, match="context"):
        guess(rows(context=ASKED, pretext=SAID, textual=ASKED))


LABELLED = [
    ("text", "label"), ("sentence", "sentiment"), ("tweet", "class"), ("query", "intent"), ("utterance", "intent"),
    ("review", "rating"), ("Headline", "Topic"), ("message_text", "message_category"), ("wording", "y"), ("v2", "v1"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "label"), LABELLED)
def test_labels_are_found_by_name_or_because_they_repeat(text: str, label: str) -> None:
    assert guess(rows(**{label: MOODS, text: ASKED})) == {
        "prompt": f"{{instruction}}\nText: {{{text}}}\nAnswer:",
        "answer": f"{{{label}}}",
        "instruction": "Which label fits the text? Please choose an answer from {labels}.",
        "labels": ("bad", "good", "so so"),
    }


def test_digits_are_labels_as_they_are() -> None:
    assert guess(rows(text=ASKED, label=["1", "0", "2"] * 4))["labels"] == ("0", "1", "2")


def test_many_labels_are_not_listed_in_the_instruction() -> None:
    found = rows(text=ASKED * 4, intent=[f"intent {number}" for number in range(16)] * 3)
    assert guess(found)["instruction"] == "Which label fits the text?"


def test_a_closed_answer_to_a_question_needs_no_other_instruction() -> None:
    found = guess(rows(question=ASKED, answer=["yes", "no"] * 6))
    assert found == {"prompt": "{question}", "answer": "{answer}", "labels": ("no", "yes")}


def test_index_identifier_date_number_and_address_columns_are_passed_over() -> None:
    found = rows(
        **{"column 1": [str(number) for number in range(12)]},
        order_id=[f"A{number}" for number in range(12)],
        opened=[f"2026-02-{day:02}" for day in range(1, 13)],
        frage=ASKED,
        price=[f"{number}.5" for number in range(12)],
        page=[f"https://example.org/{number}" for number in range(12)],
        antwort=SAID,
        kategorie=MOODS,
    )
    assert guess(found) == {"prompt": "{frage}", "answer": "{antwort}"}


def test_an_agent_may_be_a_name() -> None:
    assert guess(rows(agent=["Anna", "Bo"] * 6, customer=THINGS, request=ASKED, reply=SAID)) == {
        "prompt": "{request}",
        "answer": "{reply}",
    }


def test_instruction_with_input_and_question_with_context_go_together() -> None:
    found = rows(instruction=ASKED, input=["", "some text"] * 6, output=SAID)
    assert guess(found)["prompt"] == "{instruction}\n\n{input}"
    assert guess(rows(instruction=ASKED, input=[""] * 12, output=SAID))["prompt"] == "{instruction}"
    assert guess(rows(context=SAID, question=ASKED, answer=SAID))["prompt"] == "{context}\n\n{question}"


def test_a_text_column_called_instruction_keeps_its_placeholder() -> None:
    found = guess(rows(instruction=ASKED, intent=MOODS))
    assert found["prompt"].endswith("\nText: {instruction}\nAnswer:")
    assert "instruction" not in found


def test_what_the_recipe_says_stays() -> None:
    found = rows(text=ASKED, label=MOODS, note=SAID)
    assert guess(found, prompt="{text}", answer="{label}") == {}
    assert guess(found, answer="{note}") == {"prompt": "{text}"}
    assert guess(found, prompt="Say: {text}")["answer"] == "{label}"
    assert guess(found, instruction="Mood?")["prompt"] == "{instruction}\nText: {text}\nAnswer:"
    assert guess(rows(question=ASKED, answer=SAID), instruction="Be brief.")["prompt"] == "{instruction}\n\n{question}"
    assert guess(found, messages="m") == {}


def test_a_label_map_finds_its_column_and_gives_the_labels() -> None:
    found = rows(text=ASKED, n=["7"] * 12, code=["0", "1", "2"] * 4)
    keys = guess(found, label_map={"0": "bad", "1": "so", "2": "good"})
    assert (keys["answer"], keys["labels"]) == ("{code}", ("bad", "so", "good"))
    stray = rows(text=ASKED, label=["good", "bad", "goood"] * 4)
    assert guess(stray, labels=("good", "bad"))["answer"] == "{label}"  # the stray label is a fault of its rows
    assert guess(found, prompt="{text}", answer="{code}", label_map={"0": "a", "1": "b", "2": "a"})["labels"] == (
        "a",
        "b",
    )


def chat(conversation: str, role: str, content: str, time: str) -> list[Row]:
    return rows(
        message_id=[f"m{number}" for number in range(12)],
        **{conversation: ["1", "1", "2", "2"] * 3},
        sender_name=["Anna", "Bo", "Cy", "Di"] * 3,
        **{
            role: ["customer", "agent"] * 6,
            content: ASKED,
            time: [f"2026-01-01T10:{minute}" for minute in range(10, 22)],
        },
    )


@pytest.mark.parametrize(
    ("conversation", "role", "content", "time"),
    [
        ("conversation_id", "role", "content", "timestamp"),
        ("Ticket", "sender_type", "message", "created_at"),
        ("thread_id", "author", "body", "time"),
        ("session_id", "speaker", "text", "date"),
    ],
)
def test_a_message_a_row_is_recognised(conversation: str, role: str, content: str, time: str) -> None:
    keys = {"conversation": conversation, "role": role, "content": content, "time": time}
    assert guess(chat(*keys.values())) == keys
    assert guess(chat(*keys.values()), role=role, conversation=conversation, content=content) == {}
    assert guess(chat(*keys.values()), conversation=conversation)["role"] == role


def test_a_chat_that_cannot_be_completed_says_what_is_missing() -> None:
    with pytest.raises(DataError, match="no column is clearly the role, content"):
        guess(rows(ticket=MOODS, a=ASKED), conversation="ticket")


@pytest.mark.parametrize("name", ["messages", "conversations", "anything"])
def test_lists_of_messages_are_recognised_by_what_they_are(name: str) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert guess(rows(**{"text": ASKED, name: [messages] * 12})) == {"messages": name}
    assert guess(rows(**{name: [json.dumps(messages)] * 12})) == {"messages": name}


def test_what_cannot_be_told_is_refused_with_the_columns_and_an_example() -> None:
    with pytest.raises(DataError) as raised:
        guess(rows(one=ASKED, two=SAID, three=ASKED))
    (fault,) = raised.value.faults
    assert "one ('How do I change my card today?')" in fault.problem
    assert 'prompt = "{one}" and answer = "{two}"' in fault.fix
    with pytest.raises(DataError, match=r"prompt = \"\{words\}\" and answer = \"\{reply\}\""):
        guess(rows(words=ASKED))


def test_the_example_names_a_column_like_an_answer_first() -> None:
    with pytest.raises(DataError, match=r'prompt = "\{one\}" and answer = "\{final_answer\}"'):
        guess(rows(final_answer=[f"{n}.5" for n in range(12)], one=ASKED, two=SAID, three=ASKED))


def test_a_few_grades_are_labels_and_sums_are_not() -> None:
    assert guess(rows(question=ASKED * 4, answer=["1", "2", "3"] * 16))["labels"] == ("1", "2", "3")
    assert "labels" not in guess(rows(question=ASKED * 4, answer=[str(n) for n in range(6)] * 8))


def test_a_sum_is_asked_where_its_column_says_so() -> None:
    sums = rows(question=[f"{n}+1?" for n in range(12)], title=SAID, answer=[str(n + 1) for n in range(12)])
    assert guess(sums) == {"prompt": "{question}", "answer": "{answer}"}


def test_a_worked_solution_comes_before_its_bare_result() -> None:
    found = rows(problem=ASKED, solution=SAID, answer=[f"{n}.5" for n in range(12)])
    assert guess(found)["answer"] == "{solution}"


def test_the_answer_never_stands_in_the_prompt() -> None:
    with pytest.raises(DataError, match="do not tell which is prompt and which answer"):
        guess(rows(instruction=ASKED, input=SAID, gold=[f"{n}.5" for n in range(12)]))


def test_a_code_that_repeats_is_no_answer() -> None:
    found = rows(question=ASKED, team=["cards", "loans", "online"] * 4, customer=[f"c{n % 11}" for n in range(12)])
    assert guess(found)["answer"] == "{team}"


def test_a_label_that_is_too_long_is_no_label() -> None:
    moods = [*MOODS[1:], "a whole sentence of more than six words"]
    assert guess(rows(text=ASKED, label=moods))["labels"] == ("bad", "good", "so so")


def test_a_lone_column_of_text_is_there_to_be_read() -> None:
    assert guess(rows(text=ASKED)) == {"text": "text"}


def test_a_missing_header_is_noticed() -> None:
    with pytest.raises(DataError, match="first line seems to be a row"):
        guess(rows(**{"I like it": ASKED, "hm": SAID, "good": MOODS, "x": MOODS}))


# -- files as users have them --------------------------------------------------------------------


def table(columns: dict[str, Sequence[str]], delimiter: str = ",", end: str = "\r\n") -> str:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return file.getvalue()


def trainable(path: Path) -> tuple[Domain, list[Item]]:
    domain = propose(path)
    return domain, make_items(domain, read_rows(domain, path))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16"])
@pytest.mark.parametrize("width", [0, 1, 37])
def test_any_export_comes_out_trainable(tmp_path: Path, delimiter: str, encoding: str, width: int) -> None:
    others = {f"Feld {number}": [f"{number}{row}" for row in range(12)] for number in range(width)}
    asked = [f'{text}\nGrüße; ja, "bald" | so\tgleich' for text in ASKED]
    path = tmp_path / "Support Fälle 2026.csv"
    path.write_bytes(table({**others, "Anfrage": asked, "Lösung": SAID}, delimiter).encode(encoding))
    domain, items = trainable(path)
    assert domain.name == "support-falle-2026"
    assert [item.messages[0].content for item in items] == asked
    assert [item.reference for item in items] == SAID
    assert domain.heldout == 0.3


def test_defaults_stay_where_there_are_rows_enough(tmp_path: Path) -> None:
    path = tmp_path / "faq.csv"
    path.write_text(table({"question": [f"{text} {n}" for n in range(5) for text in ASKED], "answer": SAID * 5}))
    assert propose(path) == Domain(name="faq", data=path.as_posix(), prompt="{question}", answer="{answer}")


def test_json_lines_are_proposed_too(tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    line = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})
    path.write_text(f"{line}\n{line}\n")
    domain, items = trainable(path)
    assert (domain.messages, len(items), domain.heldout) == ("messages", 2, 0.3)


def test_a_chat_counts_by_its_conversations(tmp_path: Path) -> None:
    path = tmp_path / "chat.csv"
    path.write_text(
        "ticket,sender,text\n" + "".join(f"{n // 4},{('user', 'bot')[n % 2]},word {n}\n" for n in range(80))
    )
    domain, items = trainable(path)
    assert (domain.conversation, domain.heldout, len(items)) == ("ticket", 0.3, 40)


def test_people_see_the_mapping_on_three_items(tmp_path: Path) -> None:
    path = tmp_path / "moods.csv"
    path.write_text(table({"text": ASKED, "label": MOODS}))
    shown = explain(*trainable(path))
    assert "labels       bad (4), good (4), so so (4)" in shown
    assert shown.count("→ answer") == 3
    assert f"{path.as_posix()}:2" in shown
    assert "Text: How do I change my card today?⏎Answer:" in shown


SNIPPETS = st.sampled_from(
    [
        "text",
        "label",
        "a,b",
        ",",
        ";",
        "\t",
        "\n",
        "\r\n",
        '"',
        "\0",
        "{",
        "}",
        "[",
        "]",
        ":",
        '"role"',
        '"user"',
        "1",
        "é",
        "\ufeff",
        " ",
    ]
)


@given(st.lists(SNIPPETS, max_size=30).map("".join), st.sampled_from([".csv", ".txt", ".jsonl", ".json"]))
@settings(max_examples=300, deadline=None)
def test_whatever_a_file_holds_it_is_read_or_refused(content: str, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{suffix}"
        path.write_bytes(content.encode())
        with contextlib.suppress(DataError):
            trainable(path)


def test_columns_of_which_nothing_is_taken_are_named() -> None:
    mapped = Domain(name="d", data="x.csv", prompt="{q} {choices}", choices=("a", "b"), answer="{right}", group="who")
    assert unused(mapped, ["q", "a", "b", "right", "who", "rating", "choices"]) == ["rating"]


@pytest.mark.parametrize("customers", [170, 60])
def test_customers_who_come_back_are_no_answer(tmp_path: Path, customers: int) -> None:
    """Their numbers repeat, but say nothing; the team is what a model can tell."""
    teams = ("billing", "technical", "returns")
    lines = [f"my parcel {n} did not arrive at home,{teams[n % 3]},cust{n * 7 % customers}" for n in range(377)]
    (tmp_path / "x.csv").write_text("\n".join(["question,team,customer", *lines]) + "\n")
    assert propose(tmp_path / "x.csv").answer == "{team}"


def test_a_better_and_a_worse_answer_are_a_pair(tmp_path: Path) -> None:
    rows = [{"question": f"how {n}?", "better": f"like this, {n}", "worse": "no idea at all"} for n in range(20)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = propose(tmp_path / "x.jsonl")
    assert (found.prompt, found.answer, found.rejected) == ("{question}", "{better}", "worse")


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.txt"])
def test_what_is_no_text_is_told_by_its_line(tmp_path: Path, name: str) -> None:
    """A picture, say, that was called a table."""
    path = tmp_path / name
    path.write_bytes(b"a,b\n\xff\x8d\x81,2\n")
    with pytest.raises(DataError, match=rf"{name}:2: byte 0x8d is not cp1252; save the file as UTF-8"):
        propose(path)
