from __future__ import annotations

import json

import pytest

from metier.data.items import Item, Message
from metier.data.rendering import Renderer
from metier.data.shots import Sampler, Shots
from tests.unit import tiny

RENDERER = Renderer(tiny.tokenizer())
ROOM = 10_000

LABELS = ("bad", "good")


def item(number: int, text: str, answer: int = 0, group: str = "", system: str = "") -> Item:
    begin = (Message("system", system),) if system else ()
    messages = (*begin, Message("user", text))
    return Item(f"i{number}", "d", group or f"g{number}", f"f:{number}", number, messages, LABELS, answer, "label")


TRAIN = [
    item(number, f"text {number} about {'cards' if number % 3 else 'loans'}", number % 5 == 0) for number in range(30)
]


def shown(shots: Shots, asked: Item) -> list[str]:
    (found,) = shots.in_front_of([asked], RENDERER)
    return [message.content for example in found.shots for message in example]


@pytest.mark.parametrize("sampler", ["random", "stratified", "nearest"])
def test_examples_are_questions_with_their_answers_and_the_same_every_time(sampler: Sampler) -> None:
    asked = item(99, "a text about loans")
    first, second = (Shots.choose(TRAIN, 4, sampler, room=ROOM, seed=3) for _ in range(2))
    assert shown(first, asked) == shown(second, asked)
    (found,) = first.in_front_of([asked], RENDERER)
    assert [message.role for example in found.shots for message in example] == ["user", "assistant"] * 4
    replies = {each.messages[-1].content: each.reference for each in TRAIN}
    said = shown(first, asked)
    assert all(replies[question] == reply for question, reply in zip(said[::2], said[1::2], strict=True))


def test_stratified_examples_have_every_label_alike() -> None:
    assert (
        sorted(shown(Shots.choose(TRAIN, 6, "stratified", room=ROOM, seed=1), item(99, "x"))[1::2])
        == ["bad"] * 3 + ["good"] * 3
    )


def test_the_nearest_stands_beside_the_question() -> None:
    said = shown(Shots.choose(TRAIN, 3, "nearest", room=ROOM, seed=1), item(99, "text 12 about loans"))
    assert said[-2] == "text 12 about loans"
    assert all("loans" in question for question in said[::2])


@pytest.mark.parametrize("sampler", ["random", "nearest"])
def test_nobody_is_shown_an_example_of_their_own_group(sampler: Sampler) -> None:
    train = [item(number, f"text {number // 2}", group=f"g{number // 2}") for number in range(8)]
    shots = Shots.choose(train, 6, sampler, room=ROOM, seed=1)
    for each in train:
        assert each.messages[-1].content not in shown(shots, each)[::2]
        assert len(shown(shots, each)) == 12


def test_examples_stand_between_system_prompt_and_conversation() -> None:
    (found,) = Shots.choose(TRAIN, 1, "random", room=ROOM, seed=1).in_front_of(
        [item(99, "x", system="Be kind.")], RENDERER
    )
    assert [message.role for message in found.asked] == ["system", "user", "assistant", "user"]
    assert (found.asked[0].content, found.asked[-1].content) == ("Be kind.", "x")
    assert [message.role for message in found.messages] == ["system", "user"]


@pytest.mark.parametrize("sampler", ["stratified", "nearest"])
def test_what_is_written_shows_the_same_again(sampler: Sampler) -> None:
    shots = Shots.choose(TRAIN, 3, sampler, room=ROOM, seed=2)
    again = Shots.of_json(json.loads(json.dumps(shots.to_json())))
    asked = item(99, "text 7 about cards")
    assert [message.content for message in again.in_front_of([asked], RENDERER)[0].asked[:-1]] == shown(shots, asked)


@pytest.mark.parametrize("sampler", ["random", "nearest"])
def test_examples_make_room_the_farthest_first(sampler: Sampler) -> None:
    asked, whole = item(99, "text 7 about cards"), Shots.choose(TRAIN, 3, sampler, room=ROOM, seed=2)
    (full,) = whole.in_front_of([asked], RENDERER)
    room = len(RENDERER.prompt_ids(full.asked)) - 1
    (found,) = Shots.choose(TRAIN, 3, sampler, room=room, seed=2).in_front_of([asked], RENDERER)
    assert found.shots == full.shots[1:]
