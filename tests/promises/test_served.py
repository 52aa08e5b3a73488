"""What is served is what was measured: runs side by side answer as their own evaluation recorded."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

import metier.inference.voices as voices_module
from metier.data.items import Item, Message
from metier.errors import MetierError, ModelError
from metier.inference.engine import Delta, Request
from metier.inference.voices import Limits, Voice, Voices
from metier.run import Run
from tests.promises import serving

STRATEGIES: dict[str, dict[str, Any]] = {
    "small": {"method": "lora", "peft": {"r": 2}},
    "large": {"method": "lora", "peft": {"r": 4, "lora_alpha": 16.0}},
    "shown": {"method": "none", "num_fewshot": 2},
    "ia3": {"method": "ia3"},
    "full": {"method": "full"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    return serving.train(tmp_path_factory.mktemp("served"), STRATEGIES)


@pytest.fixture(scope="module")
def voices(runs: dict[str, Run]) -> Iterator[Voices]:
    opened = Voices(Limits(sequences=8, remember=1 << 20), offline=True)
    for name, run in runs.items():
        opened.add(run, name)
    yield opened
    opened.stop(10)


def ask(voice: Voice, item: Item) -> SimpleQueue[Delta | Exception]:
    news: SimpleQueue[Delta | Exception] = SimpleQueue()
    renderer = voice.ground.renderer
    prompt = tuple(renderer.prompt_ids(item.asked))
    request = Request(prompt, voice.max_new_tokens, renderer.stop_ids, adapter=voice.adapter)
    voice.ground.worker.ask(request, news.put)
    return news


def said(voice: Voice, news: SimpleQueue[Delta | Exception]) -> str:
    tokens: list[int] = []
    while True:
        delta = news.get(timeout=20)
        assert isinstance(delta, Delta), delta
        tokens += [delta.token] if delta.token is not None else []
        if delta.finish:
            return voice.ground.renderer.decode(tokens)


def test_open_answers_are_those_that_were_measured(runs: dict[str, Run], voices: Voices) -> None:
    """All runs at once, through one queue."""
    rows = {name: [row for row in run.answers() if row["domain"] == "help"] for name, run in runs.items()}
    asked = []
    for number in range(16):
        for name, each in rows.items():
            voice = voices[name]
            item = voice.shown(voice.item([user(each[number]["prompt"])], "help"))
            asked.append((name, each[number]["output"], ask(voice, item)))
    for name, output, news in asked:
        assert said(voices[name], news) == output
    assert len({tuple(row["output"] for row in each) for each in rows.values()}) >= 4


def test_closed_sets_are_scored_as_they_were_measured(runs: dict[str, Run], voices: Voices) -> None:
    for name, run in runs.items():
        voice = voices[name]
        for row in [row for row in run.answers() if row["domain"] == "mood"]:
            item = voice.shown(voice.item([user(row["prompt"])], "mood"))
            rows = voice.ground.renderer.label_rows(item)
            found = voice.ground.worker.score(rows, voice.adapter).result(20)
            assert found == pytest.approx(row["label_logprobs"], abs=1e-4)


def test_what_adds_up_shares_one_network(voices: Voices) -> None:
    grounds = {name: id(voices[name].ground) for name in STRATEGIES}
    assert grounds["small"] == grounds["large"] == grounds["shown"]
    assert len({grounds["small"], grounds["ia3"], grounds["full"]}) == 3


def test_two_who_load_a_new_base_at_once_share_it_and_keep_no_threads_of_their_own(
    runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that has computed keeps OpenMP's threads, and more of these than cores make every step slower."""
    opened, loads = Voices(Limits(sequences=1), offline=True), list[threading.Thread]()
    open_run, both = voices_module.open_run, threading.Barrier(2, timeout=20)

    def slowly(*args: Any, **how: Any) -> Any:
        loads.append(threading.current_thread())
        time.sleep(0.3)  # long enough for the other to find nothing open yet
        return open_run(*args, **how)

    def add(name: str) -> Voice:
        both.wait()
        return opened.add(runs[name], name)

    monkeypatch.setattr(voices_module, "open_run", slowly)
    with ThreadPoolExecutor(2) as others:
        small, large = others.map(add, ["small", "large"])
        assert small.ground is large.ground
        (load,) = loads
        assert load not in others._threads
        assert load is not threading.current_thread()
        assert not load.is_alive()
    opened.stop(10)


def test_a_run_that_is_served_already_is_not_opened_again(runs: dict[str, Run], voices: Voices, tmp_path: Path) -> None:
    """Nor one that was trained a second time elsewhere; another one is refused."""
    again = Run(Path(shutil.copytree(runs["small"].directory, tmp_path / runs["small"].name)))
    assert voices.add(again, "small") is voices["small"]
    with pytest.raises(MetierError, match="is served already"):
        voices.add(runs["large"], "small")


@pytest.mark.parametrize("name", ["small", "shown", "ia3"])
def test_what_cannot_be_served_leaves_nothing_open(
    runs: dict[str, Run], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: Run) -> None:
        raise MetierError("passages.txt: is gone")

    opened, front_of = Voices(Limits(sequences=1), offline=True), voices_module.front_of
    monkeypatch.setattr(voices_module, "front_of", gone)
    with pytest.raises(MetierError, match="is gone"):
        opened.add(runs[name], name)
    assert not opened.grounds
    monkeypatch.setattr(voices_module, "front_of", front_of)
    stands = opened.add(runs["large"], "large").ground
    monkeypatch.setattr(voices_module, "front_of", gone)
    with pytest.raises(MetierError, match="is gone"):
        opened.add(runs[name], name)
    assert opened.grounds == (stands,)
    assert stands.bank
    assert stands.bank.names == ("large",)
    opened.stop(10)


@pytest.mark.parametrize("name", ["small", "shown", "ia3"])
def test_a_base_that_has_changed_is_opened_for_no_run(runs: dict[str, Run], name: str, tmp_path: Path) -> None:
    home = runs[name].directory.parent.parent
    shutil.copytree(home, tmp_path / "home")
    with (tmp_path / "home" / "base" / "config.json").open("a") as config:
        config.write("\n")
    opened = Voices(Limits(sequences=1), offline=True)
    with pytest.raises(ModelError, match="base"):
        opened.add(Run(tmp_path / "home" / "runs" / runs[name].name), name)
    assert not opened.grounds


def user(text: str) -> Message:
    return Message("user", text.rpartition("user: ")[2])


@pytest.fixture(scope="module")
def small_formats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Of a base in 4 bits, and of one in 16."""
    home = tmp_path_factory.mktemp("formats")
    made = serving.train(home, {"nf4": {"method": "qlora", "peft": {"r": 2}}})
    return made | serving.train(home, {"bf16": {"method": "lora", "peft": {"r": 2}}}, compute="bfloat16")


@pytest.mark.slow
def test_bases_of_four_and_of_sixteen_bits_answer_as_they_were_measured(small_formats: dict[str, Run]) -> None:
    """One after the other: with fewer bits who shares a batch decides near ties."""
    opened = Voices(Limits(sequences=8), offline=True)
    for name, run in small_formats.items():
        voice, plan = opened.add(run, name), run.plan()
        assert plan["storage"] == {"nf4": "nf4", "bf16": "bfloat16"}[name]
        same = []
        for row in (each for each in run.answers() if each["domain"] in voice.questions.domains):
            item = voice.shown(voice.item([user(row["prompt"])], row["domain"]))
            if row["domain"] == "help":
                same.append(said(voice, ask(voice, item)) == row["output"])
            else:
                rows = voice.ground.renderer.label_rows(item)
                found = voice.ground.worker.score(rows, voice.adapter).result(20)
                assert found == pytest.approx(row["label_logprobs"], abs=0.05)
        assert sum(same) >= len(same) - 1
    opened.stop(10)
