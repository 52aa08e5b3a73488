from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI

from metier.web.serve import Address, Server, configured
from tests.unit.inference.test_elsewhere import Other


def test_told_twice_it_leaves_no_other_engine_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setattr("os._exit", left.append)
    child = Other(tmp_path, "llama-server").child
    voices: Any = SimpleNamespace(grounds=(SimpleNamespace(close=child.stop),))
    jobs: Any = None
    server = Server(configured(FastAPI(), Address()), jobs, voices)
    server.handle_exit(signal.SIGINT, None)
    assert not left
    os.kill(child._process.pid, 0)
    server.handle_exit(signal.SIGINT, None)
    assert left == [128 + signal.SIGINT]
    with pytest.raises(ProcessLookupError):
        os.kill(child._process.pid, 0)
