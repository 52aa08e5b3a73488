"""Answers that are code: what passes, what does not, and what a child is kept from."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import pytest

from metier.errors import RunError
from metier.evaluation import programs
from metier.evaluation.answers import Answer
from metier.evaluation.programs import Limits, code_of, run_tests
from metier.events import Event, silent

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="refused there")
linux = pytest.mark.skipif(sys.platform != "linux" or bool(programs.unconfined()), reason="this system confines less")
ADD = "def add(a, b):\n    return a + b"


def code(number: int, output: str | None, **values: object) -> Answer:
    base = {
        "domain": "d",
        "group": "g",
        "kind": "open",
        "task": "code",
        "reference": ADD,
        "tests": "assert add(1, 2) == 3",
    }
    return Answer(id=str(number), place="d:1", prompt="?", output=output, **{**base, **values})  # type: ignore[arg-type]


def test_what_passes_and_what_does_not() -> None:
    heard: list[Event] = []
    answers = [
        code(0, ADD),
        code(1, "def add(a, b):\n    return a - b"),
        code(2, f"Here it is:\n```python\n{ADD}\n```\nGood luck!"),
        code(3, "def add(a, b) return"),
        code(4, None, failed="too long"),
        code(5, "raise SystemExit(0)"),
        code(6, "import os; os._exit(0)"),
        code(7, "no code at all", task="support", tests=""),
    ]
    done = programs.run_code(answers, heard.append)
    assert [each.passed for each in done] == [True, False, True, False, False, False, False, None]
    assert [each.error.partition(":")[0] for each in done] == [
        "",
        "AssertionError",
        "",
        "SyntaxError",
        "there is no answer",
        "SystemExit",
        "ended by itself (0)",
        "",
    ]
    assert (heard[-1].done, heard[-1].total) == (7, 7)


def test_code_of_an_answer() -> None:
    assert code_of("```py\na = 1\n```\nand\n```\nb = 2\n```") == "a = 1\n\nb = 2\n"
    assert code_of("```python\na = 1\n") == "a = 1\n"  # cut off
    assert code_of("a = 1") == "a = 1"


@pytest.mark.long
def test_time_is_limited_on_the_processor_and_on_the_clock() -> None:
    begun = time.monotonic()
    assert run_tests("while True: pass", "", Limits(seconds=1, clock=60)) == "timed out"
    assert run_tests("import time; time.sleep(60)", "", Limits(clock=1)) == "timed out"
    assert time.monotonic() - begun < 40


def test_memory_and_files_are_limited() -> None:
    if sys.platform == "linux":
        assert run_tests("x = bytearray(2 << 30)", "").startswith("MemoryError")
    assert "too large" in run_tests("import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)", _WRITES)


_WRITES = 'with open("x", "wb") as file: file.write(b"x" * (9 << 20))'


def test_it_begins_in_an_empty_folder_without_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hush")
    seen = 'import os; assert os.listdir() == []; assert "SECRET" not in os.environ; open("a", "w").write("x")'
    assert run_tests(seen, "assert os.listdir() == ['a']") == ""


@linux
def test_it_reaches_neither_network_nor_files_nor_programs(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("mine")
    assert run_tests(f"open({str(own)!r})", "").startswith("PermissionError")
    assert run_tests(f"open({str(tmp_path / 'new')!r}, 'w')", "").startswith("PermissionError")
    assert run_tests(f"import os; os.remove({str(own)!r})", "").startswith("PermissionError")
    assert run_tests("import os; os.execv('/bin/true', ['true'])", "").startswith("PermissionError")
    with socket.create_server(("127.0.0.1", 0)) as server:
        reach = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5)"
        assert "Error" in run_tests(reach, "")
    assert run_tests("import json, decimal, sqlite3, numpy", "") == ""  # what Python itself needs is there


@linux
def test_nothing_outlives_its_program() -> None:
    stays = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(97)"
    run_tests(stays, "")
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if _says(path, b"confined.py")]
    assert [path for path in left if int(path.parent.name) != os.getpid()] == []


def _says(path: Path, what: bytes) -> bool:
    try:
        return what in path.read_bytes()
    except OSError:
        return False


def test_a_system_without_limits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    programs.unconfined.cache_clear()
    monkeypatch.setattr(programs, "find_spec", lambda name: None)
    with pytest.raises(RunError, match="no limits"):
        programs.run_code([code(0, ADD)], silent)
    assert programs.run_code([code(0, ADD, tests="")], silent)[0].passed is None
