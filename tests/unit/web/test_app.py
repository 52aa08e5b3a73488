from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient

from metier.inference.voices import Voices
from metier.web.app import DRAIN, make_app
from metier.web.desk import Desk
from metier.web.guard import Rules
from metier.web.jobs import Jobs
from metier.web.keys import Keys


@pytest.fixture
def client(tmp_path: Path) -> Callable[[Voices, Jobs], TestClient]:
    def made(voices: Voices, jobs: Jobs) -> TestClient:
        return TestClient(make_app(Desk(voices), jobs, Rules(hosts=("testserver",)), Keys(), home=tmp_path))

    return made


@pytest.mark.parametrize(("ago", "left"), [(0, DRAIN), (DRAIN - 5, 5), (DRAIN + 5, 0)])
def test_all_of_a_server_ends_by_one_deadline(
    client: Callable[[Voices, Jobs], TestClient],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ago: float,
    left: float,
) -> None:
    """From when it was told to stop, however long answers took after that."""
    jobs, given = Jobs(tmp_path / "jobs", lambda *_: None), []
    jobs._halted = time.monotonic() - ago
    monkeypatch.setattr(Jobs, "stop", lambda _, timeout: given.append(timeout))
    monkeypatch.setattr(Voices, "stop", lambda _, timeout: given.append(timeout))
    with client(Voices(offline=True), jobs):
        pass
    assert given == pytest.approx([left, left], abs=1)


def test_a_server_without_an_engine_is_not_well(
    client: Callable[[Voices, Jobs], TestClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = [SimpleNamespace(worker=SimpleNamespace(alive=True)) for _ in range(2)]
    monkeypatch.setattr(Voices, "grounds", property(lambda _: engines))
    jobs = Jobs(tmp_path / "jobs", lambda *_: None)
    asking = client(Voices(offline=True), jobs)
    assert asking.get("/health").json() == {"status": "ok"}
    engines[1].worker.alive = False
    answer = asking.get("/health")
    assert (answer.status_code, "an engine has ended" in answer.text) == (503, True)
    jobs.stop(5)
