"""What is learned from the rows of the served runs, and anew whenever others are served; answers go on meanwhile."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from traceback import format_tb
from typing import TYPE_CHECKING, Self

from metier.errors import MetierError
from metier.events import Listener, silent
from metier.hardware import spin

if TYPE_CHECKING:  # a child says how long its threads look for work before torch is loaded
    from metier.assistant.phrases import Lexicon
    from metier.assistant.safety import Safety
    from metier.assistant.scope import Scope
    from metier.inference.voices import Voices
    from metier.routing import Confusion
    from metier.run import Run
    from metier.web.dispatch import Dispatch, Typed

_log = logging.getLogger("metier")
_FEWEST = 10  # held-out questions, to know what belongs here
_LOST = 0.05  # of them may be declined; else none is
UNNAMED = "tuned"  # the domain of a tuning to which clients gave no suffix
_CHILD = "lessons"
_BUSY = "it is being learned what the served runs know; ask again in a minute"


@dataclass(frozen=True)
class Lesson:
    """A router, or `why` there is none, for whoever asks; what belongs to any domain, where that is known; `told`, with
    paths, to whoever serves.
    """

    dispatch: Dispatch | None = None
    why: str = "nothing has been learned from the served runs"
    scope: Scope | None = None
    told: Sequence[str] = ()

    @property
    def topics(self) -> tuple[str, ...]:
        """The domains among which `auto` chooses."""
        return self.dispatch.router.domains if self.dispatch else ()


@dataclass(frozen=True)
class Course:
    """The runs that are learned from; routers are kept below `routers`, and messages on health belong to what is
    `medical`. What tunings without a name, and domains that are not `known`, are about is told by what is asked there.
    """

    runs: Sequence[Run]
    routers: Path
    lexicon: Lexicon
    medical: bool = False
    offline: bool = False
    unnamed: Sequence[Run] = ()
    known: frozenset[str] = frozenset()

    @classmethod
    def of(cls, voices: Voices, safety: Safety, routers: Path, *, offline: bool = False) -> Self:
        """Of whoever is served at this moment, but no tuning without a name of its own: nobody said what that is for,
        and several are called alike.
        """
        served = [voice for voice in voices.all.values() if voice.run]
        runs = {voice.run.directory: voice.run for voice in served if voice.run}  # one may have several names
        unnamed = {voice.run.directory for voice in served if voice.run and UNNAMED in voice.learned}
        domains = [domain for voice in served for domain in voice.learned]
        return cls(
            [run for folder, run in runs.items() if folder not in unnamed],
            routers,
            safety.lexicon,
            safety.is_medical(*domains),
            offline,
            [run for folder, run in runs.items() if folder in unnamed],
            frozenset(filter(safety.knows, domains)),
        )

    def learned(self, listen: Listener = silent) -> Lesson:
        """What the runs' rows teach, or why they teach nothing."""
        from metier.web.dispatch import distinct, open_dispatch, typed

        lost = list[str]()
        sides = typed(self.runs, lost, offline=self.offline, listen=listen)
        scope, told = self._scope(sides)
        sounding = [*self._sounding(sides["train"])]
        sides, repeats = distinct(sides)
        told = [
            *(f"note  nothing is learned from {_line(each)}" for each in lost),
            *told,
            *sounding,
            *(f"note  auto leaves out {name}: its rows are {first}'s" for name, first in repeats.items()),
        ]
        try:
            dispatch = open_dispatch(sides, self.routers)
            return Lesson(dispatch, "", scope, [*told, _chosen(dispatch.heldout)])
        except (MetierError, OSError) as error:
            note = f"note  no domain is chosen by itself: {_line(error)}"
            return Lesson(None, _plain(error, lost, repeats), scope, [*told, note])

    def _sounding(self, asked: Mapping[str, list[str]]) -> Iterator[str]:
        """Where questions sound as if more should be watched than the name of their domain says."""
        from metier.assistant.trades import Trades
        from metier.web.dispatch import typed

        trades = Trades.open(self.lexicon)
        for name, texts in asked.items():
            if name not in self.known and (kind := trades.sound(texts)):
                fix = f'if it is, write {name} = ["{kind}"] under [domains] of a --safety file'
                yield f"warning: what is asked of {name} sounds {kind}, and is not watched as that; {fix}"
        for run in self.unnamed if UNNAMED not in self.known else ():
            texts = typed([run], [], offline=self.offline)["train"].get(UNNAMED, [])
            if kind := trades.sound(texts):
                fix = "if it is, tune it with a suffix that says so"
                yield f"warning: what is asked of {run.name} sounds {kind}, and is not watched as that; {fix}"

    def learned_apart(self) -> Lesson:
        """The same in a process of its own: in this one, answers would wait for each other's turn to be interpreted."""
        spawn = get_context("spawn")
        mine, other = spawn.Pipe(duplex=False)
        child = spawn.Process(target=_tell, args=(other, self), name=_CHILD, daemon=True)
        try:
            child.start()
            other.close()  # or its end would not be heard here
            lesson: Lesson = mine.recv()
        except EOFError:
            child.join()
            return _nothing(f"learning from the served runs ended with code {child.exitcode}; the log says more")
        except OSError as error:
            return _nothing("no process could be started that learns from the served runs", _line(error))
        child.join()
        return lesson

    def _scope(self, sides: Typed) -> tuple[Scope | None, list[str]]:
        """What the runs are there for, where their rows tell it; and how often it is told wrongly."""
        from metier.assistant.scope import Scope, elsewhere

        train, validation, heldout = (
            [text for texts in sides[side].values() for text in texts] for side in ("train", "validation", "heldout")
        )
        if not train:
            return None, []
        scope = Scope.fit([*sides["train"]], train, validation, self.lexicon, medical=self.medical)
        lost, others = scope.declined(heldout), elsewhere()[1]
        wrongly = f"{lost} of {len(heldout)} held-out questions"
        if len(heldout) < _FEWEST or lost > _LOST * len(heldout):
            note = f"note  no question is declined: {wrongly} would be; more rows would tell what belongs here"
            return None, [note]
        rightly = f"{scope.declined(others)} of {len(others)} that have nothing to do with any"
        return scope, [f"questions that belong to no domain are declined: {rightly}, and, wrongly, {wrongly}"]


class Lessons:
    """What is known `now`; once begun, it is learned anew whenever others are served, and taken over as a whole."""

    def __init__(
        self,
        now: Lesson | None = None,
        learn: Callable[[], Lesson] = Lesson,
        tell: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.now = now or Lesson()
        self._learn, self._tell = learn, tell
        self._news = threading.Condition()
        self._begun = self._stopped = False
        self._changes = self._known = 0  # of who is served, and how many of these it was learned of

    @property
    def why(self) -> str:
        """Why there is no router at this moment."""
        return _BUSY if self.passing else self.now.why

    @property
    def passing(self) -> bool:
        """Whether that passes by itself: it is being learned, or has been since it was found missing."""
        return self._known < self._changes or self.now.dispatch is not None

    def begin(self, first: Callable[[], Lesson]) -> None:
        """Take the first one, and whatever is learned from now on."""
        self._begun = True
        self._take(_safely(first), 0)
        threading.Thread(target=self._follow, name="lessons", daemon=True).start()

    def renew(self) -> None:
        """Others are served than before. On any thread; nothing is waited for."""
        if not self._begun:  # the first one has them, too
            return
        with self._news:
            self._changes += 1
            self._news.notify()

    def stop(self) -> None:
        """Learn no more, and tell nothing of what is being learned."""
        with self._news:
            self._stopped = True
            self._news.notify()
        for child in active_children():
            if child.name == _CHILD:
                child.terminate()

    def _follow(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._known < self._changes or self._stopped)
                if self._stopped:
                    return
                changes = self._changes
            self._take(_safely(self._learn), changes)

    def _take(self, lesson: Lesson, changes: int) -> None:
        if self._stopped:  # it was not learned to the end
            return
        self.now, self._known = lesson, changes
        with suppress(OSError):  # nobody reads any more what is told
            for line in lesson.told:
                self._tell(line)


def _tell(to: Connection, course: Course) -> None:
    """The child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which a terminal sends to all; whoever serves ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    spin()
    to.send(course.learned())


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent, "only a child is told to end with it"
    parent.join()
    os._exit(1)


def _safely(learn: Callable[[], Lesson]) -> Lesson:
    """What it learns, or nothing where that fails: who is served next is learned of all the same."""
    try:
        return learn()
    except Exception as error:
        # Where it was raised, and of what kind; not its text, in which may stand a row.
        fault = "".join(format_tb(error.__traceback__))
        _log.error("the served runs are not learned of: %s\n%s", type(error).__name__, fault)
        return _nothing(f"learning from the served runs failed ({type(error).__name__}); the log says more")


def _plain(error: MetierError | OSError, lost: Sequence[str], repeats: Mapping[str, str]) -> str:
    """Why there is no router, without the paths of the machine."""
    why = _line(error) if isinstance(error, MetierError) else "what was learned could not be kept"
    gone = ["the data of a served run is not there any more"] if lost else []
    return "; ".join([why, *gone, *(f"{name}'s rows are {first}'s" for name, first in repeats.items())])


def _nothing(why: str, known: str = "") -> Lesson:
    """`known` is what only whoever serves is told."""
    told = f"note  neither is a domain chosen by itself nor a question declined: {known or why}"
    return Lesson(why=why, told=[told])


def _chosen(heldout: Confusion) -> str:
    """What became of the questions that were held out."""
    right = f"auto sends {heldout.right} of {heldout.total} held-out questions where they belong"
    return f"{right}, {heldout.wrong} elsewhere, and of {heldout.abstained} is not sure"


def _line(told: MetierError | OSError | str) -> str:
    return " ".join(str(told).split())
