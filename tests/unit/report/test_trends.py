from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from metier.evaluation.lines import Runs
from metier.report.entrants import Entrant, find_entrants, speakers
from metier.report.pictures import Tick
from metier.report.ranking import draw_forests
from metier.report.tradeoffs import draw_forgetting, read_crossing
from metier.report.trends import _spaced, doubling, draw_examples, draw_learning
from tests.unit.report import contests

Found = tuple[dict[str, Any], tuple[Entrant, ...]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    values, runs = contests.large(tmp_path_factory.mktemp("trends"))
    return values["table"], find_entrants(values["table"], Runs(runs))


def numbers(path: str) -> list[float]:
    return [float(each) for each in re.findall(r"-?[\d.]+", path)]


def test_every_picture_s_marks_are_in_sight(found: Found) -> None:
    table, entrants = found
    examples, forgetting = draw_examples(table, entrants), draw_forgetting(entrants)
    assert examples
    assert forgetting
    charts = [
        *examples.charts,
        forgetting,
        *(chart for each in draw_learning(table, entrants) for chart in each.charts),
    ]
    for chart in charts:
        assert all(0 <= number <= 1000 for number in numbers(chart.behind + chart.line))
        spots = [(spot.x, spot.y, *(spot.across or ()), *(spot.up or ())) for spot in chart.spots]
        assert all(0 <= place <= 100 for spot in spots for place in spot)
        assert all(0 <= tick.at <= 100 for tick in (*chart.across, *chart.up, *chart.levels, *chart.uprights))
    for forest in draw_forests(table, entrants):
        assert all(
            0 <= end <= 100 for bar in forest.bars if bar.mark for end in (bar.mark.low, bar.mark.at, bar.mark.high)
        )


def test_who_was_validated_on_one_domain_is_drawn_apart_and_without_the_others(found: Found) -> None:
    everywhere, alone = draw_learning(*found)
    assert {each.name for each in alone.charts} == {f"LoRA, r = 16, on {domain} alone" for domain in contests.DOMAINS}
    assert not any(each.behind for each in alone.charts)
    assert all(each.behind for each in everywhere.charts)


def test_three_seeds_are_three_strokes_and_three_kept_steps(found: Found) -> None:
    best = draw_learning(*found)[0].charts[0]
    assert best.line.count("M") == len(best.spots) == 3


def test_a_doubling_is_a_step_of_equal_width(found: Found) -> None:
    table, entrants = found
    points = [
        {**point, "examples": count}
        for point, count in zip(table["curves"][0]["points"], (50, 100, 200, 400), strict=True)
    ]
    curves = [{**table["curves"][0], "points": points}]
    drawn = draw_examples({**table, "curves": curves}, entrants)
    assert drawn
    places = [spot.x for spot in drawn.charts[0].spots]
    assert places[1] - places[0] == pytest.approx(places[3] - places[2], abs=0.02)


def test_labels_that_would_touch_are_left_out_but_never_the_last() -> None:
    kept = _spaced([Tick(0, "50"), Tick(5, "60"), Tick(50, "200"), Tick(95, "990"), Tick(100, "1,000")])
    assert [tick.label for tick in kept] == ["60", "200", "1,000"]


def test_a_doubling_without_a_slope_says_nothing() -> None:
    assert not doubling({"per_doubling": None})
    minus = "\N{MINUS SIGN}"
    unshown = doubling({"per_doubling": {"value": -0.0006, "low": -0.022, "high": 0.021}})
    assert unshown == f"that doubling them adds anything is not shown: {minus}0.1 [{minus}2.2, +2.1]"
    shown = doubling({"per_doubling": {"value": 0.06, "low": 0.02, "high": 0.1}})
    assert shown == "doubling them is expected to add +6.0 [+2.0, +10.0]"


def test_in_a_crowd_the_marked_bear_their_numbers(found: Found) -> None:
    chart = draw_forgetting(found[1])
    assert chart
    assert [spot.look for spot in chart.spots][-2:] == ["recommended", "best"]
    labels = {spot.look: spot.label for spot in chart.spots}
    assert (labels["best"], labels["recommended"]) == ("1", "2")
    assert any(not spot.label for spot in chart.spots)


def test_the_framed_domains_are_those_that_were_learned_from(found: Found) -> None:
    crossing = read_crossing(*found)
    assert crossing
    own = {entrant.name: [place.own for place in places if place] for entrant, places in crossing.rows}
    assert own["LoRA, r = 16"] == [False] * 5  # one for all: there is nothing to tell apart
    assert own["LoRA, r = 16, on law alone"] == [False, False, True, False, False]
    assert own["LoRA, r = 16, per domain"] == [True] * 5


def test_the_recommended_speaks_first_then_its_base_and_nobody_twice(found: Found) -> None:
    entrants = found[1]
    names = [each.name for each in speakers(entrants, 4)]
    assert names[:3] == ["LoRA, r = 16", "untuned base · nano", entrants[0].name]
    assert len(set(names)) == 4


def test_who_only_repeats_another_s_answers_is_not_shown(tmp_path: Path) -> None:
    made = contests.Contest(tmp_path)
    for name, level in (("A", 0.8), ("B", 0.7), ("C", 0.6)):
        made.add(name, level)
    made.lines[2]["same_as"] = "B"
    entrants = find_entrants(made.values()["table"], Runs(made.runs))
    assert [each.name for each in speakers(entrants, 5)] == ["B", "A"]
