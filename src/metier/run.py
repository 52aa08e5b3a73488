"""A run is a directory that proves itself: recipe, plan, events, answers, scores, adapter, report."""

from __future__ import annotations

import json
import platform
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from metier.errors import RunError
from metier.events import Event, Listener
from metier.files import append_line, held, locked, read_json, write_atomic, write_json
from metier.planning import Plan
from metier.recipe import Recipe
from metier.strategies import MODELLESS, Shown
from metier.tables import Part, as_text, benchmark_parts, cost_line, html, score_parts

FORMAT = 1
OPPONENTS = {"none": "the untuned base", "classical": "the classical baseline"}  # by method
_BENCHMARKS = "benchmarks.json"
_TRADEOFF = "tradeoff.json"
_VERSIONS = ("metier", "torch", "transformers", "peft", "bitsandbytes", "tokenizers", "scikit-learn", "numpy")


@dataclass(frozen=True, init=False, repr=False)
class Run:
    """A directory in `runs/`; every property reads it anew. Raises `RunError` at first use where it is no run."""

    directory: Path

    def __init__(self, directory: str | Path) -> None:
        object.__setattr__(self, "directory", Path(directory))

    @classmethod
    def open(cls, directory: str | Path) -> Run:
        """An existing run, a name alone in ./runs too. Raises `RunError` where there is none of this format."""
        inside = Path("runs") / directory
        run = cls(inside if len(Path(directory).parts) == 1 and inside.is_dir() else Path(directory))
        facts = run.facts
        if facts.get("format") != FORMAT:
            raise RunError(f"{directory}: has format {facts.get('format')}, this metier reads {FORMAT}; upgrade metier")
        return run

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def facts(self) -> dict[str, Any]:
        try:
            facts: dict[str, Any] = {**read_json(self.directory / "run.json")}
        except OSError:
            problem = f"{self.directory}: is no run"
            raise RunError(problem, "`metier runs FOLDER` lists those in FOLDER/runs") from None
        except (ValueError, TypeError):
            path = self.directory / "run.json"
            raise RunError(f"{path}: is not JSON any more", "restore it, or remove the whole folder") from None
        return facts

    @property
    def status(self) -> str:
        """As written, but a run is "interrupted" that no process works on any more."""
        status = str(self.facts["status"])
        return "interrupted" if status == "started" and not held(self.directory / "lock") else status

    @property
    def adapter(self) -> Path:
        return self.directory / "adapter"

    @property
    def report(self) -> Path:
        return self.directory / "report.html"

    @property
    def has_scores(self) -> bool:
        return (self.directory / "scores.json").exists()

    @property
    def opponents(self) -> dict[str, str]:
        """What those are called that it is compared with, by method."""
        recipe = self.recipe()
        staged = (recipe.directory / recipe.model / "run.json").is_file()
        base = "the stage before" if staged else OPPONENTS["none"]
        shown = self.shown
        return {**OPPONENTS, "none": f"{base} without {' and '.join(shown)}" if shown else base}

    @property
    def shown(self) -> dict[str, int]:
        """How many examples and passages stand in front of a question, at most."""
        strategy = self.recipe().strategy
        if not isinstance(strategy, Shown):
            return {}
        counts = {"examples": strategy.num_fewshot, "passages": strategy.num_passages if strategy.passages else 0}
        return {name: count for name, count in counts.items() if count}

    @property
    def why_shut(self) -> str:
        """Why nobody can talk with it or ask it for more, or ""."""
        reasons = {
            **{method: f"{name} is no language model" for method, name in MODELLESS.items()},
            "endpoint": "its answers came from an endpoint: no model of it is here",
        }
        return reasons.get(self.facts["method"], "")

    def recipe(self) -> Recipe:
        """The resolved recipe, anchored where the original stood."""
        name, home = (
            self.facts["recipe"],
            self.directory.resolve().parent.parent,
        )  # runs lie in runs/ beside their recipe
        return Recipe.of(_toml(self.directory / "recipe.toml"), home / name)

    def finished(self) -> Run:
        """Itself; raises `RunError` where it is not finished."""
        if self.status != "finished":
            hint = f"finish it with: metier train --resume {self.directory}"
            raise RunError(f"{self.directory}: is not finished ({self.status})", hint)
        return self

    def answering(self) -> Run:
        """Itself; raises `RunError` where it is not finished, or nobody can talk with it."""
        if self.finished().why_shut:
            raise RunError(f"{self.directory}: cannot be served: {self.why_shut}", "choose a run from `metier runs`")
        return self

    def locked(self, *, wait: bool = False) -> AbstractContextManager[None]:
        """For one process to write in it; another one waits or is refused with a `RunError`."""
        return locked(self.directory / "lock", wait=wait)

    def plan(self) -> dict[str, Any]:
        plan: dict[str, Any] = self._kept("plan.json", read_json)
        return plan

    def scores(self) -> dict[str, Any]:
        scores: dict[str, Any] = self._kept("scores.json", read_json)
        return scores

    def seen(self) -> dict[str, list[str]]:
        """Fingerprints of the items that this run and the stages before it learned from ("train"), or chose by."""
        seen: dict[str, list[str]] = self._kept("seen.json", read_json)
        return seen

    def write_seen(self, seen: Mapping[str, Collection[str]]) -> None:
        write_json(self.directory / "seen.json", {side: sorted(each) for side, each in seen.items()})

    def answers(self) -> list[dict[str, Any]]:
        """Every held-out answer, as rows."""
        lines = self._kept("answers.jsonl", Path.read_bytes).split(b"\n")
        return [json.loads(line) for line in lines if line]

    def events(self) -> Iterator[dict[str, Any]]:
        """The events so far; a last line torn by a kill is left out."""
        path = self.directory / "events.jsonl"
        if path.exists():
            yield from (json.loads(line) for line in path.read_bytes().split(b"\n")[:-1])

    def update(self, **facts: Any) -> None:
        """Change facts of run.json; status and format stay in front."""
        write_json(self.directory / "run.json", {**self.facts, **facts, "changed": _now()})

    @property
    def benchmarks(self) -> list[dict[str, Any]]:
        """What each asking of benchmark tasks gave: tasks, settings, the untuned base's name, lines."""
        path = self.directory / _BENCHMARKS
        return read_json(path)["measured"] if path.exists() else []

    def write_benchmarks(self, measured: Mapping[str, Any]) -> None:
        """Keep what tasks gave, in place of the same tasks asked in the same way."""
        what = ("tasks", "settings")
        others = [each for each in self.benchmarks if any(each[key] != measured[key] for key in what)]
        write_json(self.directory / _BENCHMARKS, {"format": 1, "measured": [*others, measured]})

    @property
    def why_unknown(self) -> str:
        """Why it is not known what a tuned model forgot, or ""."""
        classifies = getattr(self.recipe().strategy, "objective", "") == "classify"
        return "a head that classifies stands where a language model's outputs would be" if classifies else ""

    def write_answers(self, lines: Sequence[str]) -> None:
        write_atomic(self.directory / "answers.jsonl", "".join(f"{line}\n" for line in lines))

    def judge_by(self, recipe: Recipe) -> bool:
        """Take over the guard that `recipe` asks for now, and who labelled; whether it is another than before."""
        own = self.recipe()
        labellers = {f"domain.{each.name}.labelled_by": each.labelled_by for each in recipe.domain}
        now = own.override(**{"eval.guard": dict(recipe.eval.guard)}, **labellers)
        if now.values() == own.values():
            return False
        write_atomic(self.directory / "recipe.toml", now.to_toml())
        return True

    def priced_as(self, recipe: Recipe) -> bool:
        """Whether its answers cost what `recipe` says of an endpoint now."""
        return bool(_price(self.recipe()) == _price(recipe))

    def price_by(self, recipe: Recipe) -> None:
        """Take over the price that `recipe` names."""
        changed = self.recipe().override(**{"strategy.price_per_million": _price(recipe)})
        write_atomic(self.directory / "recipe.toml", changed.to_toml())

    @property
    def replay(self) -> Path:
        """What the untuned base answered to the prompts of `train.replay`, where it was asked."""
        return self.directory / "replay.jsonl"

    def write_tradeoff(self, tradeoff: Mapping[str, Any]) -> None:
        """What every scale of the adapter scores and forgets on validation, and which one is recommended."""
        write_json(self.directory / _TRADEOFF, {"format": 1, **tradeoff})

    @property
    def tradeoff(self) -> dict[str, Any] | None:
        path = self.directory / _TRADEOFF
        return read_json(path) if path.exists() else None

    def write_shots(self, shots: Mapping[str, Any]) -> None:
        """The examples that stand in front of every question, by domain; a copy of training rows."""
        write_json(self.directory / "shots.json", shots)

    def shots(self) -> dict[str, Any]:
        path = self.directory / "shots.json"
        found: dict[str, Any] = read_json(path) if path.exists() else {}
        return found

    def write_passages(self, shelves: Mapping[str, Any]) -> None:
        """The passages out of which the nearest stand in front of every question."""
        write_json(self.directory / "passages.json", shelves)

    def passages(self) -> dict[str, Any]:
        path = self.directory / "passages.json"
        found: dict[str, Any] = read_json(path) if path.exists() else {}
        return found

    def write_scores(self, scores: Mapping[str, Any]) -> None:
        write_json(self.directory / "scores.json", {"format": FORMAT, **scores})

    def recorder(self, listen: Listener) -> Listener:
        """A listener that also writes every event of training into events.jsonl."""
        path = self.directory / "events.jsonl"

        def record(event: Event) -> None:
            if event.values:
                append_line(path, json.dumps({"at": _now(), **asdict(event)}, ensure_ascii=False))
            listen(event)

        return record

    def forget_events_after(self, step: int) -> None:
        """Drop what was recorded behind the checkpoint from which a run continues."""
        kept = [event for event in self.events() if event["done"] <= step]
        lines = "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in kept)
        write_atomic(self.directory / "events.jsonl", lines)

    def parts(self) -> Iterator[Part]:
        """What a finished run says: scores, comparisons, cost, verdict. Of another one, how it stands."""
        facts, status = self.facts, self.status
        yield f"{self.directory}  ({facts['method']}, {facts['model']}, {status})"
        if not self.has_scores:
            yield f"{status}: {facts['why'] or 'no scores yet'}"
            return
        scores = self.scores()
        yield from score_parts(scores, self.opponents)
        if self.why_unknown:
            yield f"forgetting: not measured, because {self.why_unknown}"
        for asked in self.benchmarks:
            yield "benchmarks, through lm-evaluation-harness"
            yield from benchmark_parts(asked)
        if measured := facts.get("measured"):
            plan = self.plan() if (self.directory / "plan.json").exists() else None
            yield cost_line(measured, plan, [self.opponents[role] for role in scores["against"]])
        yield str(scores["verdict"])

    def __repr__(self) -> str:
        return f"Run({str(self.directory)!r})"

    def __str__(self) -> str:
        return as_text(self.parts())

    def _repr_html_(self) -> str:
        return html(self.parts())

    def _kept(self, name: str, read: Callable[[Path], Any]) -> Any:
        """What a file of the run holds; raises `RunError` where the run has not come so far, or is none."""
        try:
            return read(self.directory / name)
        except FileNotFoundError:
            problem = f"{self.directory}: has no {name} yet ({self.status})"
            raise RunError(problem, f"finish it with: metier train --resume {self.directory}") from None
        except ValueError:
            problem = f"{self.directory / name}: cannot be read any more"
            raise RunError(problem, "restore it, or remove the whole folder") from None


def locate(root: Path, recipe: Recipe, run_key: str) -> Run:
    """Where the run with this key lies, if there is one."""
    return Run(root / f"{recipe.strategy.method}-{run_key[:10]}")


def find_or_create(root: Path, recipe: Recipe, run_key: str, facts: Mapping[str, Any]) -> Run:
    """The run with this key, or a new directory for it."""
    method = recipe.strategy.method
    run = locate(root, recipe, run_key)
    directory = run.directory
    if (directory / "run.json").exists():
        return run
    directory.mkdir(parents=True, exist_ok=True)
    write_atomic(directory / "recipe.toml", recipe.to_toml())
    head = {"format": FORMAT, "status": "started", "why": "", "method": method, "model": recipe.model, "key": run_key}
    write_json(
        directory / "run.json",
        {**head, "recipe": recipe.path.name, **facts, "versions": versions(), "started": _now()},
    )
    return run


def save_plan(run: Run, plan: Plan) -> None:
    write_json(run.directory / "plan.json", asdict(plan))


def list_runs(root: Path) -> tuple[list[Run], list[RunError]]:
    """The runs in a folder, newest first, and what is said of those that cannot be read."""
    found, faults = list[Run](), list[RunError]()
    for path in sorted(root.glob("*/run.json")):
        try:
            found.append(Run.open(path.parent))
        except RunError as error:
            faults.append(error)
    return sorted(found, key=lambda run: str(run.facts.get("started")), reverse=True), faults


@cache
def versions() -> dict[str, str]:
    """Of Python and every package that can change a run's numbers."""
    found = {"python": platform.python_version()}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _price(recipe: Recipe) -> Any:
    return recipe.values()["strategy"].get("price_per_million")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))
