from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from metier.assistant.scope import elsewhere
from metier.errors import MetierError
from metier.routing import Router, confusion
from metier.web import dispatch
from metier.web.dispatch import Dispatch, Typed, open_dispatch, typed
from metier.web.lessons import UNNAMED, Course, Lesson, Lessons
from tests import opened
from tests.unit.assistant.test_scope import asked


def course(runs: Path) -> Course:
    return Course((), runs, opened.safety().lexicon)


def sides(heldout: list[str]) -> Typed:
    train, validation = asked("banking")[0::3], asked("banking")[1::3]
    return {"train": {"banking": train}, "validation": {"banking": validation}, "heldout": {"banking": heldout}}


def run(name: str) -> Any:
    """Whose recipe is its name."""
    return SimpleNamespace(name=name, recipe=lambda: name)


def prepared(recipe: str, **_: Any) -> Any:
    """A job with a domain as the recipe is called, unless its data is gone."""
    if recipe == "gone":
        raise MetierError("recipe.toml has 1 fault\n  rows.csv: does not exist")
    domain = SimpleNamespace(domain=SimpleNamespace(name=recipe, trained=True), heldout=[SimpleNamespace(kind="open")])
    return SimpleNamespace(data=SimpleNamespace(domains=[domain]))


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("heldout", "knows"),
    [
        (asked("banking")[2::3], True),
        (asked("banking")[2:15:3], False),  # too few to tell
        (elsewhere()[1], False),  # too many would be lost
    ],
)
def test_nothing_is_declined_where_rows_do_not_tell_what_belongs_here(
    heldout: list[str], knows: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "typed", lambda *_, **__: sides(heldout))
    lesson = course(tmp_path).learned()
    assert (lesson.scope is not None) == knows
    assert ("no question is declined" in "".join(lesson.told)) != knows
    assert lesson.dispatch is None
    assert lesson.why == "the served runs know the domain banking alone; there is nothing to choose between"


def test_what_cannot_be_learned_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "prepare", prepared)
    lesson = replace(course(tmp_path), runs=[run("gone")]).learned()
    assert (lesson.dispatch, lesson.scope) == (None, None)
    assert lesson.why == (
        "the served runs know no domain; there is nothing to choose between; "
        "the data of a served run is not there any more"
    )
    assert lesson.told[0] == "note  nothing is learned from gone: recipe.toml has 1 fault rows.csv: does not exist"
    with pytest.raises(MetierError, match="know no domain"):
        open_dispatch({"train": {}}, tmp_path)


def test_whoever_asks_is_told_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr(dispatch, "typed", lambda *_, **__: sides([]))
    monkeypatch.setattr(dispatch, "open_dispatch", full)
    lesson = course(tmp_path).learned()
    assert lesson.why == "what was learned could not be kept"
    assert str(tmp_path) in lesson.told[-1]


def test_a_run_whose_data_is_gone_keeps_nobody_from_learning_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "prepare", prepared)
    monkeypatch.setattr(dispatch, "typed_last", lambda each, _: asked(each.domain.name)[:6])
    lesson = replace(course(tmp_path), runs=[run("telecom"), run("gone"), run("banking")]).learned()
    assert lesson.dispatch
    assert lesson.dispatch.router.domains == ("telecom", "banking")
    assert [each for each in lesson.told if "nothing is learned from gone" in each]
    assert lesson.told[-1].startswith(f"auto sends {lesson.dispatch.heldout.right} of 12 held-out questions where")
    with pytest.raises(MetierError, match="does not exist"):
        typed([run("gone")])


@pytest.mark.parametrize(
    ("said", "domain", "stays"),
    [
        (["thanks!"], None, False),
        (["my card is lost", "thanks!"], "banking", True),
        (["thanks!", "my card is lost"], "banking", False),
        (["my card is lost", "my router is slow", "and now?", "ok"], "telecom", True),
    ],
)
def test_what_says_too_little_belongs_to_the_talk(
    said: list[str], domain: str | None, stays: bool, tmp_path: Path
) -> None:
    rows = {"banking": ["my card is lost", "block my card"], "telecom": ["my router is slow", "reset the router"]}
    router = replace(Router.fit(rows), threshold=0.7)
    routed = Dispatch(router, confusion([], [], ["banking", "telecom"])).send(said)
    assert (routed.domain, routed.stays) == (domain, stays)
    assert routed.share == Dispatch(router, confusion([], [], [])).send(said[-1:]).share  # of what was said last


def test_a_domain_with_another_s_rows_is_left_out_of_the_router(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a file is tuned again, corrected; half of the rows are as before."""
    shop, new, other = asked("telecom")[:8], asked("telecom")[8:13], asked("banking")[:8]
    rows = {"bikeshop": shop, "banking": other, "shop": shop[:4] + new[:4], "few": new + shop[4:8], "again": shop[:2]}
    monkeypatch.setattr(dispatch, "prepare", prepared)
    monkeypatch.setattr(dispatch, "typed_last", lambda each, _: rows[each.domain.name])
    lesson = replace(course(tmp_path), runs=[*map(run, rows)]).learned()
    assert lesson.dispatch
    assert lesson.topics == lesson.dispatch.heldout.domains == ("bikeshop", "banking", "few")
    assert lesson.dispatch.heldout.total == 8 + 8 + 9
    assert [each for each in lesson.told if "leaves out" in each] == [
        "note  auto leaves out shop: its rows are bikeshop's",
        "note  auto leaves out again: its rows are bikeshop's",
    ]
    alone = replace(course(tmp_path), runs=[run("bikeshop"), run("shop")]).learned()
    assert alone.why == (
        "the served runs know the domain bikeshop alone; there is nothing to choose between; shop's rows are bikeshop's"
    )


def test_a_tuning_without_a_name_of_its_own_is_not_learned_of(tmp_path: Path) -> None:
    def voice(name: str, domain: str) -> Any:
        return SimpleNamespace(run=SimpleNamespace(directory=tmp_path / name), learned=(domain,))

    served = {
        "a": voice("a", "banking"),
        "b": voice("b", UNNAMED),
        "again": voice("a", "banking"),
        "c": voice("c", "x"),
    }
    found = Course.of(cast(Any, SimpleNamespace(all=served)), opened.safety(), tmp_path)
    assert [each.directory.name for each in found.runs] == ["a", "c"]
    assert [each.directory.name for each in found.unnamed] == ["b"]
    assert found.known == {"banking"}


def test_what_sounds_medical_and_is_called_otherwise_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"ward": asked("medical"), "helpdesk": asked("medical"), "phones": asked("telecom")}
    rows |= {"few": asked("medical")[:9], UNNAMED: asked("banking")}
    monkeypatch.setattr(dispatch, "prepare", prepared)
    monkeypatch.setattr(dispatch, "typed_last", lambda each, _: rows[each.domain.name])
    named = [run(name) for name in rows if name != UNNAMED]
    known = frozenset({"ward"})  # whose rows helpdesk has, which auto leaves out
    lesson = replace(course(tmp_path), runs=named, unnamed=[run(UNNAMED)] * 2, known=known).learned()
    assert [each.partition(";")[0] for each in lesson.told if "sounds" in each] == [
        "warning: what is asked of helpdesk sounds medical, and is not watched as that",
        *["warning: what is asked of tuned sounds banking, and is not watched as that"] * 2,
    ]
    assert 'write helpdesk = ["medical"] under [domains] of a --safety file' in "".join(lesson.told)
    assert "tune it with a suffix that says so" in "".join(lesson.told)


def test_what_was_known_holds_until_all_that_changed_is_learned_of() -> None:
    """Once for all who came while it was learned."""
    gate, told, learned = threading.Semaphore(0), list[str](), list[Lesson]()

    def learn() -> Lesson:
        gate.acquire()
        learned.append(Lesson(why=f"lesson {len(learned) + 1}", told=["learned"]))
        return learned[-1]

    lessons = Lessons(learn=learn, tell=told.append)
    lessons.renew()  # nothing is begun: whoever is served by then is in the first
    first = Lesson(cast(Any, SimpleNamespace()), "")
    lessons.begin(lambda: first)
    lessons.renew()
    time.sleep(0.05)
    for _ in range(3):
        lessons.renew()
    assert lessons.now is first
    assert "is being learned" in lessons.why
    gate.release()
    until(lambda: lessons.now is not first)
    assert "is being learned" in lessons.why  # of the three
    gate.release()
    until(lambda: lessons.why == "lesson 2")
    assert told == ["learned"] * 2
    assert not gate.acquire(blocking=False)


def test_what_fails_once_is_learned_the_next_time(caplog: pytest.LogCaptureFixture) -> None:
    """Neither a fault nor a reader of what is told who has left ends it."""

    def left(_: str) -> None:
        raise BrokenPipeError

    def learn() -> Lesson:
        if not caplog.text:
            raise ValueError("".join(["row", " 7"]))
        return Lesson(why="so", told=["learned"])

    lessons = Lessons(learn=learn, tell=left)
    lessons.begin(lambda: Lesson(told=["begun"]))
    lessons.renew()
    until(lambda: "failed (ValueError)" in lessons.why)
    assert "ValueError" in caplog.text
    assert "row 7" not in caplog.text
    lessons.renew()
    until(lambda: lessons.why == "so")


def test_what_is_being_learned_when_all_ends_is_ended_and_not_told_of(tmp_path: Path) -> None:
    told, learning = list[str](), list[threading.Thread]()

    def learn() -> Lesson:
        learning.append(threading.current_thread())
        return course(tmp_path).learned_apart()

    lessons = Lessons(learn=learn, tell=told.append)
    lessons.begin(lambda: Lesson(why="first"))
    lessons.renew()
    until(active_children)
    lessons.stop()
    learning[0].join(5)
    assert not learning[0].is_alive()
    assert (lessons.now.why, told) == ("first", [])
