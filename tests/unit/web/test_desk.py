from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from metier.assistant.safety import Safety
from metier.data.classes import HeadRenderer
from metier.inference.voices import Ground, Voice, Voices
from metier.web.care import Care
from metier.web.desk import Desk, Target, request_of
from metier.web.dispatch import Dispatch, Routed
from metier.web.failures import Refusal, whole
from metier.web.lessons import Lesson, Lessons
from metier.web.schema import ChatBody

TALK = [{"role": "user", "content": "hello"}]


class Sure:
    """Sends everything to one domain."""

    class router:
        domains = ("help", "mood")

    def send(self, _: list[str]) -> Routed:
        return Routed("help", 0.9)


SURE = Lessons(Lesson(cast(Dispatch, cast(Any, Sure()))))
NONE = Lessons(Lesson(why="so"))


def test_a_domain_that_nobody_knows_any_more_is_asked_back_for() -> None:
    desk = Desk(Voices(offline=True))
    assert desk.send(["how do I open it?"], SURE.now) == (None, Routed("help", 0.9))


@pytest.mark.parametrize(("unsure", "name"), [("base", "nano"), ("ask", None)])
def test_where_the_router_is_not_sure_the_base_answers_or_it_is_asked_back(
    unsure: str, name: str | None, tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text(f'unsure = "{unsure}"\n')
    router: Any = SimpleNamespace(router=Sure.router, send=lambda _: Routed(None, 0.4))
    voices: Any = SimpleNamespace(
        all={"care": SimpleNamespace(learned=("help",))}, grounds=[SimpleNamespace(model="nano", shared=True)]
    )
    desk = Desk(voices, care=Care(Safety.open(tmp_path / "mine.toml")))
    target, routed = desk.send(["how?"], Lesson(router))
    assert routed.domain is None
    assert (target and target.voice.name) == name
    assert "help and mood, and am not sure which" in desk.asks_back(["help", "mood"])


@pytest.mark.parametrize(
    ("stays", "closed", "name"), [(True, True, "nano"), (True, False, "care"), (False, True, "care")]
)
def test_what_sorts_texts_is_not_stayed_with(stays: bool, closed: bool, name: str) -> None:
    router: Any = SimpleNamespace(router=Sure.router, send=lambda _: Routed("help", 0.4, stays))
    questions = SimpleNamespace(closed=lambda _: closed)
    care = SimpleNamespace(name="care", learned=("help",), questions=questions)
    voices: Any = SimpleNamespace(all={"care": care}, grounds=[SimpleNamespace(model="nano", shared=True)])
    target, routed = Desk(voices).send(["how?", "thanks!"], Lesson(router))
    assert target
    assert target.voice.name == name
    assert routed.domain == ("help" if name == "care" else None)


@pytest.mark.parametrize(
    ("lessons", "model", "talks", "told"),
    [
        (SURE, "gone", True, "the model 'gone' is not served; choose from auto, care, care/help, help"),
        (
            SURE,
            "cars",
            False,
            "the model 'cars' is not served; choose from care, care/help, help; did you mean `care`?",
        ),
        (SURE, "gone", False, "the model 'gone' is not served; choose from care, care/help, help"),
        (SURE, "auto", False, "'auto' answers conversations alone; choose from care, care/help, help"),
        (NONE, "gone", True, "the model 'gone' is not served; choose from care, care/help, help"),
        (NONE, "auto", True, "no model is chosen by itself: so; choose from care, care/help, help"),
        (NONE, "auto", False, "'auto' answers conversations alone; choose from care, care/help, help"),
    ],
)
def test_whoever_is_not_served_is_told_who_is(lessons: Lessons, model: str, talks: bool, told: str) -> None:
    care = SimpleNamespace(questions=SimpleNamespace(domains={"help": None}))
    voices: Any = SimpleNamespace(all={"care": care}, grounds=())
    with pytest.raises(Refusal) as caught:
        Desk(voices, lessons).target(model, talks=talks)
    assert whole(caught.value) == told
    assert caught.value.status == 404


def test_who_asks_auto_while_it_is_being_learned_is_told_to_come_again() -> None:
    gate = threading.Event()
    lessons = Lessons(learn=lambda: Lesson(why=str(gate.wait(5))))
    lessons.begin(Lesson)
    desk = Desk(Voices(offline=True), lessons)
    lessons.renew()
    with pytest.raises(Refusal, match="is being learned") as caught:
        desk.send(["how?"], lessons.now)
    assert caught.value.status == 503
    gate.set()


def test_keys_take_turns_in_front_of_the_engine() -> None:
    """One key with many long prompts delays another's by one of them; what nobody waits for is not done."""
    desk, gate, done = Desk(Voices(offline=True)), threading.Event(), list[str]()

    async def asked() -> None:
        many = [asyncio.ensure_future(desk.aside("many", gate.wait, 20))]
        many += [asyncio.ensure_future(desk.aside("many", done.append, f"many {number}")) for number in range(6)]
        await asyncio.sleep(0)  # they are queued
        one = [asyncio.ensure_future(desk.aside("one", done.append, "one")) for _ in range(2)]
        await asyncio.sleep(0)
        left = many.pop(3)
        left.cancel()
        await asyncio.wait([left])  # the queue has heard of it
        gate.set()
        await asyncio.gather(*many, *one)

    asyncio.run(asked())
    assert done == ["many 0", "one", "many 1", "one", "many 3", "many 4", "many 5"]


@pytest.mark.parametrize(
    ("positions", "most", "length"),
    [
        (None, 50_000, 32_668),  # to the end of the context
        (1_000_000, 50_000, 32_668),
        (20_000, 50_000, 9_900),  # with the prompt half of what all share
        (20_000, 3_000, 3_000),
        (20_000, None, 256),  # as the run was measured
        (300, 50_000, 256),
    ],
)
def test_an_answer_may_be_as_long_as_others_find_room_beside_it(
    positions: int | None, most: int | None, length: int
) -> None:
    known = cast(Any, SimpleNamespace(stop_ids=frozenset({2})))
    ground = Ground("base", Path(), known, 99, 32_768, cast(Any, None), positions)
    target = Target(Voice("base", ground))
    body = ChatBody.model_validate({"model": "base", "messages": TALK, "max_tokens": most})
    assert request_of(target, [5] * 100, body, "").max_new_tokens == length


class Served(dict[str, Any]):
    """Voices, of which an engine does not forget one called "stuck"."""

    all = property(dict)
    grounds: tuple[Any, ...] = ()

    def add(self, run: Any, name: str) -> Any:
        return self.setdefault(name or run.name, SimpleNamespace(questions=SimpleNamespace(domains=("claims",))))

    def remove(self, name: str) -> None:
        del self[name]
        if name == "stuck":
            raise RuntimeError(name)


def test_a_head_that_classifies_writes_nothing() -> None:
    """Neither JSON nor a text that goes on."""
    head = HeadRenderer.__new__(HeadRenderer)
    target = Target(Voice("sorter", cast(Ground, SimpleNamespace(renderer=head))))
    with pytest.raises(Refusal, match="sorter: has a head that classifies, and writes nothing"):
        request_of(target, [5], ChatBody.model_validate({"model": "sorter", "messages": TALK}), "")


def test_only_who_comes_or_goes_is_learned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    news = list[str]()
    monkeypatch.setattr(Lessons, "renew", lambda _: news.append("news"))
    desk, run = Desk(cast(Any, Served())), cast(Any, SimpleNamespace(name="care"))
    for name, known in (("", 1), ("care", 1), ("stuck", 2)):
        desk.add(run, name)
        assert len(news) == known
    with pytest.raises(RuntimeError):
        desk.remove("stuck")
    with pytest.raises(KeyError):
        desk.remove("gone")
    assert len(news) == 3


@pytest.mark.parametrize("name", ["auto", "base"])
def test_no_run_is_called_as_the_router_or_a_base_is(name: str) -> None:
    served = Served()
    served.grounds = (SimpleNamespace(model="base"),)
    with pytest.raises(Refusal, match=f"{name}: is the name by which"):
        Desk(cast(Any, served)).add(cast(Any, SimpleNamespace(name="care")), name)
    assert not served


def test_no_run_takes_the_name_of_a_domain_that_others_serve() -> None:
    """Who asks for it would be answered by something else."""
    desk, run = Desk(cast(Any, Served())), cast(Any, SimpleNamespace(name="care"))
    desk.add(run, "")
    with pytest.raises(Refusal, match="claims: is a domain that is served"):
        desk.add(run, "claims")


def test_a_domain_s_name_stays_the_first_run_s_that_has_it() -> None:
    def voice() -> Any:
        return SimpleNamespace(questions=SimpleNamespace(domains={"help": None}), learned=("help",))

    served = Served(care=voice(), desk=voice())
    served.grounds = (SimpleNamespace(model="base", shared=True),)
    desk = Desk(cast(Any, served), SURE)
    assert desk.target("help") == Target(served["care"], "help") == desk.expert("help")
    assert desk.target("desk/help") == Target(served["desk"], "help")
    del served["care"]
    assert desk.target("help") == Target(served["desk"], "help")
    served["help"] = voice()  # a run's own name is its
    assert desk.target("help").voice is served["help"]
    served["odd"] = SimpleNamespace(questions=SimpleNamespace(domains={"base": None}))
    assert desk.target("base").voice.run is None


def test_a_run_is_asked_by_its_own_name_though_that_is_another_s_domain_too() -> None:
    def voice(*domains: str) -> Any:
        return SimpleNamespace(questions=SimpleNamespace(domains=dict.fromkeys(domains)))

    own, other = voice("x"), voice("help", "mood")
    for served in ({"care/help": own, "care": other}, {"care": other, "care/help": own}):
        targets = Desk(cast(Any, Served(served))).targets
        assert targets["care/help"] == Target(own, "x")
        assert targets["care/mood"] == Target(other, "mood")
