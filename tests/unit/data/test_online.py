"""Data sets of the hub, from a stand-in on this machine."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from metier import download
from metier.data.dataset import Dataset, load
from metier.data.items import Item
from metier.errors import DataError
from metier.events import Event
from metier.recipe import Recipe
from tests.standin import StandIn, commit_of
from tests.unit.data import foreign

NAME = "someone/devices"
ROWS = foreign.rows(foreign.ANSWERS["completion"])


def lines(rows: list[foreign.Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table(rows: list[foreign.Row]) -> bytes:
    stream = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


@pytest.fixture
def hub(standin: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "arrow")
    return standin


def loaded(folder: Path, data: str, *, offline: bool = False, **more: object) -> Dataset:
    raw = {"model": "nano", "domain": [{"name": "d", "data": data, **more}]}
    return load(Recipe.of(raw, folder / "recipe.toml"), offline=offline)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_the_same_rows_are_the_same_data_as_a_local_file(hub: StandIn, tmp_path: Path, kind: str) -> None:
    files = {f"data/train.{kind}": lines(ROWS) if kind == "jsonl" else table(ROWS)}
    hub.add(NAME, files, kind="datasets")
    (tmp_path / "x.jsonl").write_bytes(lines(ROWS))
    local, online = loaded(tmp_path, "x.jsonl"), loaded(tmp_path, f"hub:{NAME}:train")
    assert (online.train_hash, online.heldout_hash) == (local.train_hash, local.heldout_hash)
    assert online.domains[0].revisions == {f"hub:{NAME}:train": commit_of(files)}
    assert {item.place for item in _items(online)} == {f"hub:{NAME}:train:{n}" for n in range(1, len(ROWS) + 1)}


def _items(data: Dataset) -> list[Item]:
    return [item for each in data.domains for item in (*each.train, *each.validation, *each.heldout)]


def test_a_split_is_held_out_and_offline_asks_nobody(
    hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(NAME, {"data/train.jsonl": lines(ROWS[:16]), "data/test.jsonl": lines(ROWS[16:])}, kind="datasets")
    first = loaded(tmp_path, f"hub:{NAME}:train", heldout=f"hub:{NAME}:test")
    assert {item.reference for item in first.domains[0].heldout} == {row["completion"] for row in ROWS[16:]}
    asked = len(hub.requests)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a socket is opened"))
    again = loaded(tmp_path, f"hub:{NAME}:train", offline=True, heldout=f"hub:{NAME}:test")
    assert again.heldout_hash == first.heldout_hash
    assert len(hub.requests) == asked


def test_a_revision_is_read_as_it_was(hub: StandIn, tmp_path: Path) -> None:
    repository = hub.add(NAME, {"train.jsonl": lines(ROWS)}, kind="datasets")
    then = next(iter(repository.commits))
    changed = {"train.jsonl": lines(ROWS[:20])}
    repository.commits[commit_of(changed)] = changed
    assert len(_items(loaded(tmp_path, f"hub:{NAME}@{then}"))) == 24
    assert len(_items(loaded(tmp_path, f"hub:{NAME}"))) == 20


CONFIGS = b"""---
configs:
- config_name: short
  data_files: short.jsonl
- config_name: long
  data_files: long.jsonl
---
"""


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (f"hub:{NAME}/short:dev", "has no split 'dev'; its splits are train"),
        (f"hub:{NAME}", "has several configurations; write one behind the name: .* there are short, long"),
        (f"hub:{NAME}/shrt", "has no configuration 'shrt'; write one behind the name: .* there are short, long"),
        ("hub:someone/nothing", "hub:someone/nothing: the hub has no such data set"),
        (f"hub:{NAME}@nowhere", "hub:someone/devices@nowhere: has no such revision"),
        ("hub:devices", "is no data set of the hub; write hub:owner/name"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(hub: StandIn, tmp_path: Path, spec: str, said: str) -> None:
    files = {"README.md": CONFIGS, "short.jsonl": lines(ROWS), "long.jsonl": lines(ROWS)}
    hub.add(NAME, files, kind="datasets")
    with pytest.raises(DataError, match=said):
        loaded(tmp_path, spec)
    assert len(_items(loaded(tmp_path, f"hub:{NAME}/short"))) == 24


def test_offline_without_a_copy_is_a_fault_and_skipped_where_optional(hub: StandIn, tmp_path: Path) -> None:
    hub.add(NAME, {"train.jsonl": lines(ROWS)}, kind="datasets")
    with pytest.raises(DataError, match=f"hub:{NAME}: is not on this machine, and --offline was given"):
        loaded(tmp_path, f"hub:{NAME}", offline=True)
    assert not hub.requests
    (tmp_path / "x.jsonl").write_bytes(lines(ROWS))
    domains = [
        {"name": "there", "data": "x.jsonl", "optional": True},
        {"name": "gone", "data": f"hub:{NAME}", "optional": True},
        {"name": "lost", "data": "x.jsonl", "heldout": "y.jsonl", "optional": True},
    ]
    found = load(Recipe.of({"model": "nano", "domain": domains}, tmp_path / "recipe.toml"), offline=True)
    assert [each.domain.name for each in found.domains] == ["there"]
    assert [fault.place for fault in found.skipped] == ["domain gone", "domain lost"]
    assert "y.jsonl: does not exist" in found.skipped[1].problem
    with pytest.raises(DataError, match="give the data of one domain at least"):
        load(Recipe.of({"model": "nano", "domain": domains[1:]}, tmp_path / "recipe.toml"), offline=True)


def test_an_optional_domain_with_faulty_rows_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(lines(ROWS) + b"{\n")
    with pytest.raises(DataError, match=r"x\.jsonl:25: is not JSON") as caught:
        loaded(tmp_path, "x.jsonl", optional=True)
    assert "skipped" not in str(caught.value)


def test_without_the_library_its_name_is_said(hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, {"train.jsonl": lines(ROWS)}, kind="datasets")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"needs the datasets library.* pip install 'datasets>=4'"):
        loaded(tmp_path, f"hub:{NAME}")


def test_a_fetch_is_said_with_its_page(hub: StandIn, tmp_path: Path) -> None:
    hub.add(NAME, {"train.jsonl": lines(ROWS)}, kind="datasets")
    heard: list[Event] = []
    raw = {"model": "nano", "domain": [{"name": "d", "data": f"hub:{NAME}"}]}
    load(Recipe.of(raw, tmp_path / "recipe.toml"), listen=heard.append)
    assert download.page(NAME) in str(heard[0].values["text"])
