from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from metier.cli.serve import _introduce, _opened, serve
from metier.errors import MetierError
from metier.files import write_json
from metier.inference.voices import Voices
from metier.web.desk import Desk
from tests import opened


def test_it_is_told_which_domains_are_taken_for_medical(capsys: pytest.CaptureFixture[str]) -> None:
    voices: Any = SimpleNamespace(all={"care": SimpleNamespace(learned=("my-clinic", "selfcare"))})
    served = SimpleNamespace(voices=voices, names=["care"])
    _introduce(cast(Desk, served), opened.safety())
    assert "taken for medical: my-clinic; for banking: none;" in capsys.readouterr().err


def test_what_is_tuned_is_learned_of_as_what_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    desk, jobs = _opened(Voices(offline=True), opened.safety(), opened.moods(), tmp_path / "routers", offline=True)
    assert jobs.serve == desk.add
    assert desk.lessons.why == "the served runs know no domain; there is nothing to choose between"
    jobs.stop(5)


def test_whoever_names_no_run_is_told_the_newest_tuned_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "metier serve runs/…" in _refused()
    tuned = {"old": True, "new": True, "newest-but-prompted": False}
    for day, (name, adapted) in enumerate(tuned.items()):
        (tmp_path / "runs" / name / ("adapter" if adapted else "answers")).mkdir(parents=True)
        write_json(
            tmp_path / "runs" / name / "run.json", {"format": 1, "status": "finished", "started": f"2026-01-0{day + 1}"}
        )
    assert "metier serve runs/new" in _refused()


def _refused() -> str:
    with pytest.raises(MetierError, match="nothing is served") as refused:
        serve([])
    return str(refused.value.hint)
