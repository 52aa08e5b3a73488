"""scripts/pretrain_nano.py makes a base that has learned, from a folder of text."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from metier.errors import MetierError
from metier.inference.loaded import open_base
from metier.model.loading import NumberFormat

SCRIPT = Path(__file__).parents[2] / "scripts" / "pretrain_nano.py"
_WAYS = ("slowly", "at once", "in the rain", "before noon", "by themselves", "once more")


@pytest.mark.slow
def test_a_small_base_learns_its_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "texts").mkdir()
    for number in range(12):
        said = [
            f"The {name} went home {_WAYS[(number + place) % 6]}."
            for place, name in enumerate(["cat", "fox", "dog"] * 60)
        ]
        (tmp_path / "texts" / f"{number}.md").write_text("\n\n".join(said))
    spec = importlib.util.spec_from_file_location("pretrain_nano", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    texts, made = str(tmp_path / "texts"), tmp_path / "made"
    sizes = [
        "--vocabulary",
        "400",
        "--layers",
        "2",
        "--hidden",
        "32",
        "--max-length",
        "64",
        "--epochs",
        "8",
        "--batch",
        "2",
    ]
    monkeypatch.setattr(sys, "argv", ["x", texts, str(made), "--licence", "our own", "--learning-rate", "1e-2", *sizes])
    script.main()
    card = (made / "README.md").read_text()
    before, after = _losses(card)
    assert after < 0.5 * before
    assert "licence: our own" in card
    loaded = open_base(str(made), NumberFormat("float32", "float32"), "cpu")
    assert loaded.renderer.encode("The cat went home slowly.")
    with pytest.raises(MetierError, match="exists already"):
        script.main()


def _losses(card: str) -> tuple[float, float]:
    """With random weights, and trained."""
    said = card.partition("nats a token: ")[2]
    return float(said.split()[0]), float(said.partition("weights, ")[2].split()[0])
