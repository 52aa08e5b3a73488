"""Answers that are code, tested by their rows' assertions in a confined child process; never in this one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from metier.errors import RunError
from metier.evaluation.answers import Answer, to_json
from metier.evaluation.measures import TIMED_OUT, output_of
from metier.events import Event, Listener
from metier.run import Run

_CHILD = Path(__file__).parent / "confined.py"
_FENCED = re.compile(r"^```[^\n]*\n(.*?)(?:^```|\Z)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Limits:
    """Of one program: seconds of the processor and on the clock, bytes of memory and of a file."""

    seconds: int = 10
    clock: int = 30
    memory: int = 1 << 30
    file: int = 8 << 20


LIMITS = Limits()


def keep_answers(run: Run, answers: Sequence[Answer], listen: Listener) -> None:
    """Write a run's answers; those that are code are run before, if its recipe asks for it."""
    done = run_code(answers, listen) if run.recipe().eval.run_code else answers
    run.write_answers([to_json(each) for each in done])


def run_code(answers: Sequence[Answer], listen: Listener) -> list[Answer]:
    """Those that are code with `passed` and `error`; the others as they are. One that failed has not passed.

    Raises `RunError` where the system has no limits for processes.
    """
    code = [index for index, each in enumerate(answers) if each.task == "code" and each.tests.strip()]
    if not code:
        return list(answers)
    if open_still := unconfined():
        listen(Event("note", values={"text": f"warning: answers are run as code, and {open_still}"}))
    done = list(answers)
    for count, index in enumerate(code, start=1):
        output = output_of(done[index])
        error = "there is no answer" if output is None else run_tests(output, done[index].tests)
        done[index] = replace(done[index], passed=not error, error=error)
        listen(Event("tests", count, len(code)))
    return done


def run_tests(output: str, tests: str, limits: Limits = LIMITS) -> str:
    """Run the code of an answer and then its tests in a child; what went wrong, or "".

    The child begins in an empty folder with no environment. See `confined` for what it is kept from: enough for
    what a model writes by mistake, not for a program that is out to pass or to break out.
    """
    token = secrets.token_hex(16)
    program = f"{code_of(output)}\n\n{tests}\n"
    task = {"program": program, "token": token, "seconds": limits.seconds, "memory": limits.memory, "file": limits.file}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as report:
        command = [sys.executable, "-I", str(_CHILD)]
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=report, stderr=report, cwd=folder, env={}, start_new_session=True
        )
        try:
            child.communicate(json.dumps(task).encode(), timeout=limits.clock)
        except subprocess.TimeoutExpired:
            return TIMED_OUT
        finally:
            _end(child)
        report.seek(0)
        said = report.read(1000).decode(errors="replace")
    if said == token:
        return ""
    late = child.returncode in (-signal.SIGXCPU, 128 + signal.SIGXCPU)
    return TIMED_OUT if late else said or f"ended by itself ({child.returncode})"


def code_of(output: str) -> str:
    """The fenced blocks of an answer laid end to end, or all of it where there is none."""
    return "\n".join(_FENCED.findall(output)) or output


@cache
def unconfined() -> str:
    """What a child can still reach on this machine, or "". Raises `RunError` where nothing limits it."""
    if find_spec("resource") is None:
        problem = "eval.run_code: this system sets no limits to a process, and code is not run without"
        raise RunError(problem, "run it on Linux (WSL on Windows) or macOS, or set eval.run_code = false")
    done = subprocess.run([sys.executable, "-I", str(_CHILD), "--probe"], env={}, capture_output=True, check=True)
    kept = json.loads(done.stdout)
    reached = {"network": "the network", "files": "your files"}
    missing = [name for key, name in reached.items() if not kept[key]]
    return f"this system does not keep them from {' and '.join(missing)}" if missing else ""


def _end(child: subprocess.Popen[bytes]) -> None:
    """The child and all that it started in its session."""
    with contextlib.suppress(ProcessLookupError):  # they are gone
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
