"""The guide's commands, executed as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from metier.run import Run

ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs" / "guides" / "benchmarks.md"


@pytest.mark.slow
def test_every_command_of_the_guide_on_benchmarks_runs(run: Run, tmp_path: Path) -> None:
    text = GUIDE.read_text()
    blocks = {language: body for language, body in re.findall(r"```(yaml|json)\n(.*?)```", text, re.DOTALL)}
    (tmp_path / "capitals.yaml").write_text(blocks["yaml"])
    (tmp_path / "capitals.jsonl").write_text(blocks["json"])
    commands = re.findall(r"^\$ (.*)$", text, re.MULTILINE)
    assert len(commands) == 4
    home = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HOME": str(tmp_path / "cache")}
    for command in commands:
        words = command.replace("RUN", str(run.directory)).split()
        words = words[1:] if words[0] == "python" else ["-m", "metier.cli.main", *words[1:]]
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=home, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "capitals" in done.stdout + done.stderr
