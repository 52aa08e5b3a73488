from __future__ import annotations

from pathlib import Path

import pytest

from metier.cli.runs import runs
from metier.files import write_json


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 99}', "scores"])
def test_a_run_that_cannot_be_read_hides_no_other(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("good", "torn"):
        (tmp_path / name).mkdir()
    facts = {"status": "finished", "method": "lora", "model": "nano", "started": "2026-01-01"}
    write_json(tmp_path / "good" / "run.json", {"format": 1, **facts})
    read = content == "scores"
    (tmp_path / "torn" / "run.json").write_text('{"format": 1, "status": "finished"}' if read else content)
    (tmp_path / "torn" / "scores.json").write_text("{")
    runs(tmp_path)
    told = capsys.readouterr()
    assert "good" in told.out
    assert ("torn" in told.out) == read
    assert f"{'without its scores' if read else 'left out'}: {tmp_path / 'torn'}" in told.err
