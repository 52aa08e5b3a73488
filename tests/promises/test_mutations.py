"""Seeded mutations of good files and recipes: exit 0 or 2, place and remedy named, nothing half-written, no traceback.

`metier check` runs as users run it; only what is found out about the base, which no mutation changes,
is found out once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from metier import job
from metier.model import outline
from tests.promises.mutants import GOODS, Good, Mutant, mutant
from tests.promises.test_faults import call

COUNT, QUICK = 600, 30  # mutants, and those of every day
_LINES, _WIDTH = 24, 700  # of a message: a screen of lines, none of them endless
_FAULT = re.compile(r"^  (?P<place>\S.*?): (?P<problem>.+?); (?P<fix>\S.+)$", re.DOTALL)


_KNOWN: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def one_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found out about the base is found out once for every strategy."""
    for room, names in ((job, ("probe", "count")), (outline, ("probe", "tried", "linear_size"))):
        for name in names:
            monkeypatch.setattr(room, name, once(name, getattr(room, name)))


def once(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    def known(*arguments: Any) -> Any:
        key = f"{name} {arguments!r}"
        if key not in _KNOWN:
            _KNOWN[key] = work(*arguments)
        return _KNOWN[key]

    return known


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lay(folder: Path, files: Any) -> dict[str, bytes]:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "loop.csv").symlink_to("loop.csv")
    return snapshot(folder)


def snapshot(folder: Path) -> dict[str, bytes]:
    paths = sorted(folder.rglob("*"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths if path.is_file()}


def some(values: Sequence[Any], quick: int) -> list[Any]:
    """Evenly spread ones by default, the others when there are minutes."""
    step = len(values) // quick
    return [pytest.param(each, marks=[pytest.mark.slow] * (n % step > 0)) for n, each in enumerate(values)]


@pytest.mark.long
@pytest.mark.parametrize("good", some(GOODS, 12), ids=lambda good: good.name)
def test_what_is_mutated_is_good(good: Good, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = lay(folder, good.files)
    for target in ("recipe.toml", *([good.data] if good.guessed else [])):
        assert call("check", target, "--offline") == 0, capsys.readouterr().err
    assert snapshot(folder) == before


@pytest.mark.parametrize("seed", some(range(COUNT), QUICK))
def test_a_mutant_is_understood_or_explains_itself(seed: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = mutant(seed)
    before = lay(folder, one.files)
    code = call(*one.command)
    said = capsys.readouterr().err
    complaints = list(complain(one, code, said))
    after = snapshot(folder)
    if one.command[0] == "init" and code == 0:
        after.pop("recipe.toml", None)
    if after != before:
        complaints.append(
            f"wrote {set(after) - set(before)}, changed {[n for n in before if after.get(n) != before[n]]}"
        )
    assert not complaints, f"seed {seed}\n{one.story}\n{one.command}\n{complaints}\nexit {code}\n{said[:3000]}"


def complain(one: Mutant, code: int, said: str) -> Iterator[str]:
    """What is not as it should be with an answer."""
    if code not in (0, 2):
        yield f"exit {code}"
    if "Traceback" in said or "fault of metier's" in said:
        yield "a traceback"
    if code != 2:
        return
    message = said[said.find("error: ") :]
    if not message.startswith("error: "):
        yield "no error named"
    lines = message.rstrip().split("\n")
    if len(lines) > _LINES or max(map(len, lines)) > _WIDTH:
        yield f"{len(lines)} lines, the longest of {max(map(len, lines))}"
    faults = [line for line in lines if line.startswith("  ") and not line.startswith("  and ")]
    yield from (f"no place, problem and remedy: {line!r:.200}" for line in faults if not _FAULT.match(line))
    if not faults and "; " not in message and "hint: " not in message:
        yield "no remedy"
    if one.target and one.target not in message and not re.search("domain |recipe|model: ", message):
        yield f"{one.target} is not named"
