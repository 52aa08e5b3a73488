from __future__ import annotations

import errno
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi.testclient import TestClient

from metier.data import dataset
from metier.errors import MetierError
from metier.events import Event, silent
from metier.files import write_json
from metier.inference.voices import Voice, Voices
from metier.recipe import Recipe
from metier.run import Run
from metier.web import app, jobs
from metier.web.desk import Desk
from metier.web.failures import Refusal
from metier.web.guard import Rules
from metier.web.job import Job
from metier.web.jobs import Jobs
from metier.web.keys import Keys

ROOM = OSError(errno.ENOSPC, "No space left on device")


READ = jobs.child.read


@pytest.fixture(autouse=True)
def _reads_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child of its own takes a second."""

    def read(recipe: Recipe, *, offline: bool) -> None:
        dataset.load(recipe, offline=offline)

    monkeypatch.setattr(jobs.child, "read", read)


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def job(name: str) -> Job:
    given: dict[str, Any] = {"hyperparameters": {"n_epochs": 1, "batch_size": 8}, "suffix": "numbers", "seed": 0}
    who = {"owner": "local", "model": "base", "base": "base", "training_file": "file", "validation_file": None}
    return Job(id=f"ftjob-{name * 32}", created_at=1, **who, **given)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"what is {n}?", "answer": f"it is {n}"}) + "\n" for n in range(40)))
    return path


@pytest.fixture
def tune(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise MetierError("enough")

    monkeypatch.setattr(jobs.child, "train", refused)
    monkeypatch.setattr(jobs, "_PATIENCE", 0.05, raising=False)


@pytest.mark.usefixtures("tune")
def test_a_disk_that_is_full_for_a_while_ends_no_jobs_thread(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while a job is begun, nor while its end is written down."""
    made, tell, full = Jobs(tmp_path / "jobs", lambda *_: None), Jobs._tell, [True]

    def told(self: Jobs, id: str, level: str, message: str, data: Any = None) -> None:
        if full[0] and "waits" not in message:
            raise ROOM
        tell(self, id, level, message, data)

    monkeypatch.setattr(Jobs, "_tell", told)
    keep = Jobs._keep
    monkeypatch.setattr(
        Jobs, "_keep", lambda self, each: _full(full[0] and each.status == "failed") or keep(self, each)
    )
    made.create(job("a"), rows, None)
    until(lambda: made.get(job("a").id, "local").status == "running")
    time.sleep(0.2)
    full[0] = False
    until(lambda: made.get(job("a").id, "local").status == "failed")
    made.create(job("b"), rows, None)
    until(lambda: made.get(job("b").id, "local").status == "failed")
    made.stop(5)


def _full(full: bool) -> None:
    if full:
        raise ROOM


def test_one_server_alone_tunes_in_a_folder(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun, going = [], threading.Event()

    def train(recipe: Any, *_: Any, **__: Any) -> None:
        begun.append(recipe)
        assert going.wait(5)
        raise MetierError("enough")

    monkeypatch.setattr(jobs.child, "train", train)
    first = Jobs(tmp_path / "jobs", lambda *_: None)
    first.create(job("a"), rows, None)
    until(lambda: begun)
    second = Jobs(tmp_path / "jobs", lambda *_: None)
    assert "tunings belong to another server" in caplog.text
    assert second.get(job("a").id, "local").status == "running"
    for asked in (lambda: second.create(job("b"), rows, None), lambda: second.cancel(job("a"))):
        with pytest.raises(Refusal, match="belong to another server"):
            asked()
    second.stop(5)
    going.set()
    until(lambda: first.get(job("a").id, "local").status == "failed")
    first.stop(5)
    assert len(begun) == 1
    third = Jobs(tmp_path / "jobs", lambda *_: None)
    assert third.create(job("b"), rows, None).status == "queued"
    third.stop(5)


def test_what_fails_while_the_server_stops_goes_on_at_the_next_start(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = threading.Event()

    def train(*_: Any, started: Callable[[Callable[[], None]], None], **__: Any) -> None:
        started(stopped.set)
        assert stopped.wait(5)
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(jobs.child, "train", train)
    made = Jobs(tmp_path / "jobs", lambda *_: None)
    made.create(job("a"), rows, None)
    until(lambda: made._stop)
    first, second, *_ = reversed(made.events(made.get(job("a").id, "local")))
    assert first["message"] == "the job waits for its turn"
    assert second["message"].startswith("preparing: ")
    made.stop(5)
    assert made.get(job("a").id, "local").status == "queued"


def test_every_fault_of_a_file_is_told_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a client, who knows nothing of recipes and where files lie here."""
    monkeypatch.setattr(jobs.child, "read", READ)
    turns = ({"role": "user", "content": "how?"}, {"role": "assistant", "content": "so"})
    lines = [json.dumps({"messages": [turn]}) for turn in turns] + [json.dumps({"messages": turns})] * 3
    path = tmp_path / "talks.jsonl"
    path.write_text("\n".join([*lines, '{"messages": [']))
    made = Jobs(tmp_path / "jobs", lambda *_: None)
    with pytest.raises(Refusal) as refused:
        made.create(job("a"), path, None)
    first, *places = str(refused.value).split("\n")
    assert first == "the data has 3 faults"
    assert sorted(each.strip().partition(": ")[0] for each in places) == [f"talks.jsonl:{line}" for line in (1, 2, 6)]
    assert (refused.value.status, refused.value.param) == (400, "training_file")
    assert "skip_faulty" in refused.value.hint
    assert "[[domain]]" not in refused.value.hint
    assert made.all("local") == []
    made.stop(5)


def tuned(recipe: Any, *_: Any, **__: Any) -> Run:
    """A run of three steps."""
    run = Run(recipe.directory / "runs" / "lora-1")
    run.directory.mkdir(parents=True)
    write_json(run.directory / "run.json", {"format": 1, "status": "finished"})
    record = run.recorder(silent)
    for step, tokens in enumerate((373, 357.0, 20), 1):
        record(Event("train", step, 3, {"loss": 4.5, "tokens": tokens}))
        record(Event("validation", step, 3, {"score": 0.5}))
    return run


def test_a_job_tells_how_many_tokens_it_trained_on(tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.child, "train", tuned)
    made = Jobs(tmp_path / "jobs", lambda *_: None)
    made.create(job("a"), rows, None)
    until(lambda: made.get(job("a").id, "local").status == "succeeded")
    made.stop(5)
    told = made.get(job("a").id, "local").told()
    assert (told["trained_tokens"], "unloaded" in told) == (750, False)


def test_the_step_that_is_served_is_its_checkpoint(tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.child, "train", tuned)
    made = Jobs(tmp_path / "jobs", lambda *_: None)
    made.create(job("a"), rows, None)
    assert made.checkpoints(job("a")) == []
    until(lambda: made.get(job("a").id, "local").status == "succeeded")
    made.stop(5)
    done = made.get(job("a").id, "local")
    Run(made._made_by(done)).update(best_step=2)
    (checkpoint,) = made.checkpoints(done)
    assert checkpoint["metrics"] == {"step": 2, "score": 0.5}
    assert checkpoint["fine_tuned_model_checkpoint"] == done.fine_tuned_model


def test_what_is_tuned_and_being_loaded_is_not_cancelled_and_may_be_unloaded(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.child, "train", tuned)
    loading, loaded = threading.Event(), threading.Event()
    made = Jobs(tmp_path / "jobs", lambda *_: loading.set() or loaded.wait(60))
    made.create(job("a"), rows, None)
    assert loading.wait(60)
    going = made.get(job("a").id, "local")
    assert (going.told()["status"], going.told()["fine_tuned_model"]) == ("running", None)
    with pytest.raises(Refusal, match="is tuned, and about to be served"):
        made.cancel(going)
    made.remember("numbers-lora-1")
    loaded.set()
    until(lambda: made.get(going.id, "local").status == "succeeded")
    made.stop(5)
    ended = made.get(going.id, "local")
    assert (ended.fine_tuned_model, ended.unloaded) == ("numbers-lora-1", True)


def test_what_was_about_to_be_served_when_the_server_died_is_cancelled_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While others stand in front of it, and while it is read again."""
    going, done = threading.Event(), threading.Event()

    def train(recipe: Any, *_: Any, **__: Any) -> Run:
        going.set()
        done.wait(60)
        return tuned(recipe)

    monkeypatch.setattr(jobs.child, "train", train)
    for name in ("a", "b"):
        left = replace(job(name), status="running", fine_tuned_model="numbers-lora-1")
        (tmp_path / "jobs" / left.id).mkdir(parents=True)
        write_json(tmp_path / "jobs" / left.id / "job.json", asdict(left))
        recipe = 'model = "nano"\nstrategy.method = "lora"\n[[domain]]\nname = "numbers"\ndata = "rows.csv"\n'
        (tmp_path / "jobs" / left.id / "recipe.toml").write_text(recipe)
    made = Jobs(tmp_path / "jobs", lambda *_: None)
    assert going.wait(60)
    for name in ("b", "a"):
        assert made.cancel(made.get(job(name).id, "local")).status == "cancelled"
    done.set()
    made.stop(5)


def test_what_was_unloaded_stays_so_until_that_very_run_is_loaded_again(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the server is started."""

    def add(voices: Voices, run: Run, name: str) -> Voice:
        return voices._voices.setdefault(name, Voice(name, cast(Any, None), run))

    monkeypatch.setattr(jobs.child, "train", tuned)
    monkeypatch.setattr(Voices, "add", add)
    monkeypatch.setattr(Voices, "_forget", lambda *_: None)
    monkeypatch.setattr(app, "_model", lambda name, _: name)
    first, second = (replace(job(name), suffix=name) for name in "ab")

    @contextmanager
    def started(*served: str) -> Iterator[Callable[..., None]]:
        desk = Desk(Voices(offline=True))
        made = Jobs(tmp_path / "jobs", desk.add)
        client = TestClient(app.make_app(desk, made, Rules(hosts=("testserver",)), Keys(), home=tmp_path))
        if not made.all("local"):
            for each in (first, second):
                made.create(each, rows, None)
        until(lambda: {each.status for each in made.all("local")} == {"succeeded"})
        assert {*desk.voices.all} == {*served}

        def post(way: str, **body: str) -> None:
            assert client.post(f"/v1/{way}_lora_adapter", json=body).status_code == 200

        yield post
        made.stop(5)

    with started("a-lora-1", "b-lora-1") as post:
        post("unload", name="a-lora-1")
    with started("b-lora-1") as post:
        post("load", name="a-lora-1", run=f"jobs/{second.id}/runs/lora-1")  # another one, for a while
    with started("b-lora-1") as post:
        post("load", name="a-lora-1", run=f"jobs/{first.id}/runs/lora-1")
    with started("a-lora-1", "b-lora-1"):
        pass


@pytest.mark.parametrize(
    ("suffix", "domain"),
    [
        ("sums", "sums"),
        ("sums_", "sums_"),  # as it was taken before any text was
        ("Our Sums, 2nd", "our-sums-2nd"),
        ("日本語", "tuned"),
        (" ", "tuned"),
        (None, "tuned"),
        ("Ⅷ" * 64, "viii" * 16),
    ],
)
def test_a_domain_is_called_as_clients_call_it_as_far_as_may_be(suffix: str | None, domain: str) -> None:
    assert replace(job("a"), suffix=suffix).domain == domain


@pytest.mark.usefixtures("tune")
@pytest.mark.parametrize("what", ["write_atomic", "append_line", "write_json"])
def test_a_job_for_which_there_is_no_room_is_not_there(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    made = Jobs(tmp_path / "jobs", lambda *_: None)
    with monkeypatch.context() as full:
        full.setattr(jobs, what, lambda *_, **__: _full(True))
        with pytest.raises(OSError, match="No space"):
            made.create(job("a"), rows, None)
    assert made.all("local") == []
    assert not (tmp_path / "jobs" / job("a").id).exists()
    made.create(job("a"), rows, None)
    until(lambda: made.get(job("a").id, "local").status == "failed")
    made.stop(5)


@pytest.mark.usefixtures("tune")
def test_what_cannot_be_begun_on_a_full_disk_is_begun_later(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, keep, full = Jobs(tmp_path / "jobs", lambda *_: None), Jobs._keep, [True]

    def kept(self: Jobs, job: Job) -> None:
        if full[0] and job.status == "running":
            full[0] = False
            raise ROOM
        keep(self, job)

    monkeypatch.setattr(Jobs, "_keep", kept)
    made.create(job("a"), rows, None)
    until(lambda: made.get(job("a").id, "local").status == "failed")  # for `tune` has it so
    made.stop(5)


def test_a_job_that_cannot_be_read_hides_no_other(tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one of a later version, or of a disk that lost it."""
    monkeypatch.setattr(jobs.child, "train", tuned)
    made = Jobs(tmp_path / "jobs", lambda *_: None)
    first = made.create(job("a"), rows, None)
    for name, text in (("b", "{}"), ("c", "")):
        path = tmp_path / "jobs" / job(name).id / "job.json"
        path.parent.mkdir()
        path.write_text(text)
    assert [each.id for each in made.all("local")] == [first.id]
    made.stop(5)
    Jobs(tmp_path / "jobs", lambda *_: None).stop(5)


@pytest.mark.usefixtures("tune")
def test_an_event_that_was_torn_hides_no_other(tmp_path: Path, rows: Path) -> None:
    made = Jobs(tmp_path / "jobs", lambda *_: None)
    first = made.create(job("a"), rows, None)
    until(lambda: made.get(first.id, "local").status == "failed")
    made.stop(5)
    many, path = len(made.events(first)), tmp_path / "jobs" / first.id / "events.jsonl"
    with path.open("a") as file:
        file.write('{"id": "b')
    assert len(made.events(first)) == many
    again = Jobs(tmp_path / "jobs", lambda *_: None)
    again._tell(first.id, "info", "one more")
    again.stop(5)
    assert next(each["message"] for each in again.events(first)) == "one more"
    assert len(again.events(first)) == many + 1


def test_a_file_that_is_still_to_be_tuned_on_is_kept(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(jobs.child, "train", lambda *_, **__: gate.wait(60) and _full(True))
    made = Jobs(tmp_path / "jobs", lambda *_: None)
    first = made.create(job("a"), rows, None)
    waiting = made.waiting_for("file")
    assert waiting
    assert waiting.id == first.id
    assert made.waiting_for("another") is None
    gate.set()
    until(lambda: made.get(first.id, "local").status == "failed")
    assert made.waiting_for("file") is None
    made.stop(5)
