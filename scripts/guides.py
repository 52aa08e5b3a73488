"""The guides in docs/guides, executed: files are written, commands and Python run, and what they print is pasted in.

    python scripts/guides.py docs/guides/own-data.md docs/guides/notebook.ipynb …

A fence's first word is its language; what follows says what becomes of it:

    LANGUAGE FILE      written to FILE in the guide's folder
    console            run; shows what it prints, which a test compares but for its numbers
    console here       run; shows what one machine printed
    console t4         the same on a machine that pretends to have such a card, so that nothing but `plan` makes sense
    console quiet      run; shows nothing
    python             run, all of a guide in one namespace

Everything else is left as it is. Of a notebook every code cell is run and gets its outputs; no jupyter is needed.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import linecache
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any
from unittest.mock import patch

from metier.cli.main import main
from metier.files import write_atomic
from metier.hardware import Accelerator, Hardware
from metier.memory import GIB

FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PROGRESS = re.compile(r"^[a-z -]+ +\d+/\d+\b.*\n", re.MULTILINE)


def execute(text: str) -> str:
    """The guide with what its commands print now; works in the current directory."""
    names: dict[str, Any] = {"__name__": "__main__"}
    return FENCE.sub(lambda fence: _block(fence, names), text)


def comparable(text: str) -> list[str]:
    """Lines of a guide without what differs between machines: numbers, and what `here` shows."""
    text = re.sub(r"^```console (?:here|t4)\n.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
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


def execute_notebook(text: str) -> str:
    """The notebook with the outputs of its code cells; what goes to stderr, progress, is left out."""
    document = json.loads(text)
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, start=1):
        cell |= {"execution_count": number, "outputs": _outputs("".join(cell["source"]), names, number)}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _outputs(code: str, names: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """What a cell prints, and the value of its last line as text and as html."""
    last = ast.parse(code).body[-1]
    shown = isinstance(last, ast.Expr)
    lines, start = code.splitlines(keepends=True), last.lineno - 1
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        run_python("".join(lines[:start]) if shown else code, names, f"<cell {number}>")
        value = eval("".join(lines[start:]), names) if shown else None
    outputs: list[dict[str, Any]] = []
    if text := printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    if value is not None:
        html = getattr(value, "_repr_html_", None)
        data = {"text/plain": [repr(value)]} if html is None else {"text/html": [html()]}
        result = {"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data}
        outputs.append(result)
    return outputs


def run_python(code: str, names: dict[str, Any], name: str) -> None:
    """A cell, whose source `inspect` finds as a notebook's."""
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    exec(compile(code, name, "exec"), names)


def _block(fence: re.Match[str], names: dict[str, Any]) -> str:
    language, mark, body = fence.groups()
    if language == "console":
        with _t4() if mark == "t4" else contextlib.nullcontext():
            shown = "".join(_command(command) for command in re.findall(r"^\$ (.*)$", body, re.MULTILINE))
        return fence[0] if mark == "quiet" else f"```console{f' {mark}' if mark else ''}\n{shown}```"
    if language == "python":
        run_python(body, names, f"<cell {fence.start()}>")
    elif mark:
        Path(mark).parent.mkdir(exist_ok=True)
        Path(mark).write_text(body, encoding="utf-8")
    return fence[0]


def _command(line: str) -> str:
    """A command with what it prints, its progress left out. A run is found by the star or dots in its name."""
    program, *arguments = shlex.split(line, comments=True)
    said = io.StringIO()
    found = [_named(each) for each in arguments]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        if program == "metier":
            _metier(list(chain.from_iterable(found)))
        else:
            raise ValueError(f"{line}: no guide runs that")
    output = PROGRESS.sub("", said.getvalue()).strip("\n")
    return f"$ {line}\n{output}\n" if output else f"$ {line}\n"


def _named(argument: str) -> list[str]:
    """`runs/lora-*`, or `model=runs/lora-…`, with the names that there are."""
    key, equals, name = argument.rpartition("=")
    if not {"*", "…"} & set(name):
        return [argument]
    return [f"{key}{equals}{path}" for path in sorted(Path().glob(name.replace("…", "*")))]


@contextlib.contextmanager
def _t4() -> Iterator[None]:
    """Nothing can be timed on a card that is not there: the plan has no times."""
    card = Accelerator("cuda", "Tesla T4", 15 * GIB, 14 * GIB, "7.5", "550.54.15")
    colab = Hardware("Linux x86_64", 1, 13 * GIB, 12 * GIB, ("avx2",), card)
    with patch("metier.experiment.probe", lambda: colab), patch("metier.experiment.measure", lambda *_: None):
        yield


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
            run = execute_notebook if path.suffix == ".ipynb" else execute
            done = run(path.read_text(encoding="utf-8"))
        write_atomic(path, done)
