"""Runs in a directory, written as `experiment` writes them, with answers that a test makes up."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from metier import run as runs
from metier.evaluation.answers import Answer, read_answers, to_json
from metier.evaluation.forgotten import forgetting
from metier.evaluation.metrics import compare, domain_scores, to_dict
from metier.evaluation.verdict import sentence
from metier.events import Event, silent
from metier.files import write_json
from metier.identity import key
from metier.recipe import Recipe
from metier.run import Run

PLAN: dict[str, Any] = {
    "compute": "bfloat16",
    "threads": 8,
    "checkpointing": False,
    "steps": 40,
    "validate_every": 8,
    "memory": {"libraries": 660_000_000, "weights": 2_400_000_000, "decoding cache": 0},
    "seconds": {"training": 400.0, "validation": 60.0, "held-out answers": 95.0},
    "reasons": {"compute": "this processor has amx_bf16", "threads": "one a physical core"},
}
KINDS = [
    {"name": "q_proj", "layers": 24, "adapted": 24, "parameters": 688_128},
    {"name": "down_proj", "layers": 24, "adapted": 24, "parameters": 2_211_840},
]
IDENTITY = {"hashes": {"heldout": "4d" * 32, "train": "5e" * 32}, "revision": "main@9f3c", "seed": 17}


@dataclass(frozen=True)
class Bench:
    """One recipe's `runs/`; `write` adds a finished run to it."""

    root: Path
    recipe: Recipe
    dropped: Sequence[str] = ()

    def write(self, method: str, answers: Sequence[Answer], opponents: Mapping[str, Run] | None = None) -> Run:
        recipe = self.recipe.override(strategy={"method": method})
        facts = {"data": self._counts(), "dropped": list(self.dropped), **IDENTITY}
        run = runs.find_or_create(self.root / "runs", recipe, key(recipe), facts)
        run.write_answers([to_json(each) for each in answers])
        if method != "classical":
            write_json(run.directory / "plan.json", PLAN)
        phase = "held-out answers"
        if method == "lora":
            self._train(run)
            phase = "training and validation"
        self._score(run, answers, opponents or {})
        run.update(status="finished", measured={"seconds": {phase: 512.0}, "peak_memory": 3_900_000_000})
        return run

    def _counts(self) -> dict[str, dict[str, float]]:
        counts = {"train": 1200, "validation": 130, "heldout": 300, "left_out": 2, "target_tokens": 5400}
        return {domain.name: {**counts, "weight": 1.25} for domain in self.recipe.domain}

    def _train(self, run: Run) -> None:
        record = run.recorder(silent)
        for step in range(1, PLAN["steps"] + 1):
            loss = 0.9 + 2.4 * math.exp(-step / 9) + 0.15 * math.sin(2.7 * step)
            record(Event("train", step, PLAN["steps"], {"loss": loss, "tokens": 1900, "seconds": 9.5}))
            if step % PLAN["validate_every"] == 0:
                record(Event("validation", step, PLAN["steps"], {"score": 0.8 - (step - 32) ** 2 / 2000}))
        run.update(trained=KINDS, best_step=32, steps=40, stopped_early=False)

    def _score(self, run: Run, answers: Sequence[Answer], opponents: Mapping[str, Run]) -> None:
        asked = _asked(answers)
        against = {
            role: compare(asked, _asked(read_answers(each.directory / "answers.jsonl")))
            for role, each in opponents.items()
        }
        forgot = forgetting(answers) if len(asked) < len(answers) else None
        scores = {
            "verdict": sentence(against, forgot, domain_scores(asked)),
            "domains": [to_dict(each) for each in domain_scores(answers)],
            "against": {
                role: {"run": opponents[role].name, "domains": [to_dict(each) for each in records]}
                for role, records in against.items()
            },
            "forgetting": to_dict(forgot) if forgot else None,
            "guard": {
                name: {"limit": limit, "value": forgot.value, "passed": forgot.value <= limit}
                for name, limit in self.recipe.eval.guard.items()
                if forgot
            },
        }
        run.write_scores(scores)


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bench]:
    """A bench whose recipe has the named domains."""

    def make(*domains: str, dropped: Sequence[str] = ()) -> Bench:
        raw: dict[str, Any] = {
            "model": "acme/small-1b",
            "domain": [{"name": name, "data": f"data/{name}.csv"} for name in domains],
            "eval": {"guard": {"general_text": 0.1}},
        }
        root = tmp_path_factory.mktemp("bench")
        return Bench(root, Recipe.of(raw, root / "support.toml"), dropped)

    return make


def _asked(answers: Sequence[Answer]) -> list[Answer]:
    return [each for each in answers if each.kind != "text"]
