"""The trade-off's picture and the general questions that changed, in a page and on a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from metier.report.page import write_report
from metier.report.weighing import read_choices, read_tradeoff
from metier.tables import guard_line, score_parts

POINTS = [{"scale": 0.25 * n, "score": 0.2 + 0.1 * n, "forgetting": 0.05 * n * n} for n in range(5)]
TRADEOFF = {"points": POINTS, "recommended": 0.75, "why": "it <keeps> enough"}
LOST = {"id": "q1", "place": "q:1", "prompt": "Where is <b>Rome</b>?", "reference": "A", "before": "A", "after": None}
CHOICES = {
    **{"metric": "accuracy", "value": -0.1, "low": -0.2, "high": 0.0, "p": 0.03, "p_adjusted": 0.03, "n": 40},
    **{"test": "exact McNemar", "verdict": "worse", "before": 0.5, "after": 0.4, "lost": [LOST], "gained": []},
}


def test_more_is_up_and_less_forgotten_left() -> None:
    found = read_tradeoff({"tradeoff": TRADEOFF})
    assert found
    assert [each.x for each in found.dots] == sorted(each.x for each in found.dots)
    assert [each.y for each in found.dots] == sorted((each.y for each in found.dots), reverse=True)
    assert [each.label for each in found.dots if each.recommended] == ["0.75"]
    assert found.rows[1] == ("0.25", "0.300", "+0.050")
    alone = read_tradeoff({"tradeoff": {**TRADEOFF, "points": POINTS[-1:]}})
    assert alone
    assert not alone.dots
    assert read_tradeoff({}) is None
    assert read_choices({"general_choices": None}) is None


def test_a_page_shows_both_and_escapes_what_it_quotes(bench: Callable[..., Any]) -> None:
    made = bench("bank")
    text = {"metric": "loss", "value": 0.3, "low": 0.2, "high": 0.4, "p": 0.01, "p_adjusted": 0.01, "n": 8, "groups": 8}
    run = made.write("lora", [])
    forgot = {**text, "test": "paired bootstrap", "higher_is_better": False, "verdict": "worse"}
    domain = {"domain": "general_text", "kind": "text", "n": 8, "failed": 0, "unparsed": 0, "scores": [text]}
    scores = {**run.scores(), "forgetting": forgot, "general_choices": CHOICES, "tradeoff": TRADEOFF}
    run.write_scores({**scores, "domains": [domain]})
    page = write_report(run).read_text()
    assert "it &lt;keeps&gt; enough" in page
    assert page.count('class="ring"') == 1
    assert "Where is &lt;b&gt;Rome&lt;/b&gt;?" in page
    assert "General questions: 40.0 % right, before 50.0 %; 1 lost, 0 gained, worse" in page


def test_the_terminal_says_both_and_each_guard_in_its_unit() -> None:
    scores = {"domains": [], "against": {}, "forgetting": None, "guard": {}}
    told = "\n".join(map(str, score_parts({**scores, "tradeoff": TRADEOFF, "general_choices": CHOICES}, {})))
    assert "recommended strategy.scale: 0.75; it <keeps> enough" in told
    assert "1 lost, 0 gained, worse (exact McNemar" in told
    assert guard_line("general_choices", {"value": 0.031, "limit": 0.02}) == "+3.1 of at most +2.0 points lost"
    assert guard_line("general_text", {"value": 0.031, "limit": 0.1}) == "+0.031 of at most +0.100 nats a token"
