"""Comparisons as `metier compare` writes them, with runs and numbers that a test makes up."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metier.evaluation.answers import Answer, to_json
from metier.evaluation.lines import Line, Source
from metier.files import write_json

DOMAINS = ("customer care of a telephone company", "finance", "law", "medicine", "job ads")
LABELS = ("negative", "neutral", "positive")
MODELS = ("nano", "acme/an-open-model-whose-name-is-long-3b-instruct-2026-11")
VERSIONS = {"python": "3.11.7", "metier": "0.1.0"}


@dataclass
class Contest:
    """A folder of runs that grows with every line."""

    root: Path
    domains: tuple[str, ...] = DOMAINS
    evil: str = ""
    chance: random.Random = field(default_factory=lambda: random.Random(7))
    lines: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self, name: str, level: float, *, trained: Sequence[str] = (), seeds: int = 1, **line: Any
    ) -> dict[str, Any]:
        """A line whose score is near `level`; `trained` are the domains it learned from, where it did."""
        runs = [self._run(f"run{len(self.lines)}-{seed}", level, trained) for seed in range(seeds)]
        sources = tuple(Source(seed, run) for seed, run in enumerate(runs))
        kept = {
            "arm": name,
            "model": MODELS[0],
            "layout": "shared",
            "rows": 1.0,
            "kind": "",
            "guard": {"general_text": 0.1},
        }
        plain = Line(name=name, sources=sources, **{**kept, **line}).to_json()
        gain = _score(level - 0.3, "overall") | {"p": 0.01, "p_adjusted": 0.03, "test": "paired bootstrap"}
        gap = {"overall": gain | {"value": level - 0.8, "verdict": "worse"}, "by_domain": {}, "p_inferior": 0.01}
        is_base = plain["kind"] == "base"
        scores = {
            "overall": _score(level, "overall"),
            "by_domain": {name: _score(self._near(level), name) for name in self.domains},
            "seeds": [self._near(level) for _ in runs],
            "spread": 0.012 if seeds > 1 else None,
            "against_base": None if is_base else {"overall": gain | {"verdict": "better"}, "by_domain": {}},
            "against_best": gap,
            "cost": _cost(is_base=is_base),
            "guards_hold": level < 0.7,
            "forgetting": _forgot(level / 4) if trained else None,
            "unparsed": 3,
            "failed_items": 1000,
        }
        self.lines.append({**plain, **scores})
        return self.lines[-1]

    def values(
        self, curves: Sequence[Mapping[str, Any]] = (), failed: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """comparison.json; the first line is the best, the second the recommended one."""
        best, recommended = (self.lines[at]["name"] for at in (0, min(1, len(self.lines) - 1)))
        self.lines[0]["against_best"] = None
        keys = [*Line.__dataclass_fields__]
        return {
            "format": 2,
            "file": "strategies.toml",
            "runs": "runs",
            "comparison": {
                "recipe": "small.toml",
                "models": [],
                "strategy": [{"name": "LoRA", "seeds": []}],
                "volume": 10_000,
            },
            "changes": {"train.rows": 50},
            "plan": {"threads": 1},
            "lines": [{key: line[key] for key in keys} for line in self.lines],
            "table": {
                "domains": list(self.domains),
                "margin": 0.02,
                "lines": self.lines,
                "failed": dict(failed or {}),
                "best": best,
                "recommended": recommended,
                "cost_rests_on": "time",
                "verdict": f"Best is {best}; take {recommended}.",
                "warnings": ["the answers of one came from a model"],
                "curves": list(curves),
                "layouts": [_layouts(self.domains)] if len(self.lines) > 5 else [],
                "routers": [_router("LoRA, per domain, routed", self.domains)] if len(self.lines) > 5 else [],
            },
        }

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def _run(self, name: str, level: float, trained: Sequence[str]) -> str:
        folder = self.runs / name
        folder.mkdir(parents=True)
        answers = [self._answer(domain, number, level) for domain in self.domains for number in range(12)]
        (folder / "answers.jsonl").write_text("".join(f"{to_json(each)}\n" for each in answers), encoding="utf-8")
        data = {domain: {"train": 100 if domain in trained else 0} for domain in self.domains}
        hashes = {"heldout": "4d" * 32, "train": name * 8}
        facts = {
            "recipe": "small.toml",
            "seed": 17,
            "data": data,
            "hashes": hashes,
            "versions": VERSIONS,
            "best_step": 30,
        }
        write_json(folder / "run.json", facts)
        scores = (
            {"guard": {"general_text": {"passed": level < 0.7}}, "tradeoff": _weighed(level)}
            if trained
            else {"guard": {}}
        )
        write_json(folder / "scores.json", scores)
        if trained:
            events = (self._event(step, level, trained) for step in range(10, 51, 10))
            (folder / "events.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in events), encoding="utf-8")
        return name

    def _answer(self, domain: str, number: int, level: float) -> Answer:
        known: dict[str, Any] = {
            "id": f"{number:03}",
            "domain": domain,
            "group": f"{number}",
            "place": f"{domain}.csv:{number}",
        }
        if domain == self.domains[0]:
            texts = {"prompt": f"question {number} {self.evil}", "reference": "your card is blocked"}
            return Answer(kind="open", output=f"a reply of {level:.2f} {self.evil}", **texts, **known)
        wanted = LABELS[number % 3]
        output = wanted if self.chance.random() < level else LABELS[(number + 1) % 3]
        logprobs = tuple(-0.4 if each == output else -1.5 - self.chance.random() for each in LABELS)
        texts = {"prompt": f"headline {number}", "reference": wanted, "output": output}
        return Answer(kind="label", labels=LABELS, label_logprobs=logprobs, **texts, **known)

    def _event(self, step: int, level: float, trained: Sequence[str]) -> dict[str, Any]:
        score = level * (1 - math.exp(-step / 15)) - 0.00004 * step**1.5
        values = {"score": score, **{f"{domain} accuracy": 100 * score for domain in trained}}
        return {"phase": "validation", "done": step, "total": 50, "values": values}

    def _near(self, level: float) -> float:
        return min(0.99, max(0.01, level + self.chance.uniform(-0.15, 0.15)))


def large(root: Path, evil: str = "") -> tuple[dict[str, Any], Path]:
    """More than twenty lines, five domains, three layouts, two models, seeds, long names; (values, folder of runs)."""
    made = Contest(root, evil=evil)
    long = f"continued pre-training, then weight-decomposed LoRA of rank 64{evil}"
    made.add(long, 0.81, trained=DOMAINS, seeds=3)
    made.add("LoRA, r = 16", 0.79, trained=DOMAINS, seeds=3)
    for number, name in enumerate(("DoRA", "IA3", "freeze 4", "full", "VeRA", "prompt tuning", "classification head")):
        made.add(name, 0.75 - 0.05 * number, trained=DOMAINS)
    for number, domain in enumerate(DOMAINS):
        made.add(
            f"LoRA, r = 16, on {domain} alone",
            0.5 + number / 50,
            trained=[domain],
            arm="LoRA, r = 16",
            layout="one-set",
        )
    made.add("LoRA, r = 16, per domain", 0.77, trained=DOMAINS, arm="LoRA, r = 16", layout="per-domain", kind="oracle")
    made.add("LoRA, r = 16, per domain, routed", 0.76, trained=DOMAINS, layout="per-domain", kind="router")
    for shots in (1, 4, 16):
        for model in MODELS:
            made.add(f"{shots} examples · {model.rpartition('/')[2]}", 0.3 + shots / 100, model=model)
    made.add("classical baseline", 0.6)
    for model in MODELS:
        made.add(f"untuned base · {model.rpartition('/')[2]}", 0.3, model=model, kind="base")
    failed = {"QLoRA": "4 bit needs an accelerator, and this machine has none"}
    return made.values(
        [_curve("LoRA, r = 16", 0.3), _curve("classical baseline", 0.4), _curve(long, 0.1)], failed
    ), made.runs


def small(root: Path) -> tuple[dict[str, Any], Path]:
    """One untuned base in one domain of open answers."""
    made = Contest(root, DOMAINS[:1])
    made.add("untuned base", 0.3, kind="base")
    return made.values(), made.runs


def _curve(name: str, start: float) -> dict[str, Any]:
    points = [
        {"examples": count, **_score(start + 0.05 * at, "overall")}
        for at, count in enumerate((50.0, 150.0, 500.0, 1200.5))
    ]
    slope = {"metric": "per doubling", "value": 0.021, "low": 0.004, "high": 0.039}
    return {"name": name, "points": points, "per_doubling": slope}


def _score(value: float, metric: str) -> dict[str, Any]:
    ends = {"low": value - 0.03, "high": value + 0.03, "n": 1234, "groups": 987}
    return {"metric": metric, "value": value, **ends, "higher_is_better": True}


def _forgot(nats: float) -> dict[str, Any]:
    rest = {"test": "paired bootstrap", "p": 0.01, "p_adjusted": 0.01, "n": 66, "groups": 66, "verdict": "worse"}
    return {"metric": "loss", "value": nats, "low": nats - 0.02, "high": nats + 0.02, **rest, "higher_is_better": False}


def _weighed(level: float) -> dict[str, Any]:
    points = [{"scale": at / 4, "score": level * at / 4, "forgetting": 0.05 * at} for at in range(5)]
    return {"points": points, "recommended": 0.75, "why": "it keeps most of the gain"}


def _cost(*, is_base: bool) -> dict[str, Any]:
    trained = {
        "training": 0.0 if is_base else 4321.0,
        "parameters": 0 if is_base else 532_480,
        "size": 0 if is_base else 2_140_184,
    }
    return {**trained, "answering": 74.9, "memory": 1_222_598_656, "price": None}


def _layouts(domains: Sequence[str]) -> dict[str, Any]:
    """Each expert has 50 of 100 at home, 30 elsewhere."""
    matrix = {expert: {domain: 0.5 if domain == expert else 0.3 for domain in domains} for expert in domains}
    gap = _score(0.01, "overall") | {"p": 0.2, "p_adjusted": 0.4, "test": "paired bootstrap", "verdict": "better"}
    return {"arm": "LoRA", "oracle": "LoRA, per domain", "contrasts": {"interference": gap}, "matrix": matrix}


def _router(line: str, domains: Sequence[str]) -> dict[str, Any]:
    counts = [[7 if row == column else 1 for column in range(len(domains))] + [2] for row in range(len(domains))]
    sent = {"domains": list(domains), "counts": counts, "right": 7, "wrong": 2, "abstained": 1}
    return {
        "line": line,
        "kind": "router",
        "seed": 0,
        "threshold": 0.64,
        "heldout": sent,
        "hard": {"all hard prompts": sent, "short": sent},
    }
