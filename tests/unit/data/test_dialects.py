"""Rows that other tools fold: unfolded where every row is so folded, left alone otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from metier.data.dialects import translate


def one(**values: Any) -> dict[str, Any]:
    (found,) = translate([values])
    return found


def test_segments_take_turns_and_lose_the_marks_at_their_ends() -> None:
    found = one(
        segments=[
            {"label": False, "text": "<s>Be kind. "},
            {"label": False, "text": "Why?"},
            {"label": True, "text": "So.</s>"},
            {"label": "false", "text": "And <s> then?"},
            {"label": "true", "text": "Thus.<|im_end|>\n"},
        ]
    )
    assert [(each["role"], each["content"]) for each in found["messages"]] == [
        ("user", "Be kind. Why?"),
        ("assistant", "So."),
        ("user", "And <s> then?"),
        ("assistant", "Thus."),
    ]


def test_axolotls_own_example_is_a_text_since_nothing_is_asked_first() -> None:
    said = [(True, "<s>Hello\n"), (True, "hi there!. "), (False, "goodbye "), (True, "farewell</s>")]
    found = one(segments=[{"label": label, "text": text} for label, text in said])
    assert found["text"] == "Hello\nhi there!. goodbye farewell"
    assert "messages" not in found


def test_the_best_two_by_rank_are_held_against_each_other() -> None:
    answers = [{"answer": name, "rank": rank} for name, rank in (("c", 10), ("b", 2.0), ("a", 1))]
    found = one(prompt="Why?", answers=answers)
    assert (found["chosen"], found["rejected"]) == ("a", "b")


def test_a_prompt_in_common_ends_with_a_word() -> None:
    found = one(chosen="The sky is blue.", rejected="The sky is black.")
    assert (found["prompt"], found["chosen"], found["rejected"]) == ("The sky is ", "blue.", "black.")


@pytest.mark.parametrize("beside", [{}, {"score_chosen": "8.5"}, {"margin": "1"}, {"id": "row 7"}])
def test_scores_beside_do_not_ask(beside: dict[str, str]) -> None:
    assert one(chosen="So it is.", rejected="So it was.", **beside)["prompt"] == "So it "


@pytest.mark.parametrize("beside", [{"prompt": "Is it so?"}, {"messages": [{"role": "user", "content": "So?"}]}])
def test_pairs_with_a_prompt_stay_whole(beside: dict[str, Any]) -> None:
    assert one(chosen="So it is.", rejected="So it was.", **beside)["chosen"] == "So it is."


def test_dialogues_keep_what_is_said_over_several_lines() -> None:
    text = "\n\nHuman: One?\n\nTwo?\n\nAssistant: Three.\n\nHuman: Four?\n\nAssistant: {}"
    found = one(chosen=text.format("Five."), rejected=text.format(""))
    said = [(each["role"], each["content"]) for each in found["chosen"]]
    assert said == [("user", "One?\n\nTwo?"), ("assistant", "Three."), ("user", "Four?"), ("assistant", "Five.")]
    assert found["rejected"][-1] == {"role": "assistant", "content": ""}


@pytest.mark.parametrize(
    "rows",
    [
        [{"segments": [{"label": True, "text": "a"}]}, {"segments": []}],
        [{"segments": "a text"}],
        [{"output": ["a", "b", "c"]}],
        [{"output": ["a", 1]}],
        [{"answers": ["a", "b"]}],
        [{"answers": [{"answer": "a", "rank": 1}]}],
        [{"conversation": "c1", "role": "user", "content": "Why?"}],
        [{"conversation": "[broken"}],
        [],
    ],
)
def test_what_is_no_dialect_stays_as_it_is(rows: list[dict[str, Any]]) -> None:
    assert translate(rows) == rows


def test_a_files_own_columns_are_never_replaced() -> None:
    found = one(output=["a", "b"], chosen="mine")
    assert (found["chosen"], found["rejected"]) == ("mine", "b")
