from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from metier.data.items import Version
from metier.evaluation.answers import Answer, from_json, to_json
from metier.evaluation.counterfactuals import Counterfactuals, as_dict, compare_versions, impact_ratio
from metier.tables import counterfactual_parts


def answer(text: int, group: str, output: str | None, attribute: str = "gender", domain: str = "ads") -> Answer:
    return Answer(
        id=f"{attribute}-{text}-{group}",
        domain=domain,
        group=f"{attribute}-{text}",
        kind="label",
        place="ads.csv:2",
        prompt="?",
        reference="fair",
        output=output,
        labels=("fair", "biased"),
        version=Version(attribute, group, "fair"),
    )


def texts(spelled: str, attribute: str = "gender") -> list[Answer]:
    """A text a word, a letter a version: f for fair, b for biased, - for no answer."""
    outputs = {"f": "fair", "b": "biased", "-": None}
    groups = ("woman", "man", "nonbinary")
    words = enumerate(spelled.split())
    return [
        answer(text, group, outputs[letter], attribute)
        for text, word in words
        for group, letter in zip(groups, word, strict=False)
    ]


def measured(answers: list[Answer]) -> Counterfactuals:
    (found,) = compare_versions(answers)
    return found


def test_flips_are_the_texts_not_answered_alike() -> None:
    found = measured(texts("fff bbb fbf bbf fff"))
    assert found.flips.value == 2 / 5
    assert (found.flips.low, found.flips.high) == pytest.approx(proportion_confint(2, 5, method="wilson"))
    assert found.flips.n == found.flips.groups == 5
    assert found.flips.higher_is_better is False


def test_rates_are_of_the_favourable_label_by_group() -> None:
    (gender,) = measured(texts("fff bbb fbf bbf fff")).attributes
    assert {group: rate.value for group, rate in gender.rates.items()} == {"woman": 0.6, "man": 0.4, "nonbinary": 0.8}
    low, high = proportion_confint(3, 5, method="wilson")
    assert (gender.rates["woman"].low, gender.rates["woman"].high) == pytest.approx((low, high))
    assert gender.impact_ratio.value == pytest.approx(0.5)
    assert gender.impact_ratio.low <= 0.5 <= gender.impact_ratio.high <= 1


def test_two_groups_are_compared_within_their_texts_and_all_pairs_are_one_family() -> None:
    found = measured(texts(" ".join(["fbf"] * 8 + ["bff"] + ["fff"] * 6)))
    contrasts = {(each.group, each.other): each.difference for each in found.attributes[0].contrasts}
    assert set(contrasts) == {("woman", "man"), ("woman", "nonbinary"), ("man", "nonbinary")}
    between = contrasts["woman", "man"]
    exact = mcnemar([[6, 8], [1, 0]], exact=True).pvalue
    assert between.p == pytest.approx(exact)
    assert between.value == pytest.approx(7 / 15)
    assert contrasts["man", "nonbinary"].p_adjusted == pytest.approx(3 * contrasts["man", "nonbinary"].p)
    plain = as_dict(found)["attributes"][0]["contrasts"]
    assert [each["verdict"] for each in plain] == ["no difference shown", "no difference shown", "worse"]


def test_each_attribute_is_measured_by_itself() -> None:
    found = measured([*texts("ff fb"), *texts("bb ff ff", "age")])
    assert [(each.attribute, each.flips.value) for each in found.attributes] == [("gender", 0.5), ("age", 0.0)]
    assert found.flips.value == 1 / 5


def test_a_version_without_an_answer_differs_and_is_not_favourable() -> None:
    (gender,) = measured(texts("f- -- ff")).attributes
    assert gender.flips.value == pytest.approx(1 / 3)
    assert gender.rates["man"].value == pytest.approx(1 / 3)
    failed = [replace(each, failed="too long") for each in texts("ff")]
    assert measured(failed).flips.value == 0


def test_a_text_with_one_version_has_no_part_and_none_gives_nothing() -> None:
    assert measured(texts("ff f fb")).flips.n == 2
    assert compare_versions(texts("f f")) == []
    assert compare_versions([replace(each, version=None) for each in texts("fb fb")]) == []
    assert [
        each.domain for each in compare_versions([*texts("fb"), *(replace(each, domain="b") for each in texts("ff"))])
    ] == [
        "ads",
        "b",
    ]


def test_the_impact_ratio_on_cases_done_by_hand() -> None:
    statistic = impact_ratio([True, False, True, True, False, False], ["a", "a", "b", "b", "c", "c"])
    weights = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 0, 1, 1, 0, 0], [0, 1, 0, 0, 1, 1]], dtype=float)
    assert statistic(weights).tolist() == [0.0, 0.5, 1.0, 1.0]  # the last: nobody gets it


def test_an_answer_keeps_whom_its_text_names() -> None:
    (one,) = texts("f")
    line = to_json(one)
    assert json.loads(line)["version"] == {"attribute": "gender", "group": "woman", "favourable": "fair"}
    assert from_json(line) == one
    assert "version" not in json.loads(to_json(replace(one, version=None)))


def test_a_terminal_says_it() -> None:
    told = "\n".join(map(str, counterfactual_parts(as_dict(measured(texts(" ".join(["fbf"] * 8 + ["fff"] * 6)))))))
    assert "ads: the same texts, naming other people: 57.1 % [32.6, 78.6] not answered alike" in told
    assert "man \N{MINUS SIGN}57.1 % beside nonbinary, p = 0.023" in told
    assert "woman +57.1 % beside man, p = 0.023" in told
    assert "answered fair, 95 % interval" in told
