"""The OpenAPI description is true: schemathesis asks what it allows and what it forbids, and reads every answer."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis import Case, CheckFunction, GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.failures import FailureGroup

from metier.assistant.feedback import Feedback
from metier.assistant.mood import Moods
from metier.assistant.safety import Safety
from metier.assistant.tickets import Tickets
from metier.errors import MetierError
from metier.inference.voices import Limits, Voices
from metier.run import Run
from metier.web import jobs
from metier.web.care import Care
from metier.web.desk import Desk
from metier.web.dispatch import open_dispatch, typed
from metier.web.keys import Keys, new_key
from tests.promises import serving

_QUIET = settings(database=None, deadline=None, suppress_health_check=[*HealthCheck], phases=[Phase.generate])
_ROWS = b'{"prompt": "what is 1?", "answer": "it is 1"}\n{"prompt": "what is 2?", "answer": "it is 2"}\n'


@dataclass
class Server:
    """Where it answers, with whose key, and what there is to be asked for."""

    url: str
    key: str
    runs: list[str]
    random: random.Random = field(default_factory=lambda: random.Random(0))

    def __post_init__(self) -> None:
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {self.key}"
        self.models = [each["id"] for each in self.session.get(f"{self.url}/v1/models").json()["data"]]
        self.file = self._file()
        body = {"model": "base", "training_file": self.file}
        self.job = self.session.post(f"{self.url}/v1/fine_tuning/jobs", json=body).json()["id"]
        want = [{"role": "user", "content": "let me talk to a real person please"}]
        for _ in range(3):
            self.session.post(f"{self.url}/v1/chat/completions", json={"model": "small", "messages": want})

    def _file(self) -> str:
        sent = self.session.post(
            f"{self.url}/v1/files", files={"file": ("rows.jsonl", _ROWS)}, data={"purpose": "fine-tune"}
        )
        return str(sent.json()["id"])

    def known(self, case: Case) -> Case:
        """Mostly with names that there are: those that are made up are nobody's."""
        if self.random.random() < 0.2:
            return case
        body, path = case.body, case.path_parameters or {}
        if isinstance(body, dict):
            given = {"model": self._model, "training_file": lambda: self.file, "run": self._run}
            body.update({name: value() for name, value in given.items() if name in body})
            if body.get("validation_file"):
                body["validation_file"] = self.file
        if "file_id" in path:
            path["file_id"] = self._file() if case.method == "DELETE" else self.file
        given = {"name": self._model, "job_id": lambda: self.job, "number": lambda: self.random.randint(1, 3)}
        path.update({name: value() for name, value in given.items() if name in path})
        return case

    def _model(self) -> str:
        return self.random.choice(self.models)

    def _run(self) -> str:
        return self.random.choice(self.runs)


@pytest.fixture
def server(served_runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """All that there is, behind a key; its tunings fail at once, and what they would take is not timed."""

    def no_child(*_: Any, **__: Any) -> Run:
        raise MetierError("nothing is tuned here")

    monkeypatch.setattr(jobs.child, "train", no_child)
    foreseen = {"faults": [], "skippable": False, "hint": "", "plan": None}
    monkeypatch.setattr(jobs.child, "foresee", lambda *_, **__: foreseen)
    voices = Voices(Limits(sequences=8, waiting=16), offline=True)
    for name, run in served_runs.items():
        voices.add(run, name)
    database = tmp_path / "assistant.db"
    care = Care(Safety.open(), Moods.open(), Tickets(database), Feedback(database))
    desk = Desk(voices, open_dispatch(typed([*served_runs.values()], offline=True), tmp_path / "routers"), care)
    key = new_key(tmp_path / "keys.json", "boss", "admin")
    (tmp_path / "runs").symlink_to(served_runs["small"].directory.parent)
    with serving.served(desk, tmp_path, Keys.open(tmp_path / "keys.json")) as url:
        yield Server(url, key, [run.name for run in served_runs.values()])


@dataclass
class Found:
    """Statuses by mode, and what did not fit the description."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def asked(self) -> int:
        return self.statuses.total()

    @property
    def answered(self) -> float:
        """The share of those requests that fit the description which are answered."""
        positive = Counter({status: n for (mode, status), n in self.statuses.items() if mode == "positive"})
        return positive[200] / positive.total()


def ask(server: Server, examples: int) -> Found:
    """So many requests of each operation, as many again that break its description."""
    schema = schemathesis.openapi.from_url(
        f"{server.url}/openapi.json", headers={"Authorization": f"Bearer {server.key}"}
    )
    found = Found()
    for operation in (each.ok() for each in schema.get_all_operations()):
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            cases = operation.as_strategy(mode)
            _ask(server, cases.map(server.known) if mode.is_positive else cases, mode.value, examples, found)
    return found


def _ask(server: Server, cases: SearchStrategy[Case], mode: str, examples: int, found: Found) -> None:
    @seed(0)
    @settings(_QUIET, max_examples=examples)
    @given(case=cases)
    def one(case: Case) -> None:
        answer = case.call(session=server.session)
        found.statuses[mode, answer.status_code] += 1
        try:
            case.validate_response(answer, excluded_checks=_excluded(case, answer.status_code))
        except FailureGroup as group:
            for fault in group.exceptions:
                found.faults[f"{case.operation.label} {type(fault).__name__}"] = f"{fault}\n{case.as_curl_command()}"

    with suppress(Unsatisfiable):  # nothing can be wrong where nothing is sent
        one()


def _excluded(case: Case, status: int) -> list[CheckFunction]:
    """What cannot be asked: rules between keys stand in no schema, in a form every value is a text, a queue is full,
    a body of a hundred megabytes is refused unread."""
    load_all_checks()
    names = ["positive_data_acceptance"]
    if case.media_type == "multipart/form-data" or status == 413:
        names += ["negative_data_rejection"]
    names += ["not_a_server_error"] if status == 503 else []
    return CHECKS.get_by_names(names)


def assert_true(found: Found) -> None:
    assert not found.faults, "\n\n".join(f"{name}\n{text[:2000]}" for name, text in found.faults.items())
    failed = {status for _, status in found.statuses if status >= 500}
    assert failed <= {503}  # of a full queue
    assert found.answered >= 0.3


def test_what_is_described_is_so(server: Server) -> None:
    assert_true(ask(server, 3))


@pytest.mark.slow
def test_what_is_described_is_so_ten_thousand_times(server: Server) -> None:
    found = ask(server, 330)
    assert_true(found)
    assert found.asked >= 10_000, found.statuses
