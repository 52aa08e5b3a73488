"""Win rates, the sign test, position, agreement; and pairs that people judge blind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from metier.errors import RunError
from metier.evaluation.answers import Answer
from metier.evaluation.blinded import page_of, read_verdicts, tickets
from metier.evaluation.judging import says
from metier.evaluation.preferred import (
    SIDES,
    Contest,
    Position,
    Side,
    Verdict,
    agreement,
    count_wins,
    position,
)
from metier.report.blind import render
from metier.scores import kappa


def answer(number: int, output: str | None, **values: Any) -> Answer:
    base = {"domain": "d", "group": f"g{number}", "kind": "open", "reference": "r", "prompt": f"question {number}"}
    return Answer(id=str(number), place=f"d:{number}", output=output, **{**base, **values})


def contest(number: int, first: str | None = "short", second: str | None = "a longer one", **values: Any) -> Contest:
    return Contest(answer(number, first, **values), answer(number, second, **values))


def verdicts(*winners: Side, **values: Any) -> list[Verdict]:
    return [Verdict(contest(number, **values), winner) for number, winner in enumerate(winners)]


def test_a_tie_is_half_a_win_and_the_test_is_the_sign_test() -> None:
    (wins,) = count_wins(verdicts(*["second"] * 9, *["first"] * 2, *["tie"] * 4))
    assert (wins.won, wins.lost, wins.tied, wins.rate.value) == (9, 2, 4, (9 + 2) / 15)
    assert wins.rate.low < wins.rate.value < wins.rate.high
    assert wins.difference.p == pytest.approx(binomtest(9, 11).pvalue)
    assert (wins.difference.test, wins.difference.value) == ("exact sign test", pytest.approx(7 / 15))
    assert (wins.words, wins.longer, wins.decided) == ((1.0, 3.0), 9, 11)


def test_items_of_one_group_are_one_sign() -> None:
    (wins,) = count_wins(verdicts(*["second"] * 20, group="one conversation"))
    assert (wins.difference.p, wins.difference.verdict) == (1.0, "no difference shown")


def test_holm_is_over_the_domains() -> None:
    many = [*verdicts(*["second"] * 8), *verdicts(*["second"] * 8, domain="e")]
    assert [each.difference.p_adjusted for each in count_wins(many)] == [2 * 2 / 2**8] * 2


def test_position_tells_what_the_order_did() -> None:
    shown: list[tuple[Side, ...]] = [
        ("first", "first"),
        ("first", "second"),
        ("first", "second"),
        ("tie", "second"),
        (),
    ]
    found = position([Verdict(contest(number), "tie", orders) for number, orders in enumerate(shown)])
    assert found == Position(n=4, changed=3, first_place=6, second_place=1, ties=1)
    assert position(verdicts("first")) is None


def test_kappa_is_scikit_learn_s_on_every_drawn_sample() -> None:
    random = np.random.default_rng(3)
    ours, theirs = random.integers(0, 3, 40), random.integers(0, 3, 40)
    theirs[:15] = ours[:15]
    drawn_BN = random.integers(0, 3, size=(20, 40))
    for weights, found in zip(drawn_BN, kappa(ours, theirs, 3)(drawn_BN.astype(float)), strict=True):
        assert found == pytest.approx(cohen_kappa_score(ours, theirs, sample_weight=weights))
    assert kappa([0, 0], [0, 0], 3)(np.ones((1, 2)))[0] == 0


def test_agreement_is_over_the_items_that_both_judged() -> None:
    ours = verdicts("first", "second", "tie", "first")
    theirs: dict[tuple[str, str], Side] = {
        ("d", "0"): "first",
        ("d", "1"): "second",
        ("d", "2"): "first",
        ("e", "3"): "tie",
    }
    found = agreement(ours, theirs)
    assert found is not None
    assert (found.raw.value, found.raw.n) == (2 / 3, 3)
    assert found.kappa.value == pytest.approx(cohen_kappa_score([0, 1, 2], [0, 1, 0], labels=[0, 1, 2]))
    assert agreement(ours, {}) is None


def test_what_needs_no_judge() -> None:
    settled = [contest(1, "a", "a"), contest(2, None, None), contest(3, None, "a"), contest(4, "a", None), contest(5)]
    assert [each.settled for each in settled] == ["tie", "tie", "second", "first", None]


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("It is clearer. [[A]]", "first"),
        ("I'd say [[A]] … no: [[b]]", "second"),
        ("Both. [[ tie ]]", "tie"),
        ("A is better", None),
        ("", None),
    ],
)
def test_what_a_judge_says(text: str, side: Side | None) -> None:
    assert says(text) == side


# Blind


def test_people_see_no_side_and_their_verdicts_find_the_right_one(tmp_path: Path) -> None:
    contests = [contest(number, f"first {number}", f"second {number}") for number in range(60)]
    shown = tickets(contests)
    in_front = sum(each.one.startswith("first") for each in shown)
    assert 15 < in_front < 45
    assert [each.question for each in shown] != [each.first.prompt for each in contests]
    said = {each.key: "one" if each.one.startswith("second") else "two" for each in shown[:50]}
    path = tmp_path / "verdicts.json"
    path.write_text(json.dumps({"format": 1, "page": page_of(shown), "verdicts": said}))
    read = read_verdicts(path, contests)
    assert len(read) == 50
    assert {each.winner for each in read} == {SIDES[1]}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no json", "no verdicts of people"),
        ("[]", "no verdicts of people"),
        ('{"page": "other", "verdicts": {}}', "other runs"),
        ('{"page": "PAGE", "verdicts": {}}', "holds no verdict"),
        ('{"page": "PAGE", "verdicts": {"x": "left"}}', "'left' is no verdict"),
    ],
)
def test_a_file_that_is_none_of_this_page_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "verdicts.json"
    path.write_text(text.replace("PAGE", page_of(tickets([contest(1)]))))
    with pytest.raises(RunError, match=problem):
        read_verdicts(path, [contest(1)])


def test_no_answer_ends_the_page_s_data() -> None:
    page = render(tickets([contest(1, "</script><script>alert(1)</script>", "<!-- <b>x</b>")]))
    assert page.count("</script>") == 2
    assert "alert(1)" in page
