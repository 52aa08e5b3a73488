from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from metier.evaluation.answers import Answer
from metier.report.scoring import arrange, read_contrast, read_domains
from metier.report.sides import find_sides
from metier.scores import Difference

FEW = Difference("loss", -0.8, -0.92, -0.74, 0.062, 0.062, "paired bootstrap", 5, 5, False)


def pair(number: int, margin: float) -> Answer:
    kept = {"kind": "preference", "labels": ("yes", "no"), "reference": "yes", "prompt": "?", "place": f"f:{number}"}
    kept |= {"output": "no", "label_logprobs": (-90.0, -90.0 - margin), "logprob": -90.0, "tokens": 9}
    return Answer(id=f"{number}", domain="pairs", group=f"{number}", **kept)  # type: ignore[arg-type]


def label(number: int) -> Answer:
    kept = {"kind": "label", "labels": ("yes", "no"), "reference": "yes", "prompt": "?", "place": f"f:{number}"}
    output = "yes" if number % 4 else "no"
    return Answer(id=f"{number}", domain="bank", group=f"{number}", output=output, **kept)  # type: ignore[arg-type]


def test_what_is_not_out_of_100_stands_on_an_axis_of_its_own(bench: Any) -> None:
    made = bench("pairs", "bank")
    base = made.write("none", [*(pair(number, -62.0 - number) for number in range(8)), *map(label, range(8))])
    both = [*(pair(number, -40.0 - number) for number in range(8)), *map(label, range(8))]
    shared, own = arrange(read_domains(find_sides(made.write("lora", both, {"none": base}))))
    assert [domain.name for domain in shared] == ["bank"]
    assert [tick.label for tick in shared[0].ticks] == ["0", "20", "40", "60", "80", "100"]
    assert shared[0].marks[0].at == 75
    assert [tick.label for tick in own[0].ticks] == [f"\N{MINUS SIGN}{number}" for number in (60, 50, 40)]
    ours, untuned = own[0].marks
    assert 0 < untuned.low < untuned.at < untuned.high < ours.low < ours.at < ours.high < 100
    assert untuned.label == "\N{MINUS SIGN}65.50"


def test_a_run_without_the_primary_metric_is_headed_by_what_it_has(bench: Any) -> None:
    baseline = [replace(pair(number, 0.0), label_logprobs=(), logprob=None) for number in range(8)]
    ((domain,),) = arrange(read_domains(find_sides(bench("pairs").write("classical", baseline))))
    assert (domain.primary.label, [row.primary for row in domain.rows]) == ("accuracy", [True])


def test_why_an_interval_without_0_shows_nothing_is_said() -> None:
    def why(difference: Difference, **stored: str) -> str:
        return read_contrast({**asdict(difference), "verdict": difference.verdict, **stored}).why

    assert why(FEW) == "too few items to show it"
    assert not why(FEW, verdict="negligible")
