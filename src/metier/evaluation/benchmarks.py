"""A run and its untuned base on the same benchmark tasks: measured once, kept with each run, compared item by item."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval.api.registry import get_aggregation
from lm_eval.evaluator import evaluate

from metier import run as runs
from metier.errors import RunError
from metier.evaluation.harness import quiet
from metier.evaluation.lm import MetierLM
from metier.evaluation.tasks import Asking, Tasks, identity
from metier.events import Event, Listener
from metier.files import read_json, write_json
from metier.inference.loaded import open_run
from metier.resampling import Floats, Statistic
from metier.run import Run
from metier.scores import Difference, Score, holm, interval, mcnemar, mean, paired, proportion, ratio

FORMAT = 1
Record = Mapping[str, Any]
"""One task as one run answered it, as its file holds it."""


@dataclass(frozen=True)
class Line:
    """One metric of one task or group, of the run and, if it is a tuned one, of its base.

    A metric that resampling items says nothing about has NaN for an interval and no difference.
    """

    task: str
    metric: str
    n: int
    base: Score | None
    tuned: Score
    difference: Difference | None

    def to_dict(self) -> dict[str, Any]:
        plain = asdict(self)
        if self.difference:
            plain["difference"]["verdict"] = self.difference.verdict
        for side in filter(None, (plain["base"], plain["tuned"])):
            side |= {end: None for end in ("low", "high") if math.isnan(side[end])}
        return plain


def untuned(run: Run) -> Run | None:
    """The base of a tuned run, measured in the same number format; None for a run that is one itself."""
    if run.facts["method"] == "none":
        return None
    return Run.open(run.directory.parent / run.scores()["against"]["none"]["run"]).finished()


def measure(run: Run, tasks: Tasks, asking: Asking, listen: Listener, *, offline: bool = False) -> dict[str, Record]:
    """Every task's record, read where it is stored with the run and else measured now, one file a task."""
    with quiet(listen) as heard:
        keys = {name: identity(task, asking) for name, task in tasks.tasks.items()}
        places = {name: _place(run, name, key) for name, key in keys.items()}
        if missing := [name for name, place in places.items() if not place.is_file()]:
            with run.locked(wait=True):
                lm = MetierLM(open_run(run, offline=offline, listen=heard), listen=heard)
                for name in missing:
                    _write(places[name], {"key": keys[name], **_ask(lm, name, tasks.tasks[name], asking)})
            if lm.shortened:
                text = f"note: {lm.shortened} questions exceed {lm.max_length} tokens; their beginning is cut"
                heard(Event("note", values={"text": text}))
    return {name: _read(place) for name, place in places.items()}


def compare(ours: Mapping[str, Record], base: Mapping[str, Record] | None, tasks: Tasks) -> list[Line]:
    """A line for each metric of each task, then of each group over all its items; Holm over the lines of a metric."""
    sides = [_with_groups(each, tasks.groups) for each in (ours, base) if each is not None]
    lines = [
        _line(name, metric, *(side[name] for side in sides))
        for name in sides[0]
        for metric in sides[0][name]["metrics"]
    ]
    for metric in {line.metric for line in lines}:
        places = [place for place, line in enumerate(lines) if line.metric == metric and line.difference]
        adjusted = holm([difference for place in places if (difference := lines[place].difference)])
        for place, difference in zip(places, adjusted, strict=True):
            lines[place] = replace(lines[place], difference=difference)
    return lines


def _place(run: Run, name: str, key: str) -> Path:
    return run.directory / "benchmarks" / (re.sub(r"[^\w.-]", "_", name) + f"-{key[:10]}.json")


def _ask(lm: MetierLM, name: str, task: Any, asking: Asking) -> dict[str, Any]:
    begun = time.monotonic()
    found = evaluate(
        lm,
        {"tasks": {name: task}, "groups": {}},
        limit=asking.limit,
        bootstrap_iters=0,
        apply_chat_template=asking.apply_chat_template,
        fewshot_as_multiturn=asking.apply_chat_template,
    )
    aggregations, directions = task.aggregation(), task.higher_is_better()
    known = {get_aggregation(aggregation): aggregation for aggregation in _STATISTICS}
    metrics = {
        metric: {
            "value": value,
            "aggregation": known.get(aggregations.get(metric.partition(",")[0]), ""),
            "higher_is_better": directions.get(metric.partition(",")[0]),
        }
        for metric, value in found["results"][name].items()
        if "," in metric and not metric.partition(",")[0].endswith("_stderr")
    }
    settings = {**asdict(asking), "num_fewshot": task.config.num_fewshot}
    return {
        "task": name,
        "settings": settings,
        "seconds": time.monotonic() - begun,
        "metrics": metrics,
        "samples": [_sample(each) for each in found["samples"][name]],
    }


def _sample(sample: Mapping[str, Any]) -> dict[str, Any]:
    """One item's answers and what each metric makes of them; the item itself is known by its hash."""
    return {
        "id": sample["doc_id"],
        "filter": sample["filter"],
        "hash": sample["doc_hash"],
        "target": sample["target"],
        "answers": sample["filtered_resps"],
        "metrics": {metric: sample[metric] for metric in sample["metrics"]},
    }


def _write(place: Path, record: Mapping[str, Any]) -> None:
    place.parent.mkdir(exist_ok=True)
    versions = {**runs.versions(), "lm_eval": version("lm_eval")}
    try:
        write_json(place, _plain({"format": FORMAT, "status": "finished", "versions": versions, **record}))
    except ValueError:
        problem = f"{record['task']}: the model gives a log-probability that is no finite number"
        raise RunError(problem, "its weights are broken, or too large for this number format") from None


def _plain(value: Any) -> Any:
    """As JSON has it: numpy's numbers and tuples are what lm-eval's metrics give."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def _read(place: Path) -> Record:
    try:
        record: Record = read_json(place)
    except ValueError:
        raise RunError(f"{place}: is not JSON any more", "remove it; the same command measures it again") from None
    if record.get("format") != FORMAT:
        raise RunError(f"{place}: has format {record.get('format')}, this metier reads {FORMAT}; upgrade metier")
    return record


def _with_groups(records: Mapping[str, Record], groups: Mapping[str, Sequence[str]]) -> dict[str, Record]:
    """The records, and for each group one that pools its items: the mean that lm-eval weighs by size."""
    found = dict(records)
    for group, names in groups.items():
        members = [records[name] for name in names]
        shared = [metric for metric in members[0]["metrics"] if all(metric in each["metrics"] for each in members)]
        means = {name: members[0]["metrics"][name] for name in shared if _is_mean(members, name)}
        samples = [{**sample, "id": f"{each['task']}/{sample['id']}"} for each in members for sample in each["samples"]]
        found[group] = {"task": group, "metrics": means, "samples": samples}
    return found


def _is_mean(members: Sequence[Record], metric: str) -> bool:
    return all(each["metrics"][metric]["aggregation"] == "mean" for each in members)


def _line(name: str, metric: str, ours: Record, base: Record | None = None) -> Line:
    tuned = _score(ours, metric)
    if base is None:
        return Line(name, metric, tuned.n, None, tuned, None)
    return Line(name, metric, tuned.n, _score(base, metric), tuned, _difference(metric, ours, base))


def _values(record: Record, metric: str) -> tuple[list[str], list[Any]]:
    """Ids and values of the items that have this metric."""
    name, _, chosen = metric.partition(",")
    samples = [each for each in record["samples"] if each["filter"] == chosen and name in each["metrics"]]
    return [str(each["id"]) for each in samples], [each["metrics"][name] for each in samples]


def _score(record: Record, metric: str) -> Score:
    """With its interval, if the metric is one that resampling items can give one."""
    what = record["metrics"][metric]
    ids, values = _values(record, metric)
    statistic = _statistic(what["aggregation"], values)
    if statistic is None:
        return Score(metric, what["value"], math.nan, math.nan, len(ids), len(ids), what["higher_is_better"])
    if what["aggregation"] == "mean" and _binary(values):
        return proportion(metric, values, ids)
    return interval(metric, statistic, ids, what["higher_is_better"])


def _difference(metric: str, ours: Record, base: Record) -> Difference | None:
    """The paired test over the items, where the metric has one and a direction."""
    what = ours["metrics"][metric]
    (ids, mine), (_, theirs) = _values(ours, metric), _values(base, metric)
    if what["higher_is_better"] is None:
        return None
    if what["aggregation"] == "mean" and _binary(mine) and _binary(theirs) and what["higher_is_better"]:
        return mcnemar(metric, mine, theirs, ids)
    statistics = [_statistic(what["aggregation"], each) for each in (mine, theirs)]
    if statistics[0] is None or statistics[1] is None:
        return None
    return paired(metric, statistics[0], statistics[1], ids, what["higher_is_better"])


def _binary(values: Sequence[Any]) -> bool:
    return all(value in (0, 1) for value in values)


def _perplexity(logprobs_N: Floats) -> Statistic:
    average = mean(logprobs_N)
    return lambda weights_BN: np.exp(-average(weights_BN))


def _weighted(pairs_N2: Floats) -> Statistic:
    """exp(− log-likelihood per word or byte)."""
    average = ratio(pairs_N2[:, 0], pairs_N2[:, 1])
    return lambda weights_BN: np.exp(-average(weights_BN))


def _bits(pairs_N2: Floats) -> Statistic:
    average = ratio(pairs_N2[:, 0], pairs_N2[:, 1])
    return lambda weights_BN: -average(weights_BN) / math.log(2)


_STATISTICS: dict[str, tuple[int, Callable[[Floats], Statistic]]] = {
    "mean": (1, mean),
    "perplexity": (1, _perplexity),
    "weighted_perplexity": (2, _weighted),
    "bits_per_byte": (2, _bits),
}
"""lm-eval's aggregations that can be resampled, with the number of axes of their values."""


def _statistic(aggregation: str, values: Sequence[Any]) -> Statistic | None:
    """The aggregation over resampled items; None where it is another, or the values are no numbers."""
    axes, make = _STATISTICS.get(aggregation, (0, mean))
    table = np.asarray(values, dtype=object)
    if table.ndim != axes or not all(isinstance(each, int | float) for each in table.ravel()):
        return None
    return make(table.astype(np.float64))
