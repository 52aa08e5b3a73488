from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from metier.data.templates import Template, answer_template, closed_set, fill, prompt_template, template_faults
from metier.domain import Domain


def domain(**keys: Any) -> Domain:
    return Domain(name="d", data="x", **keys)


def faults(columns: list[str], **keys: Any) -> list[str]:
    return [str(fault) for fault in template_faults(domain(**keys), columns)]


@given(st.text("{}ab"), st.text("{}ab"))
def test_what_a_value_contains_is_never_filled_again(one: str, other: str) -> None:
    assert fill("{a}-{b}", {"a": one, "b": other}) == f"{one}-{other}"


@given(st.text("{}\"':, xyz"))
def test_braces_around_anything_else_stay(text: str) -> None:
    assert fill(text, {"name": "value"}) == text


def test_instruction_and_labels_are_written_into_the_prompt() -> None:
    asked = domain(prompt="{instruction}\n{text} {{x}}", instruction="One of {{labels}}.", labels=("no", "yes"))
    assert prompt_template(asked, ["text"]) == Template("One of {no/yes}.\n{text} {{x}}", ("text",))


def test_columns_named_like_the_specials_are_columns_where_nothing_special_is_set() -> None:
    plain = domain(prompt="{instruction}\n\n{input}", answer="{labels}")
    assert prompt_template(plain, ["instruction", "input"]).columns == ("instruction", "input")
    labelled = domain(prompt="{text}", answer="{labels}", labels=("a", "b"))
    assert answer_template(labelled, ["text", "labels"]).columns == ("labels",)


def test_names_of_columns_may_have_spaces() -> None:
    template = prompt_template(domain(prompt="{Customer question}"), ["Customer question"])
    assert template.fill({"Customer question": "Why?"}) == "Why?"


def test_line_ends_beside_an_empty_column_go_but_the_template_s_own_space_stays() -> None:
    assert Template("{a}\n\n{b}", ("a", "b")).fill({"a": "Do it", "b": ""}) == "Do it"
    assert Template("In: {a}\nAnswer: ", ("a",)).fill({"a": "x"}) == "In: x\nAnswer: "


def test_a_template_with_nothing_of_the_row_is_empty() -> None:
    assert Template("Text: {a}\nAnswer:", ("a",)).fill({"a": ""}) == ""


def test_a_missing_column_is_one_fault_with_the_nearest_name() -> None:
    found = faults(["question", "response"], prompt="{qestion} {qestion}", answer="{response}")
    problem = "names {qestion}, which is no column; did you mean `question`?"
    assert found == [f"domain d: prompt: {problem}; columns are question, response"]
    assert faults(["question", "response"], prompt='{question} {"a": 1} {{x}} {0, 1}', answer="{response}") == []


def test_specials_without_their_key_are_faults() -> None:
    assert "write the domain's instruction" in faults(["t"], prompt="{instruction} {t}", answer="{t}")[0]
    assert "give labels or label_map" in faults(["t"], prompt="{labels} {t}", answer="{t}")[0]
    assert "is not used" in faults(["t"], prompt="{t}", answer="{t}", instruction="Say")[0]
    assert "one label only" in faults(["t"], prompt="{t}", answer="{t}", label_map={"0": "a", "1": "a"})[0]


def test_a_label_map_is_a_closed_set_in_its_order() -> None:
    assert closed_set(domain(label_map={"2": "b", "1": "a", "3": "b"})) == ("b", "a")
    assert closed_set(domain(label_map={"1": "a"}, labels=("a", "c"))) == ("a", "c")
    assert closed_set(domain()) == ()
