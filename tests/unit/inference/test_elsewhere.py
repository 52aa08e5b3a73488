"""Other engines behind the protocol of metier's own, against a stand-in that speaks their HTTP."""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from metier.data.rendering import Renderer
from metier.errors import MetierError
from metier.inference.elsewhere import Child, Elsewhere
from metier.inference.engine import Delta, Request
from metier.inference.llamacpp import LlamaCpp
from metier.inference.sampling import Sampling
from metier.inference.vllm import Vllm
from metier.inference.worker import Failed, StoppedError
from metier.trees import Example
from tests.unit import tiny
from tests.unit.inference import stand_in

ADAPTERS = ("one", "two")
STOP = frozenset({0})


def put(folder: Path, name: str) -> Path:
    """The stand-in as a program of this name."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!{sys.executable}\n{Path(stand_in.__file__).read_text()}")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


class Other:
    """An engine with all that it was asked."""

    def __init__(self, folder: Path, name: str) -> None:
        self.asked = folder / "asked.jsonl"
        program, place = put(folder, name), "LLAMA_API_KEY" if name == "llama-server" else "VLLM_API_KEY"
        models = [f"{each}=somewhere" for each in ADAPTERS] if name == "vllm" else []
        environment = {"STAND_IN": str(self.asked)}
        self.child = Child(lambda port: [str(program), "--port", str(port), *models], place, environment)
        dialect = Vllm() if name == "vllm" else LlamaCpp(Renderer(tiny.tokenizer()), ADAPTERS, 512)
        self.engine = Elsewhere(self.child, dialect, 4)

    def heard(self, *requests: Request) -> dict[int, list[Delta | Failed]]:
        """All that is said to requests that are asked at once."""
        found: dict[int, list[Delta | Failed]] = {self.engine.submit(each): [] for each in requests}
        open_ = {*found}
        deadline = time.monotonic() + 20
        while open_ and time.monotonic() < deadline:
            for each in self.engine.step():
                found[each.handle].append(each)
                if isinstance(each, Failed) or each.finish:
                    open_.discard(each.handle)
        assert not open_
        return found

    def notes(self) -> list[Any]:
        return [json.loads(line) for line in self.asked.read_text().splitlines()]


@pytest.fixture(scope="module", params=["llama-server", "vllm"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def other(name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Other]:
    made = Other(tmp_path_factory.mktemp(name), name)
    yield made
    made.child.stop()


def expected(prompt: tuple[int, ...], adapter: str, most: int) -> list[int]:
    place = ADAPTERS.index(adapter) if adapter else -1
    return [token for token, _ in stand_in.said(prompt, place, most, (0,), {}) if token]


def tokens(heard: list[Delta | Failed]) -> list[int]:
    assert all(isinstance(each, Delta) for each in heard), heard
    return [each.token for each in heard if isinstance(each, Delta) and each.token is not None]


def test_each_hears_its_own_adapter(other: Other) -> None:
    asked = [Request((5, 9 + n), 8, STOP, adapter=("", *ADAPTERS)[n % 3], tenant=f"key{n}") for n in range(9)]
    for request, heard in zip(asked, other.heard(*asked).values(), strict=True):
        assert tokens(heard) == expected(request.prompt, request.adapter, 8)
        assert [each.finish for each in heard if isinstance(each, Delta)][-1] == "length"


def test_a_turn_ends_with_its_token(other: Other) -> None:
    prompt = (stand_in.V - 2 * stand_in.STEP,)
    (heard,) = other.heard(Request(prompt, 8, STOP)).values()
    assert tokens(heard) == expected(prompt, "", 8) == [stand_in.V - stand_in.STEP]
    last = heard[-1]
    assert isinstance(last, Delta)
    assert (last.token, last.finish) == (None, "stop")


def test_likelihoods_are_told(other: Other) -> None:
    (heard,) = other.heard(Request((5,), 1, STOP, adapter="two", logprobs=2)).values()
    logprobs = stand_in.likely((5,), 1)
    assert isinstance(heard[0], Delta)
    assert heard[0].logprob == pytest.approx(max(logprobs))
    assert dict(heard[0].top) == pytest.approx(dict(stand_in.best(logprobs, 2)))


def test_rows_are_weighed(other: Other) -> None:
    rows = [Example((4, 11, 20 + n), (0.0, 0.5, 2.0)) for n in range(3)]
    for adapter, place in (("", -1), ("one", 0)):
        own = [0.5 * stand_in.likely((4,), place)[11] + 2 * stand_in.likely((4, 11), place)[20 + n] for n in range(3)]
        assert other.engine.score(rows, adapter) == pytest.approx(own)


def test_given_tokens_are_read_or_refused(other: Other, name: str) -> None:
    if name == "llama-server":
        with pytest.raises(MetierError, match="does not tell how likely a prompt's own tokens are"):
            other.engine.read([(4, 11)], 2)
        assert [each.token for each in other.engine.read([(4, 11)], 2, "one", 1)[0]] == [11]
        return
    ((first, second),) = other.engine.read([(4, 11)], 2, "one")
    assert (first.token, first.logprob) == (4, None)
    logprobs = stand_in.likely((4,), 0)
    assert second.logprob == pytest.approx(logprobs[11])
    assert dict(second.top) == pytest.approx(dict(stand_in.best(logprobs, 2)))


def test_rules_are_handed_on(other: Other, name: str) -> None:
    rules = Sampling(temperature=0.7, top_p=0.9, top_k=5, min_p=0.1, repetition_penalty=1.2, bias={30: 99.0}, seed=3)
    (heard,) = other.heard(Request((5,), 3, STOP, tenant="key", sampling=rules)).values()
    assert tokens(heard) == [30] * 3
    asked = other.notes()[-1]
    shared = ("temperature", "top_p", "top_k", "min_p", "seed")
    assert [asked[each] for each in shared] == [0.7, 0.9, 5, 0.1, 3]
    if name == "vllm":
        assert (asked["cache_salt"], asked["repetition_penalty"], asked["stop_token_ids"]) == ("key", 1.2, [0])
    else:
        assert (asked["cache_prompt"], asked["repeat_penalty"], asked["repeat_last_n"]) == (False, 1.2, 512)


def test_who_leaves_is_not_answered_on(other: Other) -> None:
    handle = other.engine.submit(Request((stand_in.SLOW,), 400, STOP))
    while not other.engine.step():
        pass
    other.engine.cancel(handle)
    other.engine.cancel(handle)  # harmless
    assert not other.engine.step()
    until(lambda: other.notes()[-1] == "left")


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_refusal_is_told_to_who_asked_alone(other: Other) -> None:
    good, bad = other.heard(Request((5,), 2, STOP), Request((stand_in.BAD,), 2, STOP)).values()
    assert tokens(good) == expected((5,), "", 2)
    assert isinstance(bad[0], Failed)
    assert isinstance(bad[0].error, MetierError)
    assert "refuses: the prompt is bad" in str(bad[0].error)


def test_an_event_that_nobody_knows_is_told_as_a_failure(other: Other) -> None:
    (heard,) = other.heard(Request((stand_in.STRANGE,), 2, STOP)).values()
    assert isinstance(heard[0], Failed)
    assert isinstance(heard[0].error, KeyError)


def test_its_end_is_told(tmp_path: Path, name: str) -> None:
    dying = Other(tmp_path, name)
    (heard,) = dying.heard(Request((stand_in.DEADLY,), 2, STOP)).values()
    assert isinstance(heard[0], Failed)
    assert isinstance(heard[0].error, StoppedError)
    dying.child._process.wait(10)
    with pytest.raises(StoppedError, match=f"{name} has ended with 3"):
        dying.engine.score([Example((4, 5), (0.0, 1.0))])
    dying.child.stop()


def test_it_ends_with_the_server(tmp_path: Path, name: str) -> None:
    made = Other(tmp_path, name)
    process = made.child._process.pid
    made.child.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_failed_start_shows_the_end_of_its_log(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_IS", "broken")
    with pytest.raises(MetierError, match=rf"(?s){name} ended before it answered.*no room for so large a model"):
        Other(tmp_path, name)


def test_tokens_within_a_character_are_found_again() -> None:
    """llama-server tells the last token alone of a character that several make."""
    renderer = Renderer(tiny.tokenizer())
    ids = renderer.encode("ü")
    assert len(ids) > 1
    event = {"stop": False, "tokens": [ids[-1]], "content": "ü", "tokens_predicted": len(ids)}
    dialect = LlamaCpp(renderer, (), 512)
    assert [each.token for each in dialect.told(event, 0)] == ids
    plain = {**event, "content": "x", "tokens": [renderer.encode("x")[0]]}
    assert [each.token for each in dialect.told({**plain, "tokens_predicted": 3}, 2)] == renderer.encode("x")
