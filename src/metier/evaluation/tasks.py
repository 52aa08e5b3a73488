"""Benchmarks by name or file: lm-evaluation-harness's tasks, every mistake found before a weight is read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
from lm_eval.api.registry import METRIC_REGISTRY
from lm_eval.config.task import TaskConfig
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from metier import download
from metier.errors import MetierError, nearest
from metier.evaluation.harness import quiet
from metier.files import digest

_YAML = (".yaml", ".yml")
_FEWSHOT_SEED = 1234  # lm-eval's own
_STRANGE_KEY = re.compile(r"TaskConfig.*unexpected keyword argument '(\w+)'")
# Where a task's data lies; the data itself is hashed.
_WHEREABOUTS = ("metadata", "dataset_path", "dataset_name", "dataset_kwargs")


@dataclass(frozen=True)
class Asking:
    """How every task is asked; None leaves it to the task."""

    limit: int | None = None
    num_fewshot: int | None = None
    apply_chat_template: bool = False


@dataclass(frozen=True)
class Tasks:
    """lm-eval's tasks by name, and the tasks of every group."""

    tasks: Mapping[str, Any]
    groups: Mapping[str, Sequence[str]]


def find_tasks(names: Sequence[str], asking: Asking, *, offline: bool = False) -> Tasks:
    """Load tasks: lm-eval's by name or pattern, a YAML file, or a folder of such files.

    Raises `MetierError` for a name that nobody knows, a file that is no task, and data that cannot be had.
    """
    if not names:
        raise MetierError("--tasks names no task", "give names, YAML files or folders of them, with commas between")
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # it would tell the hub of every file read
    tasks: dict[str, Any] = {}
    groups: dict[str, Sequence[str]] = {}
    with quiet():
        for manager, spec in _specs(names):
            found = _load(manager, spec, offline=offline)
            if twice := sorted(found["tasks"].keys() & tasks.keys()):
                raise MetierError(f"{spec}: {twice[0]} is there already", "name every task once")
            tasks |= found["tasks"]
            groups |= {
                name: [each.task_name for each in group.get_all_tasks()] for name, group in found["groups"].items()
            }
        for name, task in tasks.items():
            _prepare(name, task, asking)
    return Tasks(tasks, groups)


def identity(task: Any, asking: Asking) -> str:
    """A hash of all that makes a task's questions and scores: its configuration, its items, lm-eval's version."""
    shots = task.fewshot_docs() if task.config.num_fewshot else ()
    config = {name: value for name, value in task.dump_config().items() if name not in _WHEREABOUTS}
    parts = {"config": config, "items": list(islice(task.eval_docs, asking.limit)), "shots": list(shots or ())}
    plain = json.loads(json.dumps(parts, default=str))
    return digest({**plain, "chat": asking.apply_chat_template, "lm_eval": version("lm_eval")})


def _specs(names: Sequence[str]) -> Iterator[tuple[TaskManager, str]]:
    """Each thing to load, with who can load it; lm-eval's own index takes seconds and is read on demand."""
    known: TaskManager | None = None
    for name in names:
        path = Path(name)
        if path.is_dir():
            yield from _in_folder(path)
        elif path.suffix in _YAML:
            if not path.is_file():
                others = [each.name for each in path.parent.glob("*") if each.suffix in _YAML]
                raise MetierError(f"--tasks {name}: does not exist{nearest(path.name, others)}")
            yield _in_file(path)
        else:
            known = known or TaskManager()
            yield from ((known, each) for each in _named(known, name))


def _in_file(path: Path) -> tuple[TaskManager, str]:
    """A group names tasks that lie beside it, or lm-eval's own."""
    config = _read(path)
    if "group" in config:
        return TaskManager(include_path=[path.parent]), str(config["group"])
    return TaskManager(include_defaults=False), str(path)


def _in_folder(folder: Path) -> Iterator[tuple[TaskManager, str]]:
    """Its groups, then the tasks that are in none of them; files that others include are neither."""
    manager = TaskManager(include_path=[folder], include_defaults=False)
    configs = {path: _read(path) for path in sorted(folder.iterdir()) if path.suffix in _YAML}
    groups = [config for config in configs.values() if "group" in config]
    members = {str(each) for config in groups for each in config.get("task") or ()}
    tasks = [path for path, config in configs.items() if "task" in config and "group" not in config]
    alone = [path for path in tasks if str(configs[path]["task"]) not in members]
    found = [*(str(config["group"]) for config in groups), *map(str, alone)]
    if not found:
        raise MetierError(f"--tasks {folder}: has no YAML file with a task", "a task file names its task: `task: NAME`")
    yield from ((manager, each) for each in found)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        config: Mapping[str, Any] = load_yaml(path, resolve_func=False)
    except Exception as error:  # whatever the YAML parser says
        raise _no_task(str(path), error) from None
    for each in config.get("metric_list") or () if "process_results" not in config else ():
        name = str(each.get("metric"))
        if name not in METRIC_REGISTRY and not each.get("hf_evaluate") and "metric" in each:
            raise MetierError(f"--tasks {path}: {name}: is no metric of lm-eval's{nearest(name, METRIC_REGISTRY)}")
    return config


def _named(manager: TaskManager, name: str) -> list[str]:
    found: list[str] = manager.match_tasks([name])
    if not found:
        hint = "`python -m metier.evaluation.harness ls tasks` lists them; a file of your own ends in .yaml"
        raise MetierError(f"--tasks {name}: lm-eval has no such task{nearest(name, manager.all_tasks)}", hint)
    return found


def _load(manager: TaskManager, spec: str, *, offline: bool) -> Mapping[str, Any]:
    """First with what is on this machine alone, then from the hub if it can be reached."""
    for place in (download.closed(), nullcontext()):
        try:
            with place:
                found: Mapping[str, Any] = manager.load([spec])
                return found
        except ConnectionError as error:
            if why := "--offline was given" if offline else download.barrier():
                problem = f"--tasks {spec}: its data is not on this machine, and {why}"
                raise MetierError(problem, "name a YAML file of your own whose data lies here") from None
            last = error
        except Exception as error:  # a task file is its author's code, and may raise anything
            raise _no_task(spec, error) from None
    raise _no_task(spec, last)


def _prepare(name: str, task: Any, asking: Asking) -> None:
    """Settle how it is asked, and put its first question together: that shows what its templates get wrong."""
    for trait, what in (("UNSAFE_CODE", "runs code that the model wrote"), ("MULTIMODAL", "shows more than text")):
        if getattr(task, trait, False):
            raise MetierError(f"--tasks {name}: {what}, which metier does not do", "leave it out")
    if lost := [metric for metric, aggregation in task.aggregation().items() if not callable(aggregation)]:
        raise MetierError(f"--tasks {name}: {lost[0]} has an aggregation that lm-eval does not know", "try mean")
    given = task.config.num_fewshot
    if asking.num_fewshot is not None and given != 0:
        task.set_config(key="num_fewshot", value=asking.num_fewshot)
    elif given is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=_FEWSHOT_SEED)
    try:
        task.build_all_requests(limit=1, rank=0, world_size=1)
    except Exception as error:  # a task file is its author's code, and may raise anything
        raise _no_task(name, error) from None


def _no_task(spec: str, error: BaseException) -> MetierError:
    cause = error.__cause__ or error  # datasets says only that something went wrong
    said = " ".join(str(cause).split())[:300]
    if strange := _STRANGE_KEY.search(said):
        near = nearest(strange.group(1), TaskConfig.__dataclass_fields__)
        return MetierError(f"--tasks {spec}: {strange.group(1)}: is no key of a task{near}")
    return MetierError(f"--tasks {spec}: is no task that can be asked: {type(cause).__name__}: {said}")
