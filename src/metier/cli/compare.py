"""`metier compare`: strategies side by side, two finished runs, or a report checked against its runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metier.cli.common import Json, Offline, PlanSet, Progress, Set, emit, overrides, say
from metier.errors import MetierError
from metier.tables import as_text

if TYPE_CHECKING:
    from metier.comparison.outcome import Outcome

_GATE = 3
Targets = Annotated[list[Path], typer.Argument(metavar="COMPARISON | RUN RUN", help="a comparison (toml), or two runs")]
Csv = Annotated[bool, typer.Option("--csv", help="print the table as CSV")]
Markdown = Annotated[bool, typer.Option("--markdown", help="print a summary for a pull request")]
FailUnder = Annotated[
    float | None, typer.Option(metavar="SCORE", help="exit 3 where the recommended one's overall, of 100, is lower")
]
Check = Annotated[bool, typer.Option("--check", help="recompute a comparison's report from its runs' answers")]
Judge = Annotated[
    str | None,
    typer.Option(
        metavar="FILE | blind",
        help="who prefers which open answer of two runs: a model (toml), people (json), or blind: a page to ask people",
    ),
]
Jobs = Annotated[int, typer.Option(min=1, help="runs at a time; above 1 no time is printed")]


def compare(  # noqa: PLR0913, PLR0917 (a parameter is a flag)
    target: Targets,
    check: Check = False,
    jobs: Jobs = 1,
    csv: Csv = False,
    markdown: Markdown = False,
    fail_under: FailUnder = None,
    judge: Judge = None,
    set_: Set = None,
    plan: PlanSet = None,
    json: Json = False,
    offline: Offline = False,
) -> None:
    """Put strategies side by side, and say which to take.

    Every strategy answers the same held-out items. What was run before is found, not repeated. Of two finished runs
    the second is compared with the first, on the items that both held out. With --check a report's numbers are
    recomputed from its runs' answers. With --judge a model or people say whose open answers they prefer.
    """
    if check:
        _check(target)
        return
    if len(target) == 2:
        if csv or markdown or fail_under is not None:
            raise MetierError("--csv, --markdown and --fail-under belong to a comparison", "of two runs take --json")
        _pair(target, judge, json=json, offline=offline)
        return
    if judge is not None:
        raise MetierError("--judge takes two finished runs", "metier compare runs/A runs/B --judge judge.toml")
    if len(target) != 1:
        raise MetierError("give a comparison, or two runs", "metier compare strategies.toml")
    from metier.comparison.outcome import compare as run_comparison
    from metier.grid import Comparison

    comparison = Comparison.load(target[0], overrides(set_))
    how: dict[str, Any] = {"overrides": overrides(plan), "offline": offline, "jobs": jobs}
    try:
        outcome = run_comparison(comparison, **how, on_event=Progress())
    except KeyboardInterrupt:
        raise MetierError("stopped; what is finished is kept", "the same command does the rest") from None
    _show(outcome, json=json, csv=csv, markdown=markdown)
    _gate(outcome.table, fail_under)


def _show(outcome: Outcome, *, json: bool, csv: bool, markdown: bool) -> None:
    if json:
        emit(outcome.values)
    if csv:
        print(outcome.csv(), end="")
    if markdown:
        print(outcome.markdown(), end="")
    if not (json or csv or markdown):
        say(f"\n{as_text(outcome.parts())}")
    say(f"\nreport: {outcome.report}")


def _gate(table: dict[str, Any], fail_under: float | None) -> None:
    lines = {line["name"]: line for line in table["lines"]}
    chosen = lines.get(table["recommended"])
    value = 100 * chosen["overall"]["value"] if chosen else 0.0
    if fail_under is not None and value < fail_under:
        say(f"gate: what is recommended has {value:.1f} of 100, --fail-under asks for {fail_under:g}")
        raise SystemExit(_GATE)
    if chosen is None and table["best"] is not None:
        say("gate: a guard says no to every strategy that is good enough")
        raise SystemExit(_GATE)
    if table["failed"]:
        raise MetierError(f"{len(table['failed'])} of the strategies failed", "see above; the others are in the report")


def _check(target: list[Path]) -> None:
    from metier.comparison.outcome import Outcome, check

    if len(target) != 1:
        raise MetierError("--check takes one report", "metier compare --check comparisons/strategies")
    path = target[0]
    if path.suffix == ".toml":  # the comparison instead of what it wrote
        path = path.parent / "comparisons" / path.stem
    outcome = Outcome.open(path)
    if differing := check(outcome):
        raise MetierError("\n".join(differing), "the report is not what its runs give; run the comparison again")
    say(f"{target[0]}: every number follows from the answers of its runs")


def _pair(target: list[Path], judge: str | None, *, json: bool, offline: bool) -> None:
    from metier.comparison import preference
    from metier.comparison.pair import compare_runs
    from metier.run import Run

    first, second = (Run.open(each).finished() for each in target)
    if judge == "blind":
        say(f"\nopen it in a browser, on any machine: {preference.write_page(first, second)}")
        return
    if judge is None:
        found: Any = compare_runs(first, second)
    elif Path(judge).suffix == ".json":
        found = preference.read_people(first, second, Path(judge))
    else:
        found = preference.ask_judge(first, second, Path(judge), Progress(), offline=offline)
    if json:
        emit(found.to_json())
    else:
        say(f"\n{as_text(found.parts())}")
