"""Who is served later is learned of as those are that were there at the start; what cannot be learned is told."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import openai
import pytest

from metier import experiment
from metier.inference.voices import Voices
from metier.recipe import Recipe
from metier.run import Run
from metier.web.care import Care
from metier.web.desk import Desk
from metier.web.lessons import Course, Lessons
from tests import opened
from tests.promises import serving, two_domains
from tests.promises.browsing import CHROMIUM, browser

_TAIL = """
[strategy]
method = "none"
[eval]
max_new_tokens = 4
general_text = "general.csv"
general_choices = ""
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("lessons")
    two_domains.write(home)
    return home


@pytest.fixture(scope="module")
def runs(home: Path) -> dict[str, Run]:
    """One a domain, by its name."""
    head, *domains = two_domains.DOMAINS.split("[[domain]]")
    made = {}
    for name, domain in zip(("mood", "help"), domains, strict=True):
        (home / f"{name}.toml").write_text(f"{head}[[domain]]{domain}{_TAIL}")
        made[name] = experiment.train(Recipe.load(home / f"{name}.toml"), offline=True)
    return made


@pytest.fixture
def client(runs: dict[str, Run], home: Path) -> Iterator[openai.OpenAI]:
    """Of a server that began with moods alone."""
    voices, safety = Voices(offline=True), opened.safety()
    voices.add(runs["mood"], "moods")

    def learned() -> Any:
        return Course.of(voices, safety, home / "routers", offline=True).learned()

    lessons = Lessons(learn=learned)
    lessons.begin(learned)
    with serving.served(Desk(voices, lessons, Care(safety)), home) as url:
        yield openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def names(client: openai.OpenAI) -> set[str]:
    return {model.id for model in client.models.list().data}


def refused(client: openai.OpenAI) -> str:
    """What is told to whoever asks `auto`, also while that is being learned."""
    with pytest.raises((openai.NotFoundError, openai.InternalServerError)) as caught:
        client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "how?"}])
    assert isinstance(caught.value.body, dict)
    return str(caught.value.body["message"])


def load(client: openai.OpenAI, run: Run, name: str) -> None:
    client.post("/load_lora_adapter", body={"run": run.directory.name, "name": name}, cast_to=object)


@pytest.mark.long
def test_auto_comes_with_a_second_domain_and_goes_with_it(client: openai.OpenAI, runs: dict[str, Run]) -> None:
    assert "know the domain mood alone; there is nothing to choose between" in refused(client)
    load(client, runs["help"], "helps")
    until(lambda: "auto" in names(client))
    answer = client.chat.completions.create(
        model="auto", messages=[{"role": "user", "content": "how do I open the 7th box?"}]
    )
    told = (answer.model_extra or {})["metier"]
    assert (told["route"]["domain"], told["run"]) == ("help", "helps")
    client.post("/unload_lora_adapter", body={"name": "helps"}, cast_to=object)
    until(lambda: "auto" not in names(client))
    assert "know the domain mood alone" in refused(client)


@pytest.mark.long
def test_a_run_whose_rows_are_gone_is_served_and_auto_says_why_it_is_not(
    client: openai.OpenAI, runs: dict[str, Run], home: Path
) -> None:
    rows = home / "help.csv"
    away = rows.rename(home / "away.csv")
    try:
        load(client, runs["help"], "helps")
        until(lambda: "the data of a served run is not there any more" in refused(client))
    finally:
        away.rename(rows)
    assert {"helps", "moods"} <= names(client)
    assert "auto" not in names(client)


@pytest.mark.long
def test_a_run_of_one_domain_is_asked_by_any_of_its_names(client: openai.OpenAI) -> None:
    assert names(client) == {"base", "moods", "moods/mood", "mood"}
    for model in ("moods", "moods/mood", "mood"):
        answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "share 7 falls"}])
        told = (answer.model_extra or {})["metier"]
        assert (told["run"], told["domain"], {*told["shares"]}) == ("moods", "mood", {"up", "down"})


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")
def test_the_page_names_a_run_of_one_domain_once(client: openai.OpenAI, tmp_path: Path) -> None:
    with browser(tmp_path) as tab:
        tab.open(str(client.base_url).removesuffix("v1/"))
        tab.wait("document.querySelector('#model').value")
        named = tab.run("[...document.querySelectorAll('#model option')].map(each => [each.value, each.innerText])")
    assert named == [["mood", "mood"], ["moods", "mood"], ["base", "base"]]


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")
def test_the_page_has_a_domain_of_two_runs_for_both(served_runs: dict[str, Run], tmp_path: Path) -> None:
    """By its own name it is the first one's."""
    voices = Voices(offline=True)
    for name in ("small", "shown"):
        voices.add(served_runs[name], name)
    with serving.served(Desk(voices), tmp_path / "home") as url, browser(tmp_path) as tab:
        tab.open(f"{url}/")
        tab.wait("document.querySelector('#model').value")
        named = tab.run("[...document.querySelectorAll('#model option')].map(each => each.value)")
    assert named == ["mood", "help", "small", "shown/mood", "shown/help", "shown", "base"]


@pytest.mark.long
def test_learned_apart_it_is_the_same(runs: dict[str, Run], home: Path) -> None:
    voices, safety = Voices(offline=True), opened.safety()
    for name, run in runs.items():
        voices.add(run, name)
    course = Course.of(voices, safety, home / "others", offline=True)
    here, apart = course.learned(), course.learned_apart()
    voices.stop(5)
    assert here.dispatch
    assert apart.dispatch
    assert apart.dispatch.heldout == here.dispatch.heldout
    assert apart.dispatch.send("share 7 falls") == here.dispatch.send("share 7 falls")
    assert (apart.told, apart.why) == (here.told, "")
    lost = replace(course, routers=home / "help.csv" / "routers").learned_apart()  # where no folder can be made
    assert lost.dispatch is None
    assert lost.why == "what was learned could not be kept"
    assert "help.csv" in lost.told[-1]


@pytest.mark.long
def test_metier_serve_learns_of_a_run_that_is_loaded_later(runs: dict[str, Run], home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "metier.cli.main", "serve", str(runs["mood"].directory), "--offline"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)

    def answers() -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health") as told:
                return bool(json.load(told))
        except OSError:
            return False

    with subprocess.Popen([*command, "--port", port], cwd=home, env=env) as server:
        try:
            until(answers, 120)
            load(client, runs["help"], "helps")
            until(lambda: "auto" in names(client), 120)
        finally:
            server.terminate()
            assert server.wait(40) == 0
