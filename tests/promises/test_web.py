"""OpenAI's own client against a server: what it gets is what was measured, and every failure is an error it knows."""

from __future__ import annotations

import asyncio
import json
import re
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request as UrlRequest
from urllib.request import urlopen

import openai
import pytest

from metier.assistant.feedback import Feedback
from metier.assistant.tickets import Tickets
from metier.data.items import Message
from metier.figures import with_unit
from metier.inference.voices import Limits, Voices
from metier.run import Run
from metier.web.care import Care
from metier.web.desk import Desk
from metier.web.dispatch import open_dispatch, typed
from metier.web.keys import Keys, new_key
from metier.web.lessons import Lesson, Lessons
from tests import opened
from tests.promises import serving


@pytest.fixture(scope="module")
def home(served_home: Path) -> Path:
    return served_home


@pytest.fixture(scope="module")
def runs(served_runs: dict[str, Run]) -> dict[str, Run]:
    return served_runs


@pytest.fixture(scope="module")
def desk(runs: dict[str, Run], home: Path) -> Desk:
    voices = Voices(Limits(sequences=8, waiting=16), offline=True)
    for name, run in runs.items():
        voices.add(run, name)
    safety, database = opened.safety(), home / "assistant.db"
    care = Care(safety, opened.moods(), Tickets(database, safety.masked), Feedback(database, safety.masked))
    dispatch = open_dispatch(typed([*runs.values()], offline=True), home / "routers")
    return Desk(voices, Lessons(Lesson(dispatch)), care)


@pytest.fixture(scope="module")
def url(desk: Desk, home: Path) -> Iterator[str]:
    with serving.served(desk, home) as url:
        yield url


@pytest.fixture
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


RUNS = ("small", "shown")


def asked(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_answers_are_those_that_were_measured(client: openai.OpenAI, desk: Desk, runs: dict[str, Run]) -> None:
    for name, run in runs.items():
        for row in run.answers()[::5]:
            model, question = f"{name}/{row['domain']}", row["prompt"].rpartition("user: ")[2]
            answer = client.chat.completions.create(model=model, messages=asked(question))
            assert answer.choices[0].message.content == row["output"]
            assert answer.usage
            label = desk.voices.all[name].ground.renderer.raw_ids(row["output"])
            assert answer.usage.completion_tokens == row.get("new_tokens", len(label))
            assert (answer.model_extra or {})["metier"]["run"] == name


def test_a_stream_is_the_same_in_pieces(client: openai.OpenAI) -> None:
    how: dict[str, Any] = {"model": "small/help", "messages": asked("how do I open the 99th box?"), "max_tokens": 12}
    whole = client.chat.completions.create(**how, logprobs=True, top_logprobs=3)
    chunks = [*client.chat.completions.create(**how, stream=True, stream_options={"include_usage": True})]
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == whole.choices[0].finish_reason
    assert whole.choices[0].logprobs
    told = whole.choices[0].logprobs.content or []
    assert [each.top_logprobs[0].token for each in told] == [each.token for each in told]  # the likeliest were taken
    assert all(len(each.top_logprobs) == 3 for each in told)


def test_of_a_closed_set_the_tokens_of_the_reply_are_told(client: openai.OpenAI, desk: Desk) -> None:
    voice = desk.voices.all["small"]
    rows = voice.ground.renderer.label_rows(voice.item([Message("user", "share 7 falls")], "mood"))
    score = max(voice.ground.worker.score(rows, voice.adapter).result(20))
    how: Any = {"model": "small/mood", "messages": asked("share 7 falls"), "n": 2}
    bare = client.chat.completions.create(**how)
    whole = client.chat.completions.create(**how, logprobs=True, top_logprobs=2)
    told = [choice.logprobs.content for choice in whole.choices if choice.logprobs and choice.logprobs.content]
    assert told[0] == told[1]
    assert sum(each.logprob for each in told[0]) == pytest.approx(score, abs=1e-4)
    assert "".join(each.token for each in told[0]).strip() == whole.choices[0].message.content
    assert {len(each.top_logprobs) for each in told[0]} == {2}
    assert bare.choices[0].logprobs is None
    assert bare.usage == whole.usage
    assert whole.usage
    assert whole.usage.completion_tokens == 2 * len(told[0])
    chunks = [*client.chat.completions.create(**how, logprobs=True, top_logprobs=2, stream=True)]
    assert [each.choices[0].logprobs.content for each in chunks if each.choices[0].logprobs] == told


def test_auto_says_what_it_chose_and_how_sure_it_was(client: openai.OpenAI) -> None:
    for question, domain in (("share 7 falls", "mood"), ("how do I open the 7th box?", "help")):
        answer = client.chat.completions.create(model="auto", messages=asked(question))
        notes = (answer.model_extra or {})["metier"]
        assert notes["route"]["domain"] == domain == notes["domain"]
        assert notes["route"]["share"] > 0.5
    lost = client.chat.completions.create(model="auto", messages=asked("zebra quartz"))
    assert (lost.model_extra or {})["metier"]["route"]["domain"] is None


def test_a_stream_tells_first_and_last_what_it_rests_on(client: openai.OpenAI) -> None:
    chunks = [
        *client.chat.completions.create(model="shown/help", messages=asked("how do I open the 7th box?"), stream=True)
    ]
    told = [(chunk.model_extra or {}).get("metier") for chunk in chunks]
    assert told[0] == {"domain": "help", "run": "shown", "examples": 2}
    assert told[-1] == told[0]
    assert not any(told[1:-1])


def test_the_untuned_base_is_asked_as_its_run_is(client: openai.OpenAI, runs: dict[str, Run]) -> None:
    """So what it answers beside a run is what it answered when both were measured."""
    base = Run(runs["small"].directory.parent / runs["small"].scores()["against"]["none"]["run"])
    rows = base.answers()
    assert rows
    for row in rows[::5]:
        question = row["prompt"].rpartition("user: ")[2]
        how: Any = {"model": f"small/{row['domain']}", "messages": asked(question)}
        answer = client.chat.completions.create(**how, extra_body={"untuned": True})
        assert answer.choices[0].message.content == row["output"]
        assert notes(answer)["run"] == "base"


def test_models_tell_what_was_measured(client: openai.OpenAI, runs: dict[str, Run]) -> None:
    models = {model.id: model.model_extra or {} for model in client.models.list().data}
    (score,) = models["small/mood"]["scores"]
    told = next(each for each in runs["small"].scores()["domains"] if each["domain"] == "mood")["scores"][0]
    assert (score["metric"], score["value"], score["low"], score["high"]) == (
        told["metric"],
        told["value"],
        told["low"],
        told["high"],
    )
    assert score["verdict"] in ("better", "worse", "no difference shown")
    assert score["said"].startswith("accuracy ")
    assert [each["domain"] for each in models["small"]["scores"]] == ["mood", "help"]
    classical = runs["small"].scores()["against"]["classical"]
    for each, record in zip(models["small"]["scores"], classical["domains"], strict=True):
        assert each["baseline"]["verdict"] == record["differences"][0]["verdict"]
        theirs = Run(runs["small"].directory.parent / classical["run"]).scores()["domains"]
        value = next(known["scores"][0]["value"] for known in theirs if known["domain"] == each["domain"])
        assert each["baseline"]["said"].endswith(f"the classical baseline ({with_unit(each['metric'], value)})")
    assert models["small"]["untuned"] is True
    assert "scores" not in models["base"]


def test_the_page_is_public_and_brings_no_script_of_others(tmp_path: Path) -> None:
    new_key(tmp_path / "keys.json", "team", "user")
    with serving.served(Desk(Voices()), tmp_path, Keys.open(tmp_path / "keys.json")) as url:
        with urlopen(f"{url}/") as page:
            text, headers = page.read().decode(), page.headers
        assert headers["Content-Type"].startswith("text/html")
        assert "script-src 'self'" in headers["Content-Security-Policy"]
        for path in re.findall(r'(?:href|src)="(/page/[^"]+)"', text):
            with urlopen(f"{url}{path}") as part:
                assert part.status == 200
                assert part.headers["X-Content-Type-Options"] == "nosniff"
        for strange in ("/page/none.js", "/page/..%2f..%2fnano", "/page/reports/x"):
            with pytest.raises(HTTPError, match="404"):
                urlopen(f"{url}{strange}")


def test_a_report_opens_by_a_link_without_a_key(client: openai.OpenAI, url: str) -> None:
    link: Any = client.post("/metier/reports", body={"model": "small"}, cast_to=object)
    with urlopen(f"{url}{link['url']}") as report:
        assert "run report" in report.read().decode()
        policies = report.headers.get_all("Content-Security-Policy")
    assert len(policies) == 1
    assert "sandbox" in policies[0]
    with pytest.raises(openai.NotFoundError, match="has no report"):
        client.post("/metier/reports", body={"model": "base"}, cast_to=object)


def test_a_file_that_cannot_be_read_is_a_plan_with_faults(client: openai.OpenAI, home: Path) -> None:
    (home / "odd.csv").write_text("a,b,c\n1,2,3\n")
    file = client.files.create(file=home / "odd.csv", purpose="fine-tune")
    told: Any = client.post("/metier/plans", body={"model": "base", "training_file": file.id}, cast_to=object)
    assert told["faults"]
    assert all(each[key] for each in told["faults"] for key in ("place", "problem", "fix"))
    assert told["skippable"] is False


@pytest.mark.slow
def test_a_plan_tells_faults_rows_means_and_time(client: openai.OpenAI, home: Path) -> None:
    rows = ["question,answer", *(f"what is {n}?,it is {n}" for n in range(60)), "what is empty?,"]
    (home / "sums.csv").write_text("\n".join(rows))
    file = client.files.create(file=home / "sums.csv", purpose="fine-tune")
    body = {"model": "base", "training_file": file.id, "suffix": "sums"}
    faulty: Any = client.post("/metier/plans", body=body, cast_to=object)
    assert [each["problem"] for each in faulty["faults"]] == ["is empty"]
    assert faulty["skippable"] is True
    told: Any = client.post("/metier/plans", body={**body, "skip_faulty": True}, cast_to=object)
    assert told["faults"] == []
    assert [each["name"] for each in told["domains"]] == ["sums"]
    assert 'name = "sums"' in told["recipe"]
    assert told["plan"]["steps"] > 0
    assert told["plan"]["peak"] == sum(told["plan"]["memory"].values())
    assert sum(told["plan"]["seconds"].values()) > 0


def test_every_name_stands_on_its_base(client: openai.OpenAI) -> None:
    models = {model.id: model.model_extra or {} for model in client.models.list().data}
    domains = ("mood", "help")
    names = {"auto", "base", *RUNS, *domains, *(f"{run}/{name}" for run in RUNS for name in domains)}
    assert models.keys() == names
    assert {models[name]["root"] for name in domains} == {"small"}  # which was served first
    assert {each["parent"] for name, each in models.items() if name not in ("auto", "base")} == {"base"}
    assert client.models.retrieve("small/help").id == "small/help"
    with pytest.raises(openai.NotFoundError, match="choose from"):
        client.models.retrieve("gone")


@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_that_turns_out_to_be_too_much_is_told_and_disturbs_nobody(
    client: openai.OpenAI, stream: bool
) -> None:
    """It cannot be seen beforehand; half an answer that ends as if it were whole would be a lie."""
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a?){300}a{300}$"}}}
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "a", "schema": {**schema, "required": ["a"]}}}
    with pytest.raises(openai.APIError, match=r"response_format: the schema cannot be followed: .*too many"):
        [
            *client.chat.completions.create(
                model="small/help", messages=asked("how?"), response_format=wanted, stream=stream
            )
        ]
    assert client.chat.completions.create(model="small/help", messages=asked("how?")).choices


def test_json_follows_its_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"mood": {"enum": ["good", "bad"]}, "sure": {"type": "boolean"}},
        "required": ["mood", "sure"],
        "additionalProperties": False,
    }
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "mood", "schema": schema}}
    for model in ("small/help", "small/mood", "base"):
        answer = client.chat.completions.create(
            model=model, messages=asked("how?"), response_format=wanted, max_tokens=80, temperature=1, seed=1
        )
        found = json.loads(answer.choices[0].message.content or "")
        assert found["mood"] in ("good", "bad")
        assert isinstance(found["sure"], bool)
        assert answer.choices[0].finish_reason == "stop"


def test_a_seed_gives_the_same_again(client: openai.OpenAI) -> None:
    def drawn(seed: int) -> list[str | None]:
        how: dict[str, Any] = {"messages": asked("how?"), "temperature": 1.5, "n": 3, "max_tokens": 8}
        answer = client.chat.completions.create(model="small/help", seed=seed, **how)
        return [choice.message.content for choice in answer.choices]

    assert drawn(1) == drawn(1) != drawn(5)
    assert len({*drawn(1)}) > 1


def test_a_text_is_gone_on_with_and_weighed(client: openai.OpenAI) -> None:
    tokens = [5, 6, 7, 8]
    answer = client.completions.create(model="base", prompt=[tokens, tokens[:2]], echo=True, logprobs=2, max_tokens=1)
    for given, choice in zip((tokens, tokens[:2]), answer.choices, strict=True):
        assert choice.logprobs
        assert choice.logprobs.token_logprobs
        assert len(choice.logprobs.token_logprobs) == len(given) + 1
        assert choice.logprobs.token_logprobs[0] is None
        assert choice.logprobs.token_logprobs[-1] == max((choice.logprobs.top_logprobs or [{}])[-1].values())
    short = answer.choices[1].logprobs
    assert short
    assert (short.token_logprobs or [])[1] == pytest.approx((answer.choices[0].logprobs.token_logprobs or [])[1])  # type: ignore[union-attr]


def test_a_load_test_gets_as_many_tokens_as_it_wants(client: openai.OpenAI) -> None:
    """Whatever ends a turn comes at once, and is gone on behind."""
    how: dict[str, Any] = {"model": "base", "logit_bias": {"0": 100}, "max_tokens": 9}
    for more, many, finish in (({}, 0, "stop"), ({"ignore_eos": True}, 9, "length")):
        talk = client.chat.completions.create(messages=asked("how?"), extra_body=more, **how)
        text = client.completions.create(prompt="so", extra_body=more, **how)
        for answer in (talk, text):
            assert answer.usage
            assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (many, finish)


def test_with_likelihoods_the_token_that_ends_an_answer_is_told(client: openai.OpenAI) -> None:
    """As lm-evaluation-harness asks: it takes one token behind its own for granted."""
    how: dict[str, Any] = {"model": "base", "prompt": [5, 6, 7], "logit_bias": {"0": 100}, "max_tokens": 5}
    answer = client.completions.create(**how, echo=True, logprobs=1)
    choice = answer.choices[0]
    assert choice.logprobs
    assert len(choice.logprobs.token_logprobs or []) == 4
    assert (choice.finish_reason, answer.usage and answer.usage.completion_tokens) == ("stop", 1)
    bare = client.completions.create(**how)
    assert (bare.choices[0].text, bare.choices[0].finish_reason) == ("", "stop")
    (*_, last) = client.completions.create(**how, logprobs=1, stream=True)
    assert (last.choices[0].finish_reason, len(last.choices[0].logprobs.tokens or [])) == ("stop", 1)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("body", "error", "told"),
    [
        ({"model": "gone"}, openai.NotFoundError, "the model 'gone' is not served"),
        ({"temperature": 3}, openai.BadRequestError, "temperature: "),
        ({"messages": []}, openai.BadRequestError, "messages: "),
        ({"messages": [{"role": "user", "content": " "}]}, openai.BadRequestError, "nothing is asked"),
        (
            {"messages": [{"role": "user", "content": "box " * 5000}]},
            openai.BadRequestError,
            r"this model's maximum context length is \d+ tokens; the conversation has .*; shorten it",
        ),
        (
            {"model": "small/mood", "messages": [{"role": "user", "content": "box " * 500}]},
            openai.BadRequestError,
            "this model's maximum context length is ",
        ),
        ({"tools": [{}]}, openai.BadRequestError, "calls of tools are not answered here"),
        ({"logit_bias": {"99999": 1}}, openai.BadRequestError, "99999 is no token"),
        ({"top_logprobs": 3}, openai.BadRequestError, "needs logprobs = true"),
        ({"domain": "none"}, openai.BadRequestError, "has no 'none'"),
        ({"messages": [{"role": "user"}]}, openai.BadRequestError, "nothing is asked"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "text": ""}]}]},
            openai.BadRequestError,
            r" - messages\.0\.content\.0\.type: 'image_url' is not read here, 'text', 'refusal' alone",
        ),
        (
            {"messages": [*asked("so?"), {"role": "tool", "tool_call_id": "1", "content": "x"}, *asked("and?")]},
            openai.BadRequestError,
            r"messages\.1\.role: input should be 'system'",
        ),
        ({"response_format": {"type": "xml"}}, openai.BadRequestError, "response_format"),
        ({"stop": ["a"] * 17}, openai.BadRequestError, "stop: list should have at most 16 items"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "no such"}}}},
            openai.BadRequestError,
            "the schema cannot be followed",
        ),
    ],
)
def test_a_failure_says_what_to_do(client: openai.OpenAI, body: Any, error: Any, told: str) -> None:
    usual = {"model": "small/help", "messages": asked("how do I open the 3rd box?")}
    with pytest.raises(error, match=told) as caught:
        client.post("/chat/completions", body={**usual, **body}, cast_to=object)
    assert caught.value.body["message"]
    assert caught.value.body["type"] in ("invalid_request_error", "not_found_error")


def test_what_was_refused_may_stand_in_a_conversation(client: openai.OpenAI) -> None:
    refused: dict[str, Any] = {"role": "assistant", "content": None, "refusal": "No."}
    told = {"role": "assistant", "content": "No."}
    answers = [
        client.chat.completions.create(model="small/help", messages=[*asked("why?"), each, *asked("how?")])
        for each in (refused, told)
    ]
    assert answers[0].choices[0].message == answers[1].choices[0].message
    assert answers[0].usage == answers[1].usage


def test_tokens_are_told(client: openai.OpenAI, url: str) -> None:
    """Of a text, under any of the names that other servers have for it, and of a conversation as a model reads it."""
    root = client.with_options(base_url=url)
    how: dict[str, Any] = {"model": "small/help", "messages": asked("how do I open the 3rd box?")}
    answer = client.chat.completions.create(**how, max_tokens=1)
    assert answer.usage
    whole: Any = root.post("/tokenize", body=how, cast_to=object)
    assert (whole["count"], len(whole["tokens"])) == (answer.usage.prompt_tokens,) * 2
    texts: list[Any] = [
        root.post("/tokenize", body={"model": "base", name: "the 3rd box"}, cast_to=object)
        for name in ("prompt", "content", "text")
    ]
    assert texts[0] == texts[1] == texts[2]
    assert 0 < texts[0]["count"] < whole["count"]
    with pytest.raises(openai.BadRequestError, match="give either prompt or messages"):
        root.post("/tokenize", body={"model": "base"}, cast_to=object)


@pytest.mark.usefixtures("slowly")
def test_who_leaves_frees_the_place(client: openai.OpenAI, desk: Desk) -> None:
    (worker,) = {ground.worker for ground in desk.voices.grounds}
    how: dict[str, Any] = {"model": "base", "prompt": [5, 6, 7], "max_tokens": 100_000, "logit_bias": {"2": -100}}
    stream = client.completions.create(**how, stream=True)
    next(iter(stream))
    assert worker.load[0] == 1
    stream.close()
    with pytest.raises(openai.APITimeoutError):
        client.completions.create(**how, timeout=0.5)
    for _ in range(100):
        if worker.load == (0, 0):
            break
        time.sleep(0.05)
    assert worker.load == (0, 0)


def test_without_a_key_nothing_is_told_but_that_it_is_there(tmp_path: Path) -> None:
    key = new_key(tmp_path / "keys.json", "team", "user")
    assert key not in (tmp_path / "keys.json").read_text()
    with serving.served(Desk(Voices()), tmp_path, Keys.open(tmp_path / "keys.json")) as url:
        stranger, member = (openai.OpenAI(base_url=f"{url}/v1", api_key=each, max_retries=0) for each in ("x", key))
        for ask in (stranger.models.list, lambda: stranger.completions.create(model="base", prompt="x")):
            with pytest.raises(openai.AuthenticationError, match="this key is not known; metier serve --new-key"):
                ask()
        assert member.models.list().data == []
        with pytest.raises(openai.PermissionDeniedError, match="admin"):
            member.post("/unload_lora_adapter", body={"name": "small"}, cast_to=object)
        assert stranger.get("/../health", cast_to=object) == {"status": "ok"}


def notes(answer: Any) -> dict[str, Any]:
    found: dict[str, Any] = (answer.model_extra or {})["metier"]
    return found


def test_an_emergency_is_answered_before_any_model(client: openai.OpenAI, desk: Desk) -> None:
    (worker,) = {ground.worker for ground in desk.voices.grounds}
    done = worker.do(lambda: time.sleep(2))  # whoever asks the model waits
    answer = client.chat.completions.create(
        model="auto", messages=asked("my dad has crushing chest pain and cannot breathe"), timeout=1.5
    )
    assert not done.done()
    assert notes(answer)["safety"]["kind"] == "emergency"
    assert answer.choices[0].message.content
    chunks = client.chat.completions.create(model="small/help", messages=asked("he stopped breathing!!"), stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def test_a_text_that_is_ready_comes_as_often_as_it_was_asked_for(client: openai.OpenAI) -> None:
    how: Any = {"model": "small/help", "messages": asked("he stopped breathing!!"), "n": 3}
    choices = client.chat.completions.create(**how).choices
    assert [each.index for each in choices] == [0, 1, 2]
    assert len({each.message.content for each in choices}) == 1
    heard = ["", "", ""]
    for chunk in client.chat.completions.create(**how, stream=True):
        for each in chunk.choices:
            heard[each.index] += each.delta.content or ""
    assert {*heard} == {choices[0].message.content}


@pytest.mark.parametrize("stream", [False, True])
def test_only_what_a_model_was_asked_for_is_timed(client: openai.OpenAI, url: str, stream: bool) -> None:
    """A label is scored before a word is said, which is its time all the same."""

    def told(question: str, model: str) -> dict[str, float]:
        before = counts()
        answer: Any = client.chat.completions.create(model=model, messages=asked(question), max_tokens=2, stream=stream)
        if stream:
            assert [*answer]
        return {name: value - before[name] for name, value in counts().items()}

    def counts() -> dict[str, float]:
        with urlopen(f"{url}/metrics") as page:
            return {
                name: float(value) for name, value in re.findall(r"^metier_(\w+) (\S+)$", page.read().decode(), re.M)
            }

    for question in ("he stopped breathing!!", "let me talk to a real person please"):
        found = told(question, "small/help")
        assert found["answer_seconds_count"] == found["first_token_seconds_count"] == 0
    for question, model in (("how do I open the 7th box?", "small/help"), ("share 7 falls", "small/mood")):
        found = told(question, model)
        assert (found["answer_seconds_count"], found["first_token_seconds_count"]) == (1, int(stream))
        assert found["answer_seconds_sum"] > 0.002


def test_who_wants_a_person_gets_a_ticket(client: openai.OpenAI) -> None:
    turns = [
        *asked("how do I open the 7th box?"),
        {"role": "assistant", "content": "lift lid 1"},
        *asked("let me talk to a real person please, my mail is jo@mail.org"),
    ]
    answer = client.chat.completions.create(model="small/help", messages=turns)
    number = notes(answer)["handover"]["ticket"]
    assert str(number) in (answer.choices[0].message.content or "")
    (ticket,) = [each for each in client.get("/tickets", cast_to=object)["data"] if each["id"] == number]  # type: ignore[index]
    assert ticket["mood"] == "person"
    assert "jo@mail.org" not in json.dumps(ticket)
    client.post(f"/tickets/{number}/take", cast_to=object)
    with pytest.raises(openai.ConflictError, match="is taken already"):
        client.post(f"/tickets/{number}/take", cast_to=object)
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.post("/tickets/999999/take", cast_to=object)


def test_a_fixed_text_is_a_refusal_to_whoever_parses_json(client: openai.OpenAI) -> None:
    how: Any = {"model": "small/help", "messages": asked("my card is 4111 1111 1111 1111")}
    schema = {"name": "x", "schema": {"type": "object"}}
    how["response_format"] = {"type": "json_schema", "json_schema": schema}
    said = client.chat.completions.create(**how).choices[0].message
    assert said.content is None
    assert "card number" in (said.refusal or "")
    chunks = [*client.chat.completions.create(**how, stream=True)]
    assert "".join(each.choices[0].delta.refusal or "" for each in chunks if each.choices) == said.refusal


def test_auto_takes_a_domain_that_is_named(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="auto", messages=asked("how do I open it?"), max_tokens=2, extra_body={"domain": "help"}
    )
    assert notes(answer)["domain"] == "help"
    assert "route" not in notes(answer)
    with pytest.raises(openai.BadRequestError, match="no served run learned 'cooking'"):
        client.chat.completions.create(model="auto", messages=asked("how?"), extra_body={"domain": "cooking"})


def test_head_is_answered_as_get_without_a_body(url: str) -> None:
    with urlopen(UrlRequest(f"{url}/health", method="HEAD")) as answer:
        assert (answer.status, answer.read()) == (200, b"")


def test_bytes_of_tokens_are_those_of_the_text(client: openai.OpenAI) -> None:
    text = "Größe ok 🙂"
    found: Any = client.completions.create(model="base", prompt=text, echo=True, max_tokens=0, logprobs=3).choices[0]
    assert found.logprobs.text_offset == sorted(found.logprobs.text_offset)
    place = found.logprobs.tokens.index("e")
    assert found.logprobs.text_offset[place] == text.index("e")
    assert all(len(each) == 3 for each in found.logprobs.top_logprobs[1:])
    streamed = [*client.completions.create(model="base", prompt=text, max_tokens=0, stream=True)]
    assert [each.choices[0].finish_reason for each in streamed if each.choices] == ["length"]


def test_a_correction_comes_back_as_a_row(client: openai.OpenAI, home: Path, runs: dict[str, Run]) -> None:
    body = {"model": "small/help", "messages": asked("how?"), "answer": "no", "liked": False, "correction": "lift it"}
    client.post("/feedback", body=body, cast_to=object)
    written = Feedback(home / "assistant.db").export(home / "learned")
    rows = [json.loads(line) for path in written for line in path.read_text().splitlines()]
    ours = [json.dumps(row) for row in rows if "lift it" in json.dumps(row)]
    assert len(ours) == 2  # a row to learn, and a pair
    assert all("small" in row for row in ours)


def test_a_closed_set_is_corrected_by_one_of_its_replies(client: openai.OpenAI, desk: Desk) -> None:
    labels = desk.voices.all["small"].questions.labels("mood")
    body = {"model": "small/mood", "messages": asked("share 7 falls"), "answer": labels[0], "liked": False}
    with pytest.raises(openai.BadRequestError, match=f"mood has no such reply; choose from {', '.join(labels)}"):
        client.post("/feedback", body={**body, "correction": "It is gloomy."}, cast_to=object)
    with pytest.raises(openai.BadRequestError, match="mood has no such reply"):
        client.post(
            "/feedback", body={**body, "model": "auto", "domain": "mood", "correction": "gloomy"}, cast_to=object
        )
    client.post("/feedback", body={**body, "correction": f" {labels[1]}\n"}, cast_to=object)


@pytest.mark.slow
def test_a_tuning_is_begun_followed_and_served(client: openai.OpenAI, home: Path) -> None:
    rows = [{"messages": [*asked(f"what is {n}?"), {"role": "assistant", "content": f"it is {n}"}]} for n in range(40)]
    path = home / "tune.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = client.files.create(file=path, purpose="fine-tune")
    assert client.files.content(file.id).read() == path.read_bytes()
    how: Any = {"hyperparameters": {"n_epochs": 1, "batch_size": 8}}
    job = client.fine_tuning.jobs.create(model="base", training_file=file.id, suffix="numbers", **how)
    for _ in range(3000):
        job = client.fine_tuning.jobs.retrieve(job.id)
        if job.status in ("succeeded", "failed"):
            break
        time.sleep(0.1)
    told = client.fine_tuning.jobs.list_events(job.id, limit=100).data
    assert job.status == "succeeded", (job.error, [each.message for each in told])
    assert any(each.type == "metrics" and each.data for each in told)
    (kept,) = client.fine_tuning.jobs.checkpoints.list(job.id)
    assert (kept.fine_tuned_model_checkpoint, kept.fine_tuning_job_id) == (job.fine_tuned_model, job.id)
    assert "score" in kept.metrics.to_dict()
    answer = client.chat.completions.create(
        model=job.fine_tuned_model or "", messages=asked("what is 7?"), max_tokens=4
    )
    assert answer.choices[0].message.content is not None
    assert client.fine_tuning.jobs.list().data[0].id == job.id
    with pytest.raises(openai.BadRequestError, match="has ended already, succeeded"):
        client.fine_tuning.jobs.cancel(job.id)
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.create(model="base", training_file="file-gone")


@pytest.mark.long
def test_many_at_once_leave_the_library_s_warnings_as_they_were(url: str) -> None:
    """scikit-learn sets them anew around each piece of work: threads beside each other would leave them empty."""
    before = [*warnings.filters]

    async def together() -> None:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as many:
            how: dict[str, Any] = {"model": "small/help", "max_tokens": 1}
            asking = (many.chat.completions.create(messages=asked(f"how do I open {n}?"), **how) for n in range(12))
            await asyncio.gather(*asking)

    for _ in range(3):
        asyncio.run(together())
    assert [*warnings.filters] == before
