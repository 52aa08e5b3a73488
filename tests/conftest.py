"""Where public data lies, and what it means that it is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before torch is loaded, as the command line does: waiting threads sleep (docs/decisions/0007).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--data", default="", help="folder with data/ and models/ of public sets; tests skip without it")


@pytest.fixture(scope="session")
def shared(request: pytest.FixtureRequest) -> Path:
    """The folder of public data and models, or a skip with the reason."""
    folder = Path(request.config.getoption("--data") or "missing").resolve()
    if not (folder / "data").is_dir():
        pytest.skip(f"public data is not at {folder}; pass --data FOLDER")
    return folder
