from __future__ import annotations

from pathlib import Path

import pytest

from metier.data.items import Item, Message
from metier.errors import DataError, FaultsError
from metier.evaluation.words import Rule, WordLists

LISTS = """
otherwise = "calm"
[[rule]]
label = "loud"
words = ["shout*", "very  loud", "(!)"]
[[rule]]
name = "several"
label = "loud"
least = 2
words = ["bang", "boom", "bang"]
"""


def item(text: str, labels: tuple[str, ...] = ("loud", "calm")) -> Item:
    return Item(text, "noise", text, "noise.csv:2", 0, (Message("user", text),), labels, kind="label")


def opened(tmp_path: Path, text: str = LISTS) -> WordLists:
    (tmp_path / "own.toml").write_text(text)
    return WordLists.open("own.toml", tmp_path)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("They SHOUTED.", "loud"),
        ("Shout", "loud"),
        ("outshouted", "calm"),
        ("It is very\nloud here", "loud"),
        ("very, loud", "calm"),
        ("so it is (!) then", "loud"),
        ("bang", "calm"),
        ("bang bang bang", "calm"),  # one entry, however often it stands there
        ("Bang and boom", "loud"),
        ("banging booms", "calm"),
        ("", "calm"),
    ],
)
def test_the_first_rule_that_speaks_gives_the_label(tmp_path: Path, text: str, label: str) -> None:
    (answer,) = opened(tmp_path).answers([item(text)])
    assert answer.output == label
    assert answer.reference == "loud"
    assert answer.logprob is None


def test_the_shipped_list_is_found_by_its_name_and_has_no_entry_twice(tmp_path: Path) -> None:
    shipped = WordLists.open("job-ads", tmp_path)
    assert shipped.labels == {"biased", "unbiased"}
    assert all(len({*each.words}) == len(each.words) for each in shipped.rule)
    ads = ["Clerk, men only.", "Clerk. You lead a team and decide.", "Clerk wanted; he files.", "No children's books."]
    said = [each.output for each in shipped.answers([item(ad, ("biased", "unbiased")) for ad in ads])]
    assert said == ["biased", "unbiased", "biased", "biased"]  # the last: it knows no context


def test_four_coded_words_are_many_and_three_are_not(tmp_path: Path) -> None:
    shipped = WordLists.open("job-ads", tmp_path)
    three, four = "ambitious, driven and fearless", "ambitious, driven, fearless and dominant"
    assert [each.output for each in shipped.answers([item(three), item(four)])] == ["unbiased", "biased"]


def test_the_digest_is_of_what_the_list_says(tmp_path: Path) -> None:
    one = opened(tmp_path).digest
    assert opened(tmp_path, f"# a remark\n{LISTS}").digest == one
    assert opened(tmp_path, LISTS.replace("boom", "room")).digest != one


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LISTS.replace("least = 2", "least = 0"), "rule.1.least"),
        (LISTS.replace('"bang", "boom", "bang"', ""), "rule.1.words"),
        (LISTS.replace('"boom"', '"bo*m"'), "rule.1.words.1"),
        (LISTS.replace('"boom"', '" * "'), "rule.1.words.1"),
        (LISTS.replace("label", "labels", 1), "rule.0.label"),
        ('otherwise = "calm"', "rule"),
        ("otherwise =", "is not TOML"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(FaultsError, match=told) as caught:
        opened(tmp_path, text)
    assert "own.toml" in str(caught.value)


def test_a_list_that_is_not_there_is_refused_with_those_that_ship(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no job-adds; did you mean .?job-ads"):
        WordLists.open("job-adds", tmp_path)


def test_items_without_its_labels_are_refused(tmp_path: Path) -> None:
    lists = opened(tmp_path)
    lists.check([item("a"), item("b", ("calm", "loud", "silent"))])
    for labels in (("loud", "quiet"), ("calm",)):
        with pytest.raises(DataError, match="domain noise: does not have the labels calm, loud"):
            lists.check([item("a"), item("b", labels)])
    with pytest.raises(DataError, match="does not have the labels"):
        lists.check([Item("a", "noise", "a", "f:1", 0, (Message("user", "a"),), ("calm",))])


def test_a_rule_counts_entries() -> None:
    assert Rule(label="x", words=("a", "b"), least=2).speak("b a")
    assert not Rule(label="x", words=("a", "b"), least=2).speak("a a")
