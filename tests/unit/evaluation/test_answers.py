from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metier.errors import RunError
from metier.evaluation.answers import Answer, from_json, read_answers, to_json

ANSWER = Answer(
    id="3f", domain="bank", group="c1", kind="label", place="bank.jsonl:7", prompt="user: hi", reference="yes"
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    output=st.none() | TEXT,
    prompt=TEXT,
    labels=st.lists(TEXT).map(tuple),
    label_logprobs=st.lists(FINITE).map(tuple),
    logprob=st.none() | FINITE,
    tokens=st.none() | st.integers(0, 2**31),
    stopped=st.none() | st.booleans(),
    kl=st.none() | FINITE,
    failed=TEXT,
)
def test_json_and_back_is_identity_in_one_line(**values: object) -> None:
    answer = replace(ANSWER, **values)  # type: ignore[arg-type]
    line = to_json(answer)
    assert "\n" not in line
    back = from_json(line)
    assert back == answer
    assert repr(back) == repr(answer)  # -0.0 and types too


def test_keys_without_value_are_left_out_but_empty_output_is_a_value() -> None:
    assert list(json.loads(to_json(ANSWER))) == [
        "id",
        "domain",
        "group",
        "kind",
        "place",
        "prompt",
        "reference",
    ]
    given_values = replace(ANSWER, output="", stopped=False, logprob=0.0, new_tokens=0)
    assert (
        json.loads(to_json(given_values)).items()
        >= {
            "output": "",
            "stopped": False,
            "logprob": 0.0,
            "new_tokens": 0,
        }.items()
    )


def test_text_stays_readable() -> None:
    assert "Grüße 你好" in to_json(replace(ANSWER, output="Grüße 你好"))


def test_nan_is_refused_in_both_directions() -> None:
    with pytest.raises(ValueError):
        to_json(replace(ANSWER, logprob=float("nan")))
    with pytest.raises(ValueError):
        from_json(to_json(replace(ANSWER, logprob=1.5)).replace("1.5", "NaN"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"label"', '"labels"'),  # no such kind
        ('"id": "3f", ', ""),  # a key too few
        ('"id"', '"loss": 1.0, "id"'),  # a key too many
        ('"id"', '"tokens": "7", "id"'),  # text is no number
    ],
)
def test_what_is_no_answer_is_refused(old: str, new: str) -> None:
    with pytest.raises(ValueError):
        from_json(to_json(ANSWER).replace(old, new))


def test_a_file_is_read_in_order_whatever_its_texts_contain(tmp_path: Path) -> None:
    answers = [replace(ANSWER, id=str(number), output="a\u2028b\x85c\r\nd") for number in range(3)]
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b"".join(to_json(answer).encode() + b"\n" for answer in answers))
    assert read_answers(path) == answers


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    whole = to_json(replace(ANSWER, output="Grüße")).encode()
    path = tmp_path / "answers.jsonl"
    for end in range(len(whole)):
        path.write_bytes(whole + b"\n" + whole[:end])
        assert len(read_answers(path)) == 1


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(to_json(ANSWER) + "\n" + to_json(ANSWER).replace('"label"', '"lable"') + "\n")
    with pytest.raises(RunError, match=r"answers\.jsonl:2: not an answer: kind: Input should be 'label'"):
        read_answers(path)
    path.write_text('{"id": \n')
    with pytest.raises(RunError, match=r"answers\.jsonl:1: not an answer: line: Invalid JSON"):
        read_answers(path)
