from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from metier.errors import ModelError
from metier.hub import find


def base(folder: Path, *names: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    for name in names:
        save_file({f"{name}.weight": torch.zeros(2, 3)}, folder / name)
    return folder


def test_weights_that_lie_there_twice_count_once(tmp_path: Path) -> None:
    """As in Mistral's folders, where consolidated.safetensors holds the same again."""
    parts = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    sharded = base(tmp_path / "sharded", *parts, "consolidated.safetensors")
    index = {"weight_map": {f"{name}.weight": name for name in parts}}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    single = base(tmp_path / "single", "model.safetensors", "consolidated.safetensors")
    assert sum(tensor.size for tensor in find("sharded", tmp_path).tensors()) == 12
    assert [tensor.name for tensor in find(str(single), tmp_path).tensors()] == ["model.safetensors.weight"]


def test_the_digest_follows_weights_and_config(tmp_path: Path) -> None:
    folder = base(tmp_path / "one", "model.safetensors")
    before = find("one", tmp_path).weights_digest
    assert find("one", tmp_path).weights_digest == before
    (folder / "config.json").write_text('{"a": 1}')
    assert find("one", tmp_path).weights_digest != before


@pytest.mark.parametrize(
    ("name", "problem"), [("nowhere", "does not exist"), ("bare", "no config.json"), ("empty", r"no \*.safetensors")]
)
def test_what_is_no_base_is_said(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / "bare").mkdir()
    base(tmp_path / "empty")
    with pytest.raises(ModelError, match=problem):
        find(name, tmp_path, offline=True)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (base(tmp_path / "one") / "model.safetensors").write_bytes(b"not so safe")
    with pytest.raises(ModelError, match="is not a safetensors file"):
        find("one", tmp_path).tensors()


def test_a_run_that_is_not_there_is_no_name_of_the_hub(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such run"):
        find("runs/lora-0", tmp_path)
