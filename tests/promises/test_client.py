"""OpenAI's own client beyond a question: failures of every kind, many at once, forms, files, tunings."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
import requests
from pydantic import BaseModel

from metier.errors import MetierError
from metier.inference.voices import Limits, Voices
from metier.recipe import Recipe
from metier.run import Run
from metier.web import jobs
from metier.web.desk import Desk
from metier.web.keys import Keys, new_key
from tests.promises import serving

ENDLESS: dict[str, Any] = {"model": "base", "prompt": [5, 6, 7], "max_tokens": 100_000, "logit_bias": {"0": -100}}
ENDLESS["logit_bias"] |= {"4": -100}  # neither token that ends a turn
HELP = "how do I open the 7th box?"


def asked(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def voices_of(runs: dict[str, Run], **limits: int) -> Voices:
    voices = Voices(Limits(**{"sequences": 8, "waiting": 128, **limits}), offline=True)
    for name, run in runs.items():
        voices.add(run, name)
    return voices


@pytest.fixture(scope="module")
def desk(served_runs: dict[str, Run]) -> Desk:
    return Desk(voices_of(served_runs))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("client")


@pytest.fixture(scope="module")
def url(desk: Desk, home: Path) -> Iterator[str]:
    with serving.served(desk, home) as url:
        yield f"{url}/v1"


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def gauges(client: openai.OpenAI) -> dict[str, float]:
    """What is decoding, and what waits, as Prometheus hears it."""
    text = client.get("/../metrics", cast_to=str)
    lines = (line.split() for line in text.splitlines() if line.startswith(("metier_decoding{", "metier_waiting{")))
    return {name.partition("{")[0]: float(value) for name, value in lines}


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


class Mood(BaseModel):
    mood: Literal["good", "bad"]
    sure: bool


def test_an_answer_is_parsed_into_a_class(client: openai.OpenAI) -> None:
    how: dict[str, Any] = {"messages": asked("how?"), "max_tokens": 80}
    answer = client.chat.completions.parse(model="small/help", response_format=Mood, **how)
    assert isinstance(answer.choices[0].message.parsed, Mood)
    with client.chat.completions.stream(model="small/help", response_format=Mood, **how) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == answer.choices[0].message.parsed


@pytest.mark.usefixtures("slowly")
def test_a_client_that_leaves_frees_its_place(client: openai.OpenAI) -> None:
    stream = client.completions.create(**ENDLESS, stream=True)
    until(lambda: gauges(client) == {"metier_decoding": 1, "metier_waiting": 0})
    stream.close()
    until(lambda: gauges(client) == {"metier_decoding": 0, "metier_waiting": 0})
    with pytest.raises(openai.APITimeoutError):
        client.completions.create(**ENDLESS, timeout=0.3)
    until(lambda: gauges(client) == {"metier_decoding": 0, "metier_waiting": 0})


def test_sixty_four_at_once_hear_what_each_would_hear_alone(client: openai.OpenAI, url: str) -> None:
    questions = [f"how do I open the {n}th box?" for n in range(16)]
    models = ["small/help", "shown/help", "base", "small/mood"]
    alone = {}
    for model in models:
        for question in questions:
            answer = client.chat.completions.create(model=model, messages=asked(question), max_tokens=6)
            alone[model, question] = (answer.choices[0].message.content, answer.usage)

    async def streamed(many: openai.AsyncOpenAI, model: str, question: str) -> tuple[str, Any]:
        how: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 6}
        chunks = [
            each async for each in await many.chat.completions.create(model=model, messages=asked(question), **how)
        ]
        return "".join(each.choices[0].delta.content or "" for each in chunks if each.choices), chunks[-1].usage

    async def together() -> list[tuple[str, Any]]:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as many:
            return await asyncio.gather(*(streamed(many, *each) for each in alone))

    assert asyncio.run(together()) == [*alone.values()]


@pytest.fixture
def clients(served_runs: dict[str, Run], tmp_path: Path) -> Iterator[tuple[openai.OpenAI, openai.OpenAI]]:
    """Two keys' clients of a server with one place to answer and one to wait, which reads two kilobytes."""
    own = [new_key(tmp_path / "keys.json", name, "user") for name in ("team", "other")]
    keys, voices = Keys.open(tmp_path / "keys.json"), voices_of({"shown": served_runs["shown"]}, sequences=1, waiting=1)
    with serving.served(Desk(voices), tmp_path, keys, at_once=2, body=2000) as url, ExitStack() as opened:
        one, two = (openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) for key in own)
        yield opened.enter_context(one), opened.enter_context(two)


@pytest.fixture
def member(clients: tuple[openai.OpenAI, openai.OpenAI]) -> openai.OpenAI:
    return clients[0]


SIMPLE: dict[str, Any] = {"model": "base", "prompt": "x", "max_tokens": 1}


@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        ({"temperature": 9}, 400, "temperature"),
        ({"n": 2}, 400, "2 answers are asked for; 1 may wait"),
        ({"model": "gone"}, 404, "is not served"),
        ({"prompt": "x" * 3000}, 413, "longer than 2,000 bytes"),
    ],
)
def test_what_cannot_be_answered_is_refused(member: openai.OpenAI, change: Any, status: int, told: str) -> None:
    with pytest.raises(openai.APIStatusError, match=told) as caught:
        member.completions.create(**{**SIMPLE, **change})
    assert caught.value.status_code == status


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/v1/embeddings", 404), ("POST", "/chat/completions", 404), ("DELETE", "/v1/models/base", 405)],
)
def test_what_is_not_answered_at_all_is_named(url: str, method: str, path: str, status: int) -> None:
    answer = requests.request(method, url.removesuffix("/v1") + path, json={"model": "base"}, timeout=5)
    assert answer.status_code == status
    assert answer.json()["error"]["message"] == f"{method} {path} is not answered here; /openapi.json lists what is"


@pytest.mark.parametrize(
    "body",
    [gzip.compress(b"{}"), '{"model": "é"}'.encode("latin-1"), b"[" * 100_000],
    ids=("compressed", "Latin-1", "deep"),
)
def test_a_body_that_cannot_be_read_is_told_why(url: str, body: bytes) -> None:
    answer = requests.post(f"{url}/completions", body, headers={"Content-Type": "application/json"}, timeout=5)
    assert answer.status_code == 400
    assert re.match("the body cannot be read: .*(decode|recursion)", answer.json()["error"]["message"])


def test_who_may_not_is_told_so(member: openai.OpenAI) -> None:
    with pytest.raises(openai.PermissionDeniedError, match="admin"):
        member.files.list()
    with pytest.raises(openai.AuthenticationError, match="this key is not known"):
        member.with_options(api_key="wrong").completions.create(**SIMPLE)


@pytest.mark.usefixtures("slowly")
def test_a_full_server_says_when_to_come_again(clients: tuple[openai.OpenAI, openai.OpenAI]) -> None:
    member, other = clients

    def close(streams: Sequence[Future[openai.Stream[Any]]]) -> None:
        for each in as_completed(streams):  # the second begins once the first has left
            each.result().close()

    with ThreadPoolExecutor(3) as pool:
        streams = []
        for waiting in range(2):  # the second comes once the first has left the only place to wait
            streams.append(pool.submit(member.completions.create, **ENDLESS, stream=True))
            until(lambda waiting=waiting: gauges(other) == {"metier_decoding": 1, "metier_waiting": waiting})
        with pytest.raises(openai.RateLimitError, match="2 requests of this key") as many:
            member.completions.create(**SIMPLE)
        with pytest.raises(openai.InternalServerError, match="1 requests wait already") as full:
            other.completions.create(**SIMPLE)
        for refused, status in ((many, 429), (full, 503)):
            assert (refused.value.status_code, refused.value.response.headers["retry-after"]) == (status, "1")
        threading.Timer(0.3, close, [streams]).start()
        assert other.with_options(max_retries=4).completions.create(**SIMPLE).choices  # told to, it comes again


def test_files_are_listed_read_and_removed(client: openai.OpenAI) -> None:
    sent = client.files.create(file=("rows.jsonl", b'{"prompt": "a", "answer": "b"}\n'), purpose="fine-tune")
    assert client.files.retrieve(sent.id) == sent
    assert sent.id in [each.id for each in client.files.list(purpose="fine-tune")]
    assert client.files.content(sent.id).text.startswith('{"prompt"')
    assert client.files.delete(sent.id).deleted
    with pytest.raises(openai.NotFoundError, match="there is no file"):
        client.files.retrieve(sent.id)


def test_files_come_in_pages(client: openai.OpenAI) -> None:
    sent = [client.files.create(file=b"a,b\n", purpose="evals").id for _ in range(5)]
    first = client.files.list(purpose="evals", limit=2)
    assert [[each.id for each in first.data], first.has_more] == [sent[:2:-1], True]
    assert [each.id for each in first] == sent[::-1]  # the client turns the pages
    assert [each.id for each in client.files.list(purpose="evals", order="asc", after=sent[3])] == sent[4:]
    with pytest.raises(openai.BadRequestError, match="there is no 'first' here"):
        client.files.list(purpose="evals", after="first")
    for each in client.files.list(purpose="evals", limit=2):
        client.files.delete(each.id)
    assert not [*client.files.list(purpose="evals")]


def test_a_tuning_is_cancelled(client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_to_stop = threading.Event()

    def train(*_: Any, started: Callable[[Callable[[], None]], None], **__: Any) -> Run:
        started(asked_to_stop.set)
        assert asked_to_stop.wait(20)
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs.child, "train", train)
    rows = b"".join(b'{"prompt": "what is %d?", "answer": "it is %d"}\n' % (n, n) for n in range(40))
    file = client.files.create(file=("rows.jsonl", rows), purpose="fine-tune")
    running, waiting = (
        client.fine_tuning.jobs.create(model="base", training_file=file.id, metadata={"team": "a"}, **named)
        for named in ({"suffix": "Our Sums, 2nd"}, dict[str, Any]())
    )
    suffixes = [(each.model_extra or {})["user_provided_suffix"] for each in (running, waiting)]
    assert [running.metadata, *suffixes] == [{"team": "a"}, "Our Sums, 2nd", None]
    until(lambda: client.fine_tuning.jobs.retrieve(running.id).status == "running")
    for job in (waiting, running):
        assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    assert asked_to_stop.is_set()
    told = [each.message for each in client.fine_tuning.jobs.list_events(running.id)]
    assert told[0] == "the job has ended: cancelled"
    assert [each.id for each in client.fine_tuning.jobs.list(limit=2)] == [waiting.id, running.id]
    assert running.id in [each.id for each in client.fine_tuning.jobs.list(metadata={"team": "a"})]
    assert not [*client.fine_tuning.jobs.list(metadata={"team": "b"})]
    with pytest.raises(openai.BadRequestError, match=r"upload\.jsonl:1: is not JSON"):
        client.fine_tuning.jobs.create(
            model="base", training_file=client.files.create(file=b"{", purpose="fine-tune").id
        )


def pairs(count: int) -> bytes:
    """A preference file as a hosted service wants it."""
    rows = [
        {
            "input": {"messages": asked(f"what is {n}?"), "tools": [], "parallel_tool_calls": True},
            "preferred_output": [{"role": "assistant", "content": f"it is {n}"}],
            "non_preferred_output": [{"role": "assistant", "content": f"{n}, I guess"}],
        }
        for n in range(count)
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def dpo(**hyperparameters: Any) -> Any:
    return {"type": "dpo", "dpo": {"hyperparameters": hyperparameters}}


def test_preferences_are_learned_as_their_method_says(
    client: openai.OpenAI, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Recipe] = []

    def train(recipe: Recipe, *_: Any, **__: Any) -> Run:
        begun.append(recipe)
        raise MetierError("enough")

    monkeypatch.setattr(jobs.child, "train", train)
    file = client.files.create(file=("pairs.jsonl", pairs(40)), purpose="fine-tune")
    how: dict[str, Any] = {"model": "base", "training_file": file.id}
    made = client.fine_tuning.jobs.create(**how, method=dpo(beta=0.3, n_epochs=2))
    assert (made.method and made.method.type, made.method and made.method.dpo and made.method.dpo.hyperparameters) == (
        "dpo",
        openai.types.fine_tuning.DpoHyperparameters(beta=0.3, n_epochs=2, batch_size="auto"),
    )
    plain = client.fine_tuning.jobs.create(**how)  # as its file is
    assert plain.method
    assert plain.method.type == "dpo"
    until(lambda: len(begun) == 2)
    assert [getattr(each.strategy, "beta", 0) for each in begun] == [0.3, None]
    assert begun[0].train.num_train_epochs == 2
    assert [each.domain[0].rejected for each in begun] == ["non_preferred_output"] * 2


@pytest.mark.parametrize(
    ("rows", "method", "told"),
    [
        (
            b'{"prompt": "what?", "answer": "that"}\n' * 40,
            dpo(),
            "dpo learns from pairs of answers, and the file has none",
        ),
        (pairs(40), {"type": "supervised"}, "the file holds pairs of answers, which supervised"),
        (pairs(40), {"type": "reinforcement"}, "'supervised' or 'dpo'"),
        (pairs(40), dpo(beta=0), "method.dpo.hyperparameters.beta"),
    ],
)
def test_a_method_that_does_not_fit_is_refused(client: openai.OpenAI, rows: bytes, method: Any, told: str) -> None:
    file = client.files.create(file=("rows.jsonl", rows), purpose="fine-tune")
    with pytest.raises(openai.BadRequestError, match=told):
        client.fine_tuning.jobs.create(model="base", training_file=file.id, method=method)


@pytest.mark.slow
def test_preferences_are_tuned_and_served(client: openai.OpenAI) -> None:
    file = client.files.create(file=("pairs.jsonl", pairs(60)), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model="base", training_file=file.id, method=dpo(n_epochs=1, batch_size=8))
    until(lambda: client.fine_tuning.jobs.retrieve(job.id).status in ("succeeded", "failed"), 300)
    job = client.fine_tuning.jobs.retrieve(job.id)
    assert job.status == "succeeded", job.error
    assert client.chat.completions.create(model=job.fine_tuned_model or "", messages=asked("what is 7?")).choices


def test_a_base_s_load_is_told_once_however_many_networks_it_has(served_runs: dict[str, Run], tmp_path: Path) -> None:
    """Prometheus refuses a page on which a series stands twice."""
    voices = voices_of({"shown": served_runs["shown"]})
    (ground,) = voices.grounds
    voices._grounds["alone",] = replace(ground)
    with serving.served(Desk(voices), tmp_path) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        lines = client.get("/../metrics", cast_to=str).splitlines()
    assert sum(each.startswith("metier_decoding{") for each in lines) == 1
