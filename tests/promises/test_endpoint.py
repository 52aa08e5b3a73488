"""An endpoint's run: recorded as it comes, replayed without a socket, asked nothing twice, and no key in any file."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import metier
from metier.cli.main import app
from metier.errors import MetierError, RecipeError, RunError
from metier.experiment import evaluate, locate, plan, train
from metier.inference import endpoint as module
from metier.recipe import Recipe
from metier.run import Run
from tests.chat_server import ChatServer
from tests.unit import tiny

_KEY = "sk-0123456789-secret"
_NANO = Path(metier.__file__).parent / "assets" / "nano"


def says(body: Mapping[str, Any]) -> str:
    """Mostly right on labels, sometimes none; open answers are an echo."""
    asked = body["messages"][-1]["content"].partition("\n")[0]
    if not asked.startswith("share"):
        return f"You asked: {asked}"
    number = int(asked.split()[1])
    return "Hard to tell." if number % 7 == 3 else f"The mood is {'UP' if 'rises' in asked else 'down'}."


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setattr(module, "WAIT", 0.01)
    monkeypatch.setenv("OUR_KEY", _KEY)
    made = ChatServer(says)
    made.wanted = _KEY
    yield made
    made.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    tiny.save(tmp_path / "base")
    moods = [(f"share {n} {('rises', 'falls')[n % 2]}", ("up", "down")[n % 2]) for n in range(60)]
    talks = [(f"Where is order {n}?", f"It is on shelf {n}.") for n in range(40)]
    for name, rows in {"mood": [("text", "label"), *moods], "desk": [("ask", "reply"), *talks]}.items():
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return tmp_path


def recipe(home: Path, url: str, **strategy: Any) -> Recipe:
    mood = {"name": "mood", "data": "mood.csv", "prompt": "{text}", "answer": "{label}", "labels": ["up", "down"]}
    desk = {"name": "desk", "data": "desk.csv", "prompt": "{ask}", "answer": "{reply}"}
    asked = {"method": "endpoint", "url": url, "model": "their-model", "api_key_env": "OUR_KEY", **strategy}
    values = {"model": "base", "domain": [mood, desk], "strategy": asked, "eval": {"max_new_tokens": 16}}
    return Recipe.of(values, home / "recipe.toml")


def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def unparsed(run: Run) -> dict[str, tuple[int, int]]:
    return {each["domain"]: (each["unparsed"], each["failed"]) for each in run.scores()["domains"]}


def test_recorded_then_replayed_without_a_socket(
    home: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    price = {"input": 2.0, "output": 8.0}
    asked = recipe(home, server.url, price_per_million=price, num_fewshot=2)
    run = train(asked)
    requests = len(server.bodies)
    assert (run.status, run.facts["model"], set(run.scores()["against"])) == ("finished", "their-model", {"classical"})
    assert requests == len(run.answers())
    wrong = sum(answer["output"] == "Hard to tell." for answer in run.answers())
    assert unparsed(run) == {"mood": (wrong, 0), "desk": (0, 0)}
    assert wrong
    for body in server.bodies:
        assert [each["role"] for each in body["messages"]] == ["user", "assistant"] * 2 + ["user"]
    measured = run.facts["measured"]
    assert (measured["asked"], measured["replayed"]) == (requests, 0)
    assert (measured["tokens_in"], measured["tokens_out"]) == (20 * requests, 5 * requests)
    assert measured["price_per_1000"] == pytest.approx(1000 * (20 * 2 + 5 * 8) / 1e6)
    assert 0 < measured["seconds_per_answer"] <= measured["seconds_per_answer_p95"] * requests
    assert train(asked).facts == run.facts  # found, and nothing is asked
    kept = {name: (run.directory / name).read_bytes() for name in ("answers.jsonl", "scores.json")}
    for path in run.directory.iterdir():
        if path.name != "journal.jsonl":
            path.unlink()
    no_sockets(monkeypatch)
    monkeypatch.delenv("OUR_KEY")
    again = train(asked, offline=True)
    assert again.directory == run.directory
    assert {name: (run.directory / name).read_bytes() for name in kept} == kept
    replayed = again.facts["measured"]
    same = set(measured) - {"peak_memory", "asked", "replayed"}
    assert {name: replayed[name] for name in same} == {name: measured[name] for name in same}
    assert (replayed["asked"], replayed["replayed"]) == (0, requests)


def test_nothing_that_is_missing_is_made_up(home: Path, server: ChatServer) -> None:
    asked = recipe(home, server.url)
    run = train(asked)
    journal = run.directory / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:5]))
    run.update(status="started")
    with pytest.raises(RunError, match=f"{len(lines) - 5} of {len(lines)} answers are missing"):
        train(asked, offline=True)
    assert run.status == "failed"
    server.bodies.clear()
    assert train(asked).status == "finished"
    assert len(server.bodies) == len(lines) - 5


def test_no_key_in_any_file(home: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    train(recipe(home, server.url))
    monkeypatch.setenv("OUR_KEY", "sk-wrong-secret")
    with pytest.raises(RunError) as caught:
        train(recipe(home, server.url, model="another"))
    assert "secret" not in str(caught.value)
    files = [path for path in home.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert not [path for path in files if b"secret" in path.read_bytes()]


@pytest.mark.long
def test_what_failed_counts_as_failed_and_is_asked_again_on_request(home: Path, server: ChatServer) -> None:
    asked = recipe(home, server.url, concurrency=1)
    told = b'{"error": {"message": "no"}}'
    server.faults = [(200, {}, b'{"choices": [{"message": {"content": "up"}}]}'), *[(400, {}, told)] * 3]
    run = train(asked)
    assert sum(failed for _, failed in unparsed(run).values()) == 3
    assert {answer["failed"] for answer in run.answers() if "failed" in answer} == {"400: no"}
    assert run.facts["measured"]["tokens_in"] is None  # one reply did not tell
    server.bodies.clear()
    assert train(asked).scores() == run.scores()
    assert not server.bodies
    resumed = train(run.recipe(), resume=run)
    assert (len(server.bodies), sum(failed for _, failed in unparsed(resumed).values())) == (3, 0)


@pytest.mark.long
def test_who_asks_where_and_how_makes_the_run(home: Path, server: ChatServer) -> None:
    run = train(recipe(home, server.url))
    asked = len(server.bodies)
    found, finished = locate(recipe(home, server.url))
    assert finished
    assert found is not None
    assert found.directory == run.directory
    _, finished = locate(recipe(home, server.url, price_per_million={"input": 1, "output": 1}))
    assert not finished  # it is counted anew
    priced = train(recipe(home, server.url, price_per_million={"input": 1, "output": 1}, concurrency=1))
    assert priced.directory == run.directory
    assert priced.facts["measured"]["price_per_1000"] == pytest.approx(0.025)
    assert len(server.bodies) == asked
    assert priced.recipe().strategy.price_per_million.input == 1  # type: ignore[union-attr]
    names = {train(recipe(home, server.url, **more)).name for more in ({"model": "b"}, {"num_fewshot": 1})}
    assert len({*names, run.name}) == 3
    assert evaluate(recipe(home, server.url)).name == run.name


def test_the_other_verbs_speak_of_it(home: Path, server: ChatServer) -> None:
    run = train(recipe(home, server.url, price_per_million={"input": 1, "output": 1}))
    with pytest.raises(MetierError, match="cannot chat: its answers came from an endpoint"):
        metier.chat(run, "share 3 rises", domain="mood")
    with pytest.raises(RunError, match="another machine answers"):
        plan(recipe(home, server.url))
    done = CliRunner().invoke(app, ["runs", str(home)])
    assert done.exit_code == 0
    assert "their-model" in done.stdout
    shown = CliRunner().invoke(app, ["runs", str(run.directory)])
    assert "unparsed, which count as wrong" in shown.stderr
    assert "ms an answer, 0.025 per 1,000 answers" in shown.stderr
    for verb in ("chat", "eval"):
        refused = CliRunner().invoke(app, [verb, str(run.directory), *(["--tasks", "x"] if verb == "eval" else [])])
        assert isinstance(refused.exception, MetierError)
    page = run.report.read_text(encoding="utf-8")
    assert "their-model" in page
    assert "the tuned model" not in page
    assert "no label (unparsed)" in page
    assert "per 1,000 answers" in page


_ASK = """
import json, sys
from pathlib import Path
from metier.experiment import train
from metier.recipe import Recipe
values = json.loads(sys.argv[1])
train(Recipe.of(values, Path(sys.argv[2])))
"""


@pytest.mark.slow
def test_killed_in_the_middle_it_asks_only_what_is_missing(home: Path, server: ChatServer) -> None:
    server.pause = 0.1
    asked = recipe(home, server.url, concurrency=2)
    arguments = [sys.executable, "-c", _ASK, json.dumps(asked.values()), str(asked.path)]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
    child = subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(server.bodies) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    (directory,) = (home / "runs").glob("endpoint-*")
    assert Run(directory).status == "interrupted"
    kept = len((directory / "journal.jsonl").read_bytes().split(b"\n")) - 1
    assert kept >= 3
    server.pause = 0.0
    server.bodies.clear()
    run = train(asked)
    assert run.directory == directory
    assert len(server.bodies) == len(run.answers()) - kept
    shutil.rmtree(directory)
    whole = train(asked)
    assert [(row["id"], row["output"]) for row in run.answers()] == [(r["id"], r["output"]) for r in whole.answers()]
    assert run.scores() == whole.scores()


def test_data_that_asks_for_nothing_is_refused_before_anything_is_written(home: Path) -> None:
    (home / "texts.jsonl").write_text("".join(json.dumps({"text": f"Text number {n}."}) + "\n" for n in range(20)))
    strategy = {"method": "endpoint", "url": "http://localhost:1/v1", "model": "m"}
    domain = {"name": "texts", "data": "texts.jsonl", "text": "text"}
    with pytest.raises(RunError, match="asks for no answers"):
        train(Recipe.of({"model": "base", "domain": [domain], "strategy": strategy}, home / "recipe.toml"))
    assert not (home / "runs").exists()


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("api_key_env", _KEY, "api_key_env: is no variable's name in capitals"),
        ("url", f"https://me:{_KEY}@host/v1", "url: holds more than an address"),
        ("url", f"https://host/v1?key={_KEY}", "url: holds more than an address"),
        ("url", f"{_KEY}", "url: is no address of http or https"),
        ("api_key", _KEY, "did you mean `api_key_env`"),
    ],
)
def test_a_key_in_the_wrong_place_is_refused_untold(home: Path, key: str, value: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(home, **{"url": "http://localhost/v1", key: value})
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)


def _listens(port: int) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
def test_transformers_serve_is_recorded_and_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The issue's measure, on nano: pip install 'transformers[serving]' where this skips."""
    for name in ("fastapi", "uvicorn"):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install 'transformers[serving]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from transformers.cli.transformers import main; main()"]
    command += ["serve", str(_NANO), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with (tmp_path / "serve.log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as child:
        try:
            until = time.monotonic() + 180
            while not _listens(port) and time.monotonic() < until:
                assert child.poll() is None, (tmp_path / "serve.log").read_text()
                time.sleep(0.5)
            strategy = {"method": "endpoint", "url": f"http://127.0.0.1:{port}/v1", "model": str(_NANO)}
            finance = {"name": "finance", "data": "sample:finance", "prompt": "{text}", "answer": "{label}"}
            domains = [finance, {"name": "banking", "data": "sample:banking"}]
            values = {"model": "nano", "domain": domains, "strategy": {**strategy, "num_fewshot": 3}}
            asked = Recipe.of({**values, "eval": {"limit": 6, "max_new_tokens": 12}}, tmp_path / "recipe.toml")
            recorded = train(asked)
        finally:
            child.terminate()
    kept = {name: (recorded.directory / name).read_bytes() for name in ("answers.jsonl", "scores.json")}
    assert recorded.facts["measured"]["failed"] == 0
    for path in recorded.directory.iterdir():
        if path.name != "journal.jsonl":
            path.unlink()
    no_sockets(monkeypatch)
    replayed = train(asked, offline=True)
    assert {name: (replayed.directory / name).read_bytes() for name in kept} == kept
