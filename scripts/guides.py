"""The guides in docs/guides, executed: files are written, commands and Python run, and what they print is pasted in.

    python scripts/guides.py docs/guides/own-data.md …

A fence's first word is its language; what follows says what becomes of it:

    LANGUAGE FILE      written to FILE in the guide's folder
    console            run; shows what it prints, which a test compares but for its numbers
    console here       run; shows what one machine printed
    console quiet      run; shows nothing
    python             run, all of a guide in one namespace

Everything else is left as it is.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from metier.cli.main import main
from metier.files import write_atomic

FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PROGRESS = re.compile(r"^[a-z -]+ +\d+/\d+\b.*\n", re.MULTILINE)


def execute(text: str) -> str:
    """The guide with what its commands print now; works in the current directory."""
    names: dict[str, Any] = {"__name__": "guide"}
    return FENCE.sub(lambda fence: _block(fence, names), text)


def comparable(text: str) -> list[str]:
    """Lines of a guide without what differs between machines: numbers, and what `here` shows."""
    text = re.sub(r"^```console here\n.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return [re.sub(r"[-+−]?[\d.,]+", "#", " ".join(line.split())) for line in text.splitlines()]


@contextlib.contextmanager
def somewhere_new() -> Iterator[Path]:
    """An empty folder to work in."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def run_python(code: str, names: dict[str, Any], name: str) -> None:
    """A cell, whose source `inspect` finds as a notebook's."""
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    exec(compile(code, name, "exec"), names)


def _block(fence: re.Match[str], names: dict[str, Any]) -> str:
    language, mark, body = fence.groups()
    if language == "console":
        shown = "".join(_command(command) for command in re.findall(r"^\$ (.*)$", body, re.MULTILINE))
        return fence[0] if mark == "quiet" else f"```console{f' {mark}' if mark else ''}\n{shown}```"
    if language == "python":
        run_python(body, names, f"<cell {fence.start()}>")
    elif mark:
        Path(mark).write_text(body, encoding="utf-8")
    return fence[0]


def _command(line: str) -> str:
    """A command with what it prints, its progress left out. A run is found by the stars in its name."""
    program, *arguments = shlex.split(line, comments=True)
    said, given = io.StringIO(), ""
    if "<<<" in arguments:
        *arguments, _, given = arguments
    arguments = [name for each in arguments for name in ([*map(str, sorted(Path().glob(each)))] if "*" in each else [each])]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), patch.object(sys, "stdin", io.StringIO(given)):
        if program == "metier":
            _metier(arguments)
        else:
            raise ValueError(f"{line}: no guide runs that")
    output = PROGRESS.sub("", said.getvalue()).strip("\n")
    return f"$ {line}\n{output}\n" if output else f"$ {line}\n"


def _metier(arguments: list[str]) -> None:
    with patch.object(sys, "argv", ["metier", *arguments]):
        try:
            main()
        except SystemExit as ended:
            if ended.code == 1:
                raise


if __name__ == "__main__":
    for path in map(Path.resolve, map(Path, sys.argv[1:])):
        with somewhere_new():
            done = execute(path.read_text(encoding="utf-8"))
        write_atomic(path, done)
