"""The Dockerfile against the repository; there is no docker here."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def said(instruction: str) -> list[str]:
    return [line.removeprefix(f"{instruction} ") for line in LINES if line.startswith(f"{instruction} ")]


def test_what_it_copies_is_there_and_is_what_building_needs() -> None:
    copied = {name.removeprefix("./") for line in said("COPY") for name in line.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    assert {"pyproject.toml", "src", "constraints.txt", PROJECT["readme"], *PROJECT["license-files"]} <= copied


def test_what_it_installs_is_declared_and_constrained() -> None:
    (install,) = [line for line in said("RUN") if "pip install" in line]
    assert "--constraint constraints.txt" in install
    (extras,) = re.findall(r'"\.\[(.*?)\]"', install)
    assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()


def test_it_runs_the_command_as_nobody_special_on_a_python_that_will_do() -> None:
    assert said("ENTRYPOINT") == ['["metier"]']
    assert "metier" in PROJECT["scripts"]
    user = said("USER")[-1]
    assert user not in ("root", "0")
    assert any(re.search(rf"useradd .*{user}\b", line) for line in said("RUN"))
    (version,) = re.findall(r"^python:3\.(\d+)-slim$", said("FROM")[0])
    assert int(version) >= int(PROJECT["requires-python"].removeprefix(">=3."))
