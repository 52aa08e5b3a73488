"""The OpenAPI description is true: schemathesis asks what it allows and what it forbids, and reads every answer."""

from __future__ import annotations

import random
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
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
from metier.assistant.tickets import Tickets
from metier.data import dataset
from metier.inference.voices import Limits, Voices
from metier.recipe import Recipe
from metier.run import Run
from metier.web import jobs
from metier.web.care import Care
from metier.web.desk import Desk
from metier.web.dispatch import open_dispatch, typed
from metier.web.keys import Keys, new_key
from metier.web.lessons import Lesson, Lessons
from tests import opened
from tests.promises import serving

_QUIET = settings(database=None, deadline=None, suppress_health_check=[*HealthCheck], phases=[Phase.generate])
_ROWS = b"".join(b'{"prompt": "what is %d?", "answer": "it is %d"}\n' % (n, n) for n in range(20))


@dataclass
class Server:
    """Where it answers, with whose key, and what there is to be asked for."""

    url: str
    key: str
    asked: int = 0
    random: random.Random = field(default_factory=lambda: random.Random(0))

    def __post_init__(self) -> None:
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {self.key}"
        self.models = [each["id"] for each in self.session.get(f"{self.url}/v1/models").json()["data"]]
        self.file = self._file()
        self.job = self._job()
        want = [{"role": "user", "content": "let me talk to a real person please"}]
        for _ in range(3):
            self.session.post(f"{self.url}/v1/chat/completions", json={"model": "small", "messages": want})

    def _file(self) -> str:
        sent = self.session.post(
            f"{self.url}/v1/files", files={"file": ("rows.jsonl", _ROWS)}, data={"purpose": "fine-tune"}
        )
        return str(sent.json()["id"])

    def _job(self) -> str:
        body = {"model": "base", "training_file": self.file}
        return str(self.session.post(f"{self.url}/v1/fine_tuning/jobs", json=body).json()["id"])

    def valid(self, case: Case) -> Case:
        """Four of five with names that there are, by rules that stand in no schema: what is made up is nobody's."""
        self.asked += 1
        if self.asked % 5 == 0:
            return case
        if isinstance(case.body, dict):
            self._mend(case.body, case.operation.path)
        path = case.path_parameters or {}
        if "file_id" in path:
            path["file_id"] = self._file() if case.method == "DELETE" else self.file
        if "job_id" in path:
            path["job_id"] = self._job() if "cancel" in case.operation.path else self.job
        given = {"name": self._model, "number": lambda: self.random.randint(1, 3)}
        path.update({name: value() for name, value in given.items() if name in path})
        return case

    def _mend(self, body: dict[str, Any], path: str) -> None:
        if "lora_adapter" in path:
            self._load(body, unload="unload" in path)
        body.update({name: value for name, value in self._names(path).items() if name in body})
        for name in ("validation_file", "domain", "tools", "functions", "suffix", "best_of", "top_logprobs"):
            body.pop(name, None)
        if body.get("messages"):
            body["messages"][-1] = {"role": "user", "content": "how do I open the 7th box?"}
            body.pop("text", None)
        if body.get("prompt") is not None and self.random.random() < 0.5:
            body["prompt"] = "the 7th box"
        if isinstance(body.get("logit_bias"), dict):
            body["logit_bias"] = {str(token): bias for token, bias in enumerate(body["logit_bias"].values())}
        for name in ("max_tokens", "max_completion_tokens"):
            if body.get(name):
                body[name] = min(body[name], 32)
        if body.get("method"):
            body["method"]["type"] = "supervised"  # as the file is
        wanted = body.get("response_format")
        if isinstance(wanted, dict) and "json_schema" in wanted:
            wanted["json_schema"]["schema"] = {"type": "object", "properties": {"open": {"type": "boolean"}}}

    def _names(self, path: str) -> dict[str, Any]:
        """A base is tuned, a run has a report, and only a conversation is sent on."""
        own = {"/v1/fine_tuning/jobs": "base", "/v1/metier/plans": "base", "/v1/metier/reports": "small"}
        own["/v1/chat/completions"] = self._model()
        return {"model": own.get(path, "small"), "training_file": self.file, "purpose": "fine-tune"}

    def _load(self, body: dict[str, Any], *, unload: bool) -> None:
        """The third run is loaded where it is to be unloaded, and the other way round."""
        spare = {"run": "spare", "name": "third"}
        if unload:
            self.session.post(f"{self.url}/v1/load_lora_adapter", json=spare)
            body["name"] = "third"
        else:
            self.session.post(f"{self.url}/v1/unload_lora_adapter", json=spare)
            body.update(spare)

    def _model(self) -> str:
        return self.random.choice(self.models)


@pytest.fixture
def server(
    served_runs: dict[str, Run], served_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """All that there is, behind a key; a tuning waits until it is stopped, and what it would take is not timed."""

    def no_child(*_: Any, started: Callable[[Callable[[], None]], None], **__: Any) -> Run:
        stopped = threading.Event()
        started(stopped.set)
        stopped.wait()
        raise KeyboardInterrupt

    def read(recipe: Recipe, *, offline: bool) -> None:
        dataset.load(recipe, offline=offline)

    monkeypatch.setattr(jobs.child, "train", no_child)
    monkeypatch.setattr(jobs.child, "read", read)
    foreseen = {"faults": [], "skippable": False, "hint": "", "plan": None}
    monkeypatch.setattr(jobs.child, "foresee", lambda *_, **__: foreseen)
    voices = Voices(Limits(sequences=8, waiting=16), offline=True)
    for name, run in served_runs.items():
        voices.add(run, name)
    database = tmp_path / "assistant.db"
    care = Care(opened.safety(), opened.moods(), Tickets(database), Feedback(database))
    dispatch = open_dispatch(typed([*served_runs.values()], offline=True), tmp_path / "routers")
    desk = Desk(voices, Lessons(Lesson(dispatch)), care)
    key = new_key(tmp_path / "keys.json", "boss", "admin")
    shutil.copytree(served_runs["small"].directory, tmp_path / "runs" / "spare")
    (tmp_path / "base").symlink_to(served_home / "base")
    with serving.served(desk, tmp_path, Keys.open(tmp_path / "keys.json")) as url:
        yield Server(url, key)


@dataclass
class Found:
    """By operation the statuses of what fits its description and of what breaks it, and what was answered untruly."""

    fitting: dict[str, Counter[int]] = field(default_factory=dict)
    breaking: dict[str, Counter[int]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def statuses(self) -> Counter[int]:
        return sum((*self.fitting.values(), *self.breaking.values()), Counter[int]())

    @property
    def answered(self) -> float:
        """The share of those requests that fit the description which are answered."""
        fitting = sum(self.fitting.values(), Counter[int]())
        return fitting[200] / fitting.total()

    @property
    def unanswered(self) -> dict[str, Counter[int]]:
        """Operations of which nothing that fits their description was ever answered."""
        return {name: statuses for name, statuses in self.fitting.items() if not statuses[200]}


def ask(server: Server, examples: int) -> Found:
    """So many requests of each operation, as many again that break its description."""
    schema = schemathesis.openapi.from_url(
        f"{server.url}/openapi.json", headers={"Authorization": f"Bearer {server.key}"}
    )
    found = Found()
    for operation in (each.ok() for each in schema.get_all_operations()):
        statuses = found.fitting[operation.label] = Counter()
        _ask(server, operation.as_strategy(GenerationMode.POSITIVE).map(server.valid), examples, statuses, found.faults)
        statuses = found.breaking[operation.label] = Counter()
        with suppress(Unsatisfiable):  # nothing can be wrong where nothing is sent
            _ask(server, operation.as_strategy(GenerationMode.NEGATIVE), examples, statuses, found.faults)
    return found


def _ask(
    server: Server, cases: SearchStrategy[Case], examples: int, statuses: Counter[int], faults: dict[str, str]
) -> None:
    @seed(0)
    @settings(_QUIET, max_examples=examples)
    @given(case=cases)
    def one(case: Case) -> None:
        answer = case.call(session=server.session, timeout=60)
        statuses[answer.status_code] += 1
        try:
            case.validate_response(answer, excluded_checks=_excluded(case, answer.status_code))
        except FailureGroup as group:
            for fault in group.exceptions:
                faults[f"{case.operation.label} {type(fault).__name__}"] = f"{fault}\n{case.as_curl_command()}"

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
    assert {status for status in found.statuses if status >= 500} <= {503}  # of a full queue
    assert not found.unanswered, found.unanswered
    assert found.answered >= 0.3


@pytest.mark.long
def test_what_is_described_is_so(server: Server) -> None:
    assert_true(ask(server, 3))


@pytest.mark.slow
def test_what_is_described_is_so_ten_thousand_times(server: Server) -> None:
    found = ask(server, 330)
    assert_true(found)
    assert found.statuses.total() >= 10_000, found.statuses
