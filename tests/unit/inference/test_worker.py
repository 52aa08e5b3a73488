from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import Any

import pytest

from metier.errors import ModelError
from metier.inference import rows
from metier.inference.engine import Capacity, Delta, Engine, Request
from metier.inference.worker import FullError, StoppedError, Worker
from metier.model.bank import Bank
from metier.model.forward import ATTENTION, Forward
from metier.trees import Example
from tests.unit.inference.test_engine import PROMPTS, STOP, network


def engine(sequences: int = 2) -> Engine:
    forward = Forward(network("llama", ATTENTION), forks=True)
    return Engine(forward, Capacity(64, sequences), boundary=None)


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker(engine(), sequences=2, capacity=100)
    yield made
    made.stop(10)


class Ear:
    """Hears one answer."""

    def __init__(self) -> None:
        self._news: SimpleQueue[Delta | Exception] = SimpleQueue()

    def __call__(self, news: Delta | Exception) -> None:
        self._news.put(news)

    def tokens(self) -> list[int]:
        found = []
        while True:
            news = self._news.get(timeout=20)
            if isinstance(news, Exception):
                raise news
            if news.token is not None:
                found.append(news.token)
            if news.finish:
                return found


def asked(worker: Worker, request: Request) -> Ear:
    ear = Ear()
    worker.ask(request, ear)
    return ear


def test_everybody_hears_what_a_solo_run_says(worker: Worker) -> None:
    expected = {place: tokens for place, tokens, _ in engine().run([Request(each, 9, STOP) for each in PROMPTS])}
    ears = [asked(worker, Request(each, 9, STOP, tenant=str(place % 3))) for place, each in enumerate(PROMPTS)]
    assert [ear.tokens() for ear in ears] == [expected[place] for place in range(len(PROMPTS))]
    assert worker.load == (0, 0)


def test_rows_are_scored_beside(worker: Worker) -> None:
    rows = [Example(each, (0.0, *[1.0] * (len(each) - 1))) for each in PROMPTS]
    ear = asked(worker, Request(PROMPTS[0], 9, STOP))
    found = [worker.score(rows[:2]), worker.score(rows[2:])]
    expected = engine().score(rows)
    assert [value for each in found for value in each.result(20)] == pytest.approx(expected, abs=1e-5)
    assert ear.tokens()


def held(worker: Worker) -> threading.Event:
    """Nothing moves until it is set."""
    gate = threading.Event()
    worker.do(lambda: gate.wait(20))
    time.sleep(0.05)
    return gate


def test_tenants_take_turns(worker: Worker) -> None:
    gate, order = held(worker), list[str]()

    def heard(name: str) -> Any:
        return lambda news: order.append(name) if news.finish else None

    for number in range(6):
        worker.ask(Request(PROMPTS[0], 1, frozenset(), tenant="many"), heard(f"many {number}"))
    worker.ask(Request(PROMPTS[0], 1, frozenset(), tenant="one"), heard("one"))
    assert worker.load == (0, 7)
    gate.set()
    worker.stop(20)
    assert order.index("one") <= 1
    assert [each for each in order if each != "one"] == [f"many {number}" for number in range(6)]


def test_a_full_queue_and_a_stopped_server_refuse() -> None:
    worker = Worker(engine(), sequences=1, capacity=2)
    gate = held(worker)
    ears = [asked(worker, Request(PROMPTS[0], 3, frozenset())) for _ in range(2)]
    with pytest.raises(FullError, match="2 requests wait already"):
        worker.ask(Request(PROMPTS[0], 3, frozenset()), Ear())
    with pytest.raises(FullError):
        worker.score([Example((1, 2), (0.0, 1.0))])
    gate.set()
    worker.stop(20)
    assert [len(ear.tokens()) for ear in ears] == [3, 3]  # what was taken is answered
    with pytest.raises(StoppedError):
        worker.ask(Request(PROMPTS[0], 3, frozenset()), Ear())


def test_who_fills_the_queue_gives_way_to_who_has_less() -> None:
    worker = Worker(engine(), sequences=1, capacity=4)
    gate = held(worker)
    tenant = "greedy"
    request, row = Request(PROMPTS[0], 3, frozenset(), tenant=tenant), Example((1, 2), (0.0, 1.0))
    ears = [asked(worker, request) for _ in range(2)]
    scored, read = worker.score([row], tenant=tenant), worker.read([(1, 2)], 1, tenant=tenant)
    with pytest.raises(FullError):
        worker.ask(request, Ear())
    modest = [asked(worker, replace(request, tenant="modest")) for _ in range(2)]
    assert worker.load == (0, 4)
    for late in ("modest", tenant):
        with pytest.raises(FullError):
            worker.score([row], tenant=late)
    with pytest.raises(FullError, match="4 requests wait already"):
        ears[1].tokens()
    gate.set()
    worker.stop(20)
    assert [len(ear.tokens()) for ear in (ears[0], *modest)] == [3, 3, 3]
    assert scored.exception(0) is None
    assert isinstance(read.exception(0), FullError)


def test_who_left_frees_the_place(worker: Worker) -> None:
    long = Request(PROMPTS[0], 100_000, frozenset())
    tickets = [worker.ask(long, lambda _: None) for _ in range(3)]
    ear = asked(worker, Request(PROMPTS[1], 3, frozenset()))
    for ticket in tickets:
        worker.cancel(ticket)
        worker.cancel(ticket)
    assert len(ear.tokens()) == 3
    worker.do(lambda: None).result(20)
    assert worker.load == (0, 0)


def test_what_breaks_is_told_and_the_next_is_answered(worker: Worker) -> None:
    broken = asked(worker, Request((10_000,), 3, frozenset()))  # no such token
    with pytest.raises(IndexError):
        broken.tokens()
    with pytest.raises(IndexError):
        worker.score([Example((10_000, 1), (0.0, 1.0))]).result(20)
    after = Request(PROMPTS[4], 9, STOP)
    assert [(0, asked(worker, after).tokens())] == [found[:2] for found in engine().run([after])]


def test_who_comes_after_the_end_is_told_and_waits_for_nothing() -> None:
    worker = Worker(engine(), sequences=2, capacity=4)
    assert worker.do(lambda: 1).result(5) == 1
    worker.stop(5)
    with pytest.raises(StoppedError):
        worker.do(lambda: 1)
    with pytest.raises(StoppedError):
        worker.score([])


def test_who_leaves_while_the_engine_works_harms_nobody(worker: Worker) -> None:
    """A future that was given up takes no result: the thread would die of it."""
    held = threading.Event()
    worker.do(lambda: held.wait(10))
    left = [worker.read([PROMPTS[0]], 0), worker.score([Example(PROMPTS[0], (0.0, *[1.0] * 3))]), worker.do(lambda: 1)]
    assert all(each.cancel() for each in left)
    held.set()
    assert asked(worker, Request(PROMPTS[0], 3, STOP)).tokens()
    assert worker.alive


def test_tenants_take_turns_in_being_scored() -> None:
    worker, order, held = Worker(engine(), sequences=2, capacity=100), list[str](), threading.Event()
    worker.do(lambda: held.wait(10))
    rows = [Example(tuple(range(3, 43)) * 30, (0.0, *[1.0] * 1199))]
    for number, tenant in enumerate(("greedy", "greedy", "greedy", "modest")):
        worker.score(rows, tenant=tenant).add_done_callback(lambda _, name=f"{tenant}{number}": order.append(name))
    held.set()
    worker.stop(30)
    assert order == ["greedy0", "modest3", "greedy1", "greedy2"]


def test_tenants_take_turns_in_being_read_and_answers_go_on_between() -> None:
    worker, order, gate = Worker(engine(), sequences=2, capacity=5), list[str](), threading.Event()
    worker.do(lambda: gate.wait(10))

    def heard(name: str, _: object) -> None:
        order.append(name)

    speaking = Request(PROMPTS[0], 3, frozenset())
    worker.ask(speaking, lambda news: order.append("token") if isinstance(news, Delta) else None)
    for number, tenant in enumerate(("greedy", "greedy", "modest")):
        read = worker.read([PROMPTS[0]], 1, tenant=tenant)
        read.add_done_callback(partial(heard, f"{tenant}{number}"))
    worker.score([Example(PROMPTS[0], (0.0, *[1.0] * 3))], tenant="greedy")
    with pytest.raises(FullError):
        worker.read([PROMPTS[0]], 1, tenant="greedy")
    gate.set()
    worker.stop(30)
    assert [each for each in order if each != "token"] == ["greedy0", "modest2", "greedy1"]
    assert order[:5:2] == ["greedy0", "modest2", "greedy1"]


def test_what_an_engine_has_no_room_for_waits_where_tenants_take_turns() -> None:
    one_place = Engine(Forward(network("llama", ATTENTION), forks=True), Capacity(64, 64, positions=64), boundary=None)
    worker, order, held = Worker(one_place, sequences=64, capacity=100), list[str](), threading.Event()
    worker.do(lambda: held.wait(10))

    def heard(name: str) -> Any:
        return lambda news: order.append(name) if isinstance(news, Exception) or news.finish else None

    for _ in range(40):
        worker.ask(Request(PROMPTS[0], 2, frozenset(), tenant="greedy"), heard("greedy"))
    worker.ask(Request(PROMPTS[0], 2, frozenset(), tenant="modest"), heard("modest"))
    held.set()
    worker.stop(60)
    assert len(order) == 41
    assert order.index("modest") < 20


def test_those_who_come_at_the_same_moment_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_SOON", "_MOMENT"):  # it ends when nobody more can be read at once
        monkeypatch.setattr(f"metier.inference.worker.{name}", 15.0)
    several, read = engine(64), list[int]()
    step = several.step
    monkeypatch.setattr(several, "step", lambda: (read.append(several.queued), step())[1])
    worker = Worker(several, sequences=64, capacity=100)
    ears = [asked(worker, Request(PROMPTS[0], 2, frozenset()))]
    time.sleep(0.05)
    ears += [asked(worker, Request(PROMPTS[0], 2, frozenset())) for _ in range(15)]
    assert {len(ear.tokens()) for ear in ears} == {2}
    assert read[0] == 16
    worker.stop(10)


def test_those_who_wait_already_are_waited_for_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_SOON", "_MOMENT"):
        monkeypatch.setattr(f"metier.inference.worker.{name}", 15.0)
    worker, gate = Worker(engine(1), sequences=1, capacity=100), threading.Event()
    worker.do(lambda: gate.wait(10))
    ears = [asked(worker, Request(PROMPTS[0], 2, frozenset())) for _ in range(3)]
    reads = [worker.read([PROMPTS[0]], 1) for _ in range(3)]
    begun = time.monotonic()
    gate.set()
    assert {len(ear.tokens()) for ear in ears} == {2}
    assert {len(read.result(10)[0]) for read in reads} == {len(PROMPTS[0])}
    assert time.monotonic() - begun < 10
    worker.stop(10)


def test_an_adapter_that_is_gone_is_no_base() -> None:
    laid = Bank(network("llama", ATTENTION))
    made = Engine(Forward(laid.network, forks=True), Capacity(64, 2), boundary=None, bank=laid)
    worker = Worker(made, sequences=2, capacity=4)
    with pytest.raises(ModelError, match="gone: was unloaded"):
        asked(worker, Request(PROMPTS[0], 3, STOP, adapter="gone")).tokens()
    with pytest.raises(ModelError, match="gone"):
        worker.score([Example((1, 2), (0.0, 1.0))], "gone").result(20)
    assert asked(worker, Request(PROMPTS[0], 3, STOP)).tokens()
    worker.stop(10)


def test_with_an_adapter_goes_what_was_kept_of_it() -> None:
    """Another may come by its name, which has other keys, other values, and says other things."""
    laid = Bank(network("llama", ATTENTION))
    made = Engine(Forward(laid.network, forks=True), Capacity(64, 2, 1 << 20), boundary=None, bank=laid)
    worker = Worker(made, sequences=2, capacity=4)
    assert asked(worker, Request(PROMPTS[0] * 9, 9, STOP)).tokens()
    key = ("", "")
    assert made._beginnings
    assert made._beginnings.longest(key, PROMPTS[0] * 9)
    assert any(lead[0] == key for lead in made._phrases._behind)
    worker.without("", lambda: None).result(20)
    assert made._beginnings.longest(key, PROMPTS[0] * 9) is None
    assert not made._phrases._behind
    worker.stop(10)


def test_what_comes_before_each_piece_of_work_is_done_on_the_engines_thread() -> None:
    seen = list[str]()
    worker = Worker(engine(), sequences=2, capacity=4, before=lambda: seen.append(threading.current_thread().name))
    asked(worker, Request(PROMPTS[0], 3, STOP)).tokens()
    worker.stop(10)
    assert len(seen) >= 3
    assert {*seen} == {"engine"}


def test_what_breaks_between_two_steps_is_told_to_all_and_nobody_is_kept_waiting() -> None:
    broken = threading.Event()

    def look() -> None:
        if broken.is_set():
            raise OSError(24, "Too many open files")

    worker = Worker(engine(sequences=1), sequences=1, capacity=9, before=look)
    gate = held(worker)
    ears = [asked(worker, Request(PROMPTS[0], 3, STOP)) for _ in range(2)]
    scored = worker.score([Example((1, 2), (0.0, 1.0))])
    broken.set()
    gate.set()
    for ear in ears:
        with pytest.raises(OSError, match="Too many open files"):
            ear.tokens()
    with pytest.raises(OSError, match="Too many open files"):
        scored.result(20)
    later = Request(PROMPTS[0], 3, STOP)
    for ask in (partial(asked, worker, later), partial(worker.score, []), partial(worker.do, broken.clear)):
        with pytest.raises(StoppedError, match="the engine has ended"):
            ask()
    worker.stop(10)
    assert worker.load == (0, 0)


def test_a_request_that_an_engine_cannot_take_is_told_to_its_asker_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = engine()
    worker, take = Worker(made, sequences=2, capacity=9), made.submit

    def submit(request: Request) -> int:
        if request.tenant == "unlucky":
            raise RuntimeError("can't start new thread")
        return take(request)

    monkeypatch.setattr(made, "submit", submit)
    unlucky, other = (asked(worker, Request(PROMPTS[0], 3, STOP, tenant=each)) for each in ("unlucky", "other"))
    with pytest.raises(RuntimeError, match="can't start"):
        unlucky.tokens()
    assert other.tokens()
    worker.stop(10)


def test_whom_a_stop_does_not_wait_for_is_told_and_the_thread_ends() -> None:
    """A thread that computes while Python ends aborts the process."""
    made = Worker(engine(), sequences=2, capacity=100)
    ear = asked(made, Request(PROMPTS[0], 10**6, frozenset()))
    while not made.done[2]:
        time.sleep(0.01)
    made.stop(0)
    assert not made._thread.is_alive()
    with pytest.raises(StoppedError, match="is being stopped"):
        ear.tokens()


def test_rows_of_many_tokens_are_read_a_few_between_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_TOKENS", 8)
    made, worker, sizes = engine(), Worker(engine(), sequences=2, capacity=5), list[int]()
    read = worker._engine.read
    monkeypatch.setattr(worker._engine, "read", lambda several, *how: sizes.append(len(several)) or read(several, *how))
    several = [PROMPTS[0][:3], PROMPTS[0][:3], PROMPTS[0][:3], PROMPTS[0] * 4]
    found = worker.read(several, 1).result(20)
    gate = threading.Event()
    worker.do(lambda: gate.wait(10))
    left = worker.read(several, 1)
    assert left.cancel()
    gate.set()
    worker.stop(30)
    assert sizes == [2, 1, 1]
    for row, (ours, whole) in enumerate(zip(found, made.read(several, 1), strict=True)):
        assert [each.token for each in ours] == [*several[row]]
        assert [each.logprob for each in ours[1:]] == pytest.approx([each.logprob for each in whole[1:]], abs=1e-5)


def test_an_engine_that_breaks_at_every_step_is_not_well(worker: Worker) -> None:
    broken, whole = Request((10_000,), 3, frozenset()), Request(PROMPTS[0], 3, STOP)
    for request, times, well in ((broken, 7, True), (whole, 1, True), (broken, 8, False), (whole, 1, True)):
        for _ in range(times):
            with suppress(IndexError):
                asked(worker, request).tokens()
        with worker._news:
            before = worker._broken
        worker.do(lambda: None).result(10)  # a step in which nobody is answered tells nothing
        worker.do(lambda: None).result(10)
        assert worker._broken == before
        assert worker.alive == well
