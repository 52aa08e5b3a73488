"""Data sets of the hub: `hub:owner/name[/config][@revision][:split]` → rows, from the hub's own cache on this machine.

What the hub has is fetched once as files; the rows are then read from them without a socket, so that a run
offline reads the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metier import download
from metier.errors import DataError, Fault, ModelError, nearest
from metier.events import Listener

if TYPE_CHECKING:
    from datasets import DatasetDict

PREFIX = "hub:"
_SPEC = re.compile(
    r"hub:(?P<name>[\w.-]+/[\w.-]+)(?:/(?P<config>[\w.-]+))?(?:@(?P<revision>[\w.-]+))?(?::(?P<split>[\w.-]+))?"
)


@dataclass(frozen=True)
class Online:
    """A data set of the hub whose files lie in `directory`; `revision` is the commit that they are of."""

    spec: str
    name: str
    config: str | None
    split: str | None
    directory: Path

    @property
    def revision(self) -> str:
        return self.directory.name


def find(spec: str, *, offline: bool, listen: Listener) -> Online:
    """The files of a data set, fetched where they are not on this machine. Raises `DataError`."""
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise _fault(spec, "is no data set of the hub", "write hub:owner/name, hub:owner/name/config@revision:split")
    name, revision = match["name"], match["revision"]
    try:
        directory = download.cached_data(name, revision)
        if directory is None:
            if barrier := "--offline was given" if offline else download.barrier():
                raise _fault(spec, f"is not on this machine, and {barrier}", "give a file, or fetch it once online")
            directory = download.fetch_data(name, revision, listen)
    except ModelError as error:
        problem = str(error).partition(f"datasets/{name}: ")[2].partition("; ")[0] or str(error)
        raise _fault(spec, problem, error.hint or f"look at {download.page(name)}") from None
    return Online(spec, name, match["config"], match["split"], directory)


def read(found: Online) -> list[dict[str, Any]]:
    """Every row as plain values. Raises `DataError` where configuration or split is not there."""
    sets = _load(found)
    split = found.split or ("train" if "train" in sets else next(iter(sets)))
    if split not in sets:
        listed = ", ".join(sets)
        raise _fault(found.spec, f"has no split {split!r}{nearest(split, list(sets))}", f"its splits are {listed}")
    rows: list[dict[str, Any]] = sets[split].with_format("arrow")[:].to_pylist()
    return rows


def _load(found: Online) -> DatasetDict:
    """All splits of the configuration, read from the files alone."""
    try:
        import datasets
    except ImportError:
        fix = "pip install 'datasets>=4'"
        raise _fault(found.spec, "needs the datasets library, which is not installed", fix) from None
    datasets.disable_progress_bars()
    place = str(found.directory)
    try:
        configs = datasets.get_dataset_config_names(place)
        chosen = found.config or ("default" if "default" in configs else configs[0])
        if chosen not in configs or (found.config is None and "default" not in configs and len(configs) > 1):
            named = f"has no configuration {found.config!r}" if found.config else "has several configurations"
            fix = f"write one behind the name: {PREFIX}{found.name}/{configs[0]}; there are {', '.join(configs)}"
            raise _fault(found.spec, named, fix)
        return datasets.load_dataset(place, chosen)
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        problem = f"cannot be read: {str(error).splitlines()[0]}"
        raise _fault(found.spec, problem, f"look at {download.page(found.name)}, or give a file") from None


def _fault(spec: str, problem: str, fix: str) -> DataError:
    return DataError(spec, [Fault(spec, problem, fix)])
