"""Where public data lies, and what it means that it is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standin import StandIn

# Before torch is loaded, as the command line does: waiting threads soon sleep (docs/decisions/0007).
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--data", default="", help="folder with data/ and models/ of public sets; tests skip without it")


@pytest.fixture(scope="session")
def shared(request: pytest.FixtureRequest) -> Path:
    """The folder of public data and models, or a skip with the reason."""
    folder = Path(request.config.getoption("--data") or "missing").resolve()
    if not (folder / "data").is_dir():
        pytest.skip(f"public data is not at {folder}; pass --data FOLDER")
    return folder


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A hub on this machine that this process asks, with an empty cache."""
    made = StandIn()
    made.install(monkeypatch, tmp_path / "cache")
    yield made
    made.close()
