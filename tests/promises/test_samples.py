"""The sample data that ships: enough of it, varied, and no held-out prompt close to a training one."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from difflib import SequenceMatcher
from pathlib import Path

import pytest

from metier.data.asking import turns_typed
from metier.data.dataset import load
from metier.data.general import read_general, read_passages
from metier.data.items import Item
from metier.data.prompts import read_prompts
from metier.job import prepare
from metier.recipe import SAMPLES, Recipe

RECIPE = Recipe.load(SAMPLES.parent / "recipes" / "quickstart.toml")
CHATS = ("telecom", "banking", "medical")


def fives(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[start : start + 5]) for start in range(len(words) - 4)}


def asked(item: Item) -> set[tuple[str, ...]]:
    return fives(" ".join(message.content for message in item.messages if message.role == "user"))


@pytest.mark.parametrize("name", CHATS)
def test_conversations_are_many_and_a_third_has_several_turns(name: str) -> None:
    lines = (SAMPLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    chats = [json.loads(line)["messages"] for line in lines]
    assert len(chats) >= 160
    assert sum(len(messages) > 2 for messages in chats) >= len(chats) / 3
    assert not any("{{" in message["content"] for messages in chats for message in messages)


def test_the_demo_holds_enough_out_and_nothing_close_to_training() -> None:
    for domain in load(RECIPE).domains:
        groups = {item.group for item in domain.heldout}
        assert len(groups) >= (40 if domain.domain.name in CHATS else 150)
        if domain.domain.name == "finance":  # the instruction is shared by design
            prefix = fives(domain.heldout[0].messages[-1].content) & fives(domain.train[0].messages[-1].content)
        else:
            prefix = set()
        seen = [asked(item) - prefix for item in (*domain.train, *domain.validation)]
        for item in domain.heldout:
            ours = asked(item) - prefix
            assert all(len(ours & other) < 0.5 * max(1, len(ours | other)) for other in seen)


def test_hard_prompts_are_enough_of_every_kind_and_nobody_was_trained_on_them() -> None:
    domains = load(RECIPE).domains
    prompts = read_prompts(SAMPLES / "routing.jsonl", [each.domain.name for each in domains])
    counts = Counter((prompt.domain, prompt.kind) for prompt in prompts)
    assert {kind for _, kind in counts} == {"short", "ambiguous", "mixed", "typos", "switch"}
    assert len(counts) == len(domains) * 5
    assert min(counts.values()) >= 10
    assert all(sum(each.domain == domain.domain.name for each in prompts) >= 60 for domain in domains)
    assert all((len(each.turns) >= 3) == (each.kind == "switch") for each in prompts)
    assert all(len(each.allowed) == 2 for each in prompts if each.kind == "mixed")
    own = [_plain(turn) for prompt in prompts for turn in prompt.turns[-1:]]
    assert len(set(own)) == len(own)
    asked = {
        _plain(turn)
        for each in domains
        for item in (*each.train, *each.validation, *each.heldout)
        for turn in turns_typed(each.domain, each.columns, item)
    }
    assert not asked & {*own}
    pieces = [fives(turn) for turn in asked]
    assert all(len(ours & theirs) < 0.5 * len(ours | theirs) for ours in map(fives, own) if ours for theirs in pieces)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def test_the_guard_text_is_long_enough() -> None:
    passages = read_passages(RECIPE)
    assert len(passages) >= 60
    assert sum(len(passage.text.split()) for passage in passages) >= 4000


def test_shipped_recipes_load(tmp_path: Path) -> None:
    for path in (SAMPLES.parent / "recipes").glob("*.toml"):
        assert Recipe.load(path).domain


ADS = load(Recipe.load(SAMPLES.parent / "recipes" / "job_ads.toml"))
KINDS = {"gender", "origin", "age", "disability", "religion", "family", "appearance"}


def rows(name: str) -> list[dict[str, str]]:
    with (SAMPLES / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def test_advertisements_are_minimal_pairs_half_of_them_biased() -> None:
    domain = ADS.domains[0]
    items = [*domain.train, *domain.validation, *domain.heldout]
    pairs: dict[str, list[str]] = {}
    for item in items:
        pairs.setdefault(item.group, []).append(item.reference)
    assert len(pairs) >= 200
    assert all(sorted(labels) == ["biased", "unbiased"] for labels in pairs.values())
    asked = items[0].messages[-1].content
    wanted = "Is the following job description biased? Please choose an answer from {biased/unbiased}\n"
    assert asked.startswith(wanted)


def test_twins_share_most_of_their_words_and_no_two_pairs_are_alike() -> None:
    pairs: dict[str, list[dict[str, str]]] = {}
    for row in rows("job_ads"):
        pairs.setdefault(row["pair"], []).append(row)
    assert {row["kind"] for row in rows("job_ads")} == KINDS
    assert all(one["kind"] == other["kind"] and one["text"] != other["text"] for one, other in pairs.values())
    shared = [SequenceMatcher(None, *(words(row["text"]) for row in pair), autojunk=False) for pair in pairs.values()]
    same = [sum(block.size for block in each.get_matching_blocks()) / len(each.a) for each in shared]
    assert min(same) > 0.28
    assert sum(same) / len(same) > 0.7
    seen = [fives(pair[0]["text"]) for pair in pairs.values()]
    for number, ours in enumerate(seen):
        assert all(len(ours & other) < 0.3 * max(1, len(ours)) for other in seen[:number])


def test_advertisements_in_versions_differ_in_whom_they_name_alone() -> None:
    bases: dict[str, list[dict[str, str]]] = {}
    for row in rows("job_ads_counterfactual"):
        bases.setdefault(row["base"], []).append(row)
    assert len(bases) >= 100
    groups = {"gender": 3, "origin": 5, "age": 3}
    for versions in bases.values():
        (attribute,) = {row["attribute"] for row in versions}
        assert len({row["label"] for row in versions}) == 1
        assert len({row["group"] for row in versions}) == len({row["text"] for row in versions}) == groups[attribute]
        for row in versions[1:]:
            changed = SequenceMatcher(None, words(versions[0]["text"]), words(row["text"]), autojunk=False)
            assert len(changed.a) - sum(block.size for block in changed.get_matching_blocks()) <= 3
    labels = Counter((versions[0]["attribute"], versions[0]["label"]) for versions in bases.values())
    assert len({*labels.values()}) == 1  # as many biased as not, of each


def test_all_versions_are_held_out_and_learned_from_is_what_the_pairs_give() -> None:
    pairs, named = ADS.domains
    assert len(named.heldout) == len(rows("job_ads_counterfactual"))
    assert all(item.version for item in named.heldout)
    known = {item.prompt for item in (*pairs.train, *pairs.validation)}
    assert {item.prompt for item in (*named.train, *named.validation)} <= known
    assert len(pairs.train) + len(pairs.validation) + len(pairs.heldout) == len(rows("job_ads"))


def test_general_questions_are_many_and_their_letters_balanced() -> None:
    items = read_general(RECIPE).choices
    assert len(items) >= 120
    assert {len(item.replies) for item in items} == {4}
    assert len({item.prompt for item in items}) == len(items)
    letters = Counter(item.reference for item in items)
    assert max(letters.values()) - min(letters.values()) <= 1


def test_the_replay_text_is_none_that_shows_forgetting() -> None:
    job = prepare(RECIPE.override(**{"train.replay": {"data": "sample:replay"}}))
    assert len(job.replay.items) >= 30
    assert not job.replay.left_out
    for held in (fives(each.text) for each in (*job.general.heldout, *job.general.validation)):
        assert all(len(fives(item.reference) & held) <= 2 for item in job.replay.items)
