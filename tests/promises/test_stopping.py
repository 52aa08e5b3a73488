"""A server that is told to stop: what is being said ends, nothing new begins, no child is left, tunings go on later."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from metier.errors import MetierError
from metier.inference.voices import Voices
from metier.recipe import Recipe
from metier.run import Run
from metier.web import jobs
from metier.web.desk import Desk
from metier.web.job import Job
from metier.web.jobs import Jobs
from tests.promises import serving

ASKED: dict[str, Any] = {"model": "base", "prompt": [5, 6, 7], "logit_bias": {"0": -100, "4": -100}}


def until(true: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return int(each.getsockname()[1])


@contextmanager
def process(run: Run, home: Path) -> Iterator[tuple[subprocess.Popen[str], openai.OpenAI]]:
    """`metier serve` as people start it."""
    port = free_port()
    command = [sys.executable, "-m", "metier.cli.main", "serve", str(run.directory), "--port", str(port), "--offline"]
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    how: dict[str, Any] = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        subprocess.Popen(command, cwd=home, env=own, **how) as server,
        openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client,
    ):
        try:
            until(lambda: answers(client) or server.poll() is not None)
            yield server, client
        finally:
            server.kill()


def answers(client: openai.OpenAI) -> bool:
    try:
        return bool(client.models.list().data)
    except openai.APIConnectionError:
        return False


@pytest.fixture
def folder(served_home: Path) -> Path:
    return served_home


@pytest.mark.slow
def test_what_is_being_said_ends_and_nothing_new_begins(served_runs: dict[str, Run], folder: Path) -> None:
    with process(served_runs["shown"], folder) as (server, client):
        heard: list[Any] = []
        stream = client.completions.create(**ASKED, max_tokens=400, stream=True)
        pieces = iter(stream)
        heard.append(next(pieces))
        server.send_signal(signal.SIGTERM)
        until(lambda: not answers(client))
        heard += pieces
        assert heard[-1].choices[0].finish_reason == "length"
        assert server.wait(10) == 0


@pytest.mark.slow
def test_told_twice_it_ends_at_once(served_runs: dict[str, Run], folder: Path) -> None:
    with process(served_runs["shown"], folder) as (server, client):
        slow = client.with_options(timeout=30)
        crowd = [threading.Thread(target=_ask_in_vain, args=(slow, n)) for n in range(8)]  # it is busy for a while
        for each in crowd:
            each.start()
        time.sleep(0.3)
        server.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        begun = time.monotonic()
        server.send_signal(signal.SIGTERM)
        assert server.wait(5) == 128 + signal.SIGTERM
        assert time.monotonic() - begun < 1
        for each in crowd:
            each.join()


def _ask_in_vain(client: openai.OpenAI, seed: int) -> None:
    try:
        client.completions.create(**ASKED, max_tokens=500, n=16, temperature=1, seed=seed)
    except openai.APIError:
        return


def job(folder: Path, name: str = "a") -> Job:
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"what is {n}?", "answer": f"it is {n}"}) + "\n" for n in range(40)))
    return Job(
        id=f"ftjob-{name * 32}",
        created_at=1,
        owner="local",
        model="base",
        base=str(folder / "base"),
        training_file="file",
        validation_file=None,
        hyperparameters={"n_epochs": 1, "batch_size": 8},
        suffix="numbers",
        seed=0,
    )


def test_tunings_go_on_when_the_server_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that ran, the one that waited, and none that had ended."""
    begun: list[str] = []
    asked_to_stop = threading.Event()

    def first(recipe: Recipe, *_: Any, started: Callable[[Callable[[], None]], None], **__: Any) -> Run:
        if "c" * 32 in str(recipe.path):
            raise OSError("no room")
        begun.append(str(recipe.path))
        started(asked_to_stop.set)
        assert asked_to_stop.wait(20)
        raise KeyboardInterrupt

    def second(recipe: Recipe, *_: Any, **__: Any) -> Run:
        begun.append(str(recipe.path))
        raise MetierError("enough")

    def statuses(of: Jobs) -> dict[str, str]:
        return {each.id[-1]: each.status for each in of.all("local")}

    monkeypatch.setattr(jobs.child, "train", first)
    before = Jobs(tmp_path / "jobs", lambda *_: None)
    for name in "cab":
        made = job(tmp_path, name)
        before.create(made, tmp_path / "rows.jsonl", None)
    until(lambda: statuses(before) == {"c": "failed", "a": "running", "b": "queued"})
    before.stop(20)
    assert asked_to_stop.is_set()
    assert statuses(before) == {"c": "failed", "a": "queued", "b": "queued"}
    assert "when the server is started again" in before.events(before.get("ftjob-" + "a" * 32, "local"))[0]["message"]

    monkeypatch.setattr(jobs.child, "train", second)
    after = Jobs(tmp_path / "jobs", lambda *_: None)
    until(lambda: set(statuses(after).values()) == {"failed"})
    assert [path[-len("a/recipe.toml")] for path in begun] == ["a", "a", "b"]
    after.stop(20)


@pytest.mark.long
def test_what_was_tuned_is_served_again_when_the_server_is_started_again(
    served_runs: dict[str, Run],
    served_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Under the name that clients know; where that cannot be, it is said, and the others are served all the same."""

    def tuned(recipe: Recipe, *_: Any, **__: Any) -> Run:
        run = recipe.directory / "runs" / "lora-1"
        shutil.copytree(served_runs["small"].directory, run)
        (recipe.directory / "base").symlink_to(served_home / "base")  # as its recipe names it
        return Run(run)

    @contextmanager
    def serving_them() -> Iterator[openai.OpenAI]:
        voices = Voices(offline=True)
        voices.add(served_runs["small"], "small")
        with (
            serving.served(Desk(voices), tmp_path) as url,
            openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
        ):
            yield client

    def said(client: openai.OpenAI, model: str) -> Any:
        how: dict[str, Any] = {"messages": [{"role": "user", "content": "how do I open the 7th box?"}]}
        return client.chat.completions.create(model=model, **how).choices[0].message.content

    monkeypatch.setattr(jobs.child, "train", tuned)
    job(tmp_path)
    rows = tmp_path / "rows.jsonl"
    with serving_them() as client:
        file = client.files.create(file=rows, purpose="fine-tune")
        made = [
            client.fine_tuning.jobs.create(model="base", training_file=file.id, suffix=name)
            for name in ("kept", "lost")
        ]
        until(lambda: all(client.fine_tuning.jobs.retrieve(each.id).status == "succeeded" for each in made))
        assert said(client, "kept-lora-1") == said(client, "lost-lora-1") == said(client, "small")
    shutil.rmtree(tmp_path / "jobs" / made[1].id / "runs")
    with serving_them() as client:
        assert said(client, "kept-lora-1") == said(client, "small")
        with pytest.raises(openai.NotFoundError, match="lost-lora-1"):
            said(client, "lost-lora-1")
        assert [each.status for each in client.fine_tuning.jobs.list()] == ["succeeded"] * 2
    assert "lost-lora-1: is not served again: " in caplog.text


@pytest.mark.slow
def test_a_tuning_is_stopped_with_its_checkpoint_and_goes_on(served_runs: dict[str, Run], tmp_path: Path) -> None:
    """In processes, as it is used; no child outlives the server, however it ends, and its run every server."""
    rows = b"".join(b'{"prompt": "what is %d?", "answer": "it is %d"}\n' % (n, n) for n in range(400))
    with process(served_runs["shown"], tmp_path) as (server, client):
        file = client.files.create(file=("rows.jsonl", rows), purpose="fine-tune")
        how: Any = {"hyperparameters": {"n_epochs": 20, "batch_size": 4}}
        begun = client.fine_tuning.jobs.create(model="base", training_file=file.id, **how)
        until(lambda: "train " in told(client, begun.id), 120)
        children = psutil.Process(server.pid).children(recursive=True)
        assert children
        server.send_signal(signal.SIGTERM)
        assert server.wait(40) == 0
        assert not any(each.is_running() for each in children)
    assert json.loads((tmp_path / "jobs" / begun.id / "job.json").read_text())["status"] == "queued"
    (stopped,) = (tmp_path / "jobs" / begun.id / "runs").glob("lora-*/run.json")
    assert json.loads(stopped.read_text())["status"] == "stopped"
    steps = stopped.parent / "events.jsonl"
    before = steps.read_text()

    with process(served_runs["shown"], tmp_path) as (server, client):
        until(lambda: psutil.Process(server.pid).children(recursive=True))
        children = psutil.Process(server.pid).children(recursive=True)
        server.kill()  # not asked at all
        until(lambda: not any(each.is_running() and each.status() != "zombie" for each in children), 20)

    with process(served_runs["shown"], tmp_path) as (server, client):
        until(lambda: client.fine_tuning.jobs.retrieve(begun.id).status == "succeeded", 300)
        model = client.fine_tuning.jobs.retrieve(begun.id).fine_tuned_model or ""
        how: Any = {"model": model, "messages": [{"role": "user", "content": "what is 7?"}]}
        answer = client.chat.completions.create(**how).choices
    with process(served_runs["shown"], tmp_path) as (_, client):
        assert client.chat.completions.create(**how).choices == answer
    assert steps.read_text().startswith(before)  # it went on, and did not begin again


def told(client: openai.OpenAI, id: str) -> str:
    return "\n".join(each.message for each in client.fine_tuning.jobs.list_events(id, limit=100))
