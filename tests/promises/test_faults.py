"""Bad inputs: exit 2, the planted place and a remedy named, no traceback, nothing half-written; good twins exit 0."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from metier.cli.main import main
from tests.unit import tiny

ROWS = [(f"question number {n} about cards and phones", f"answer number {n} is here") for n in range(40)]
CSV = "prompt,answer\n" + "".join(f"{prompt},{answer}\n" for prompt, answer in ROWS)
LABELS = "text,label\n" + "".join(f"headline {n} about {n % 7},{('up', 'down')[n % 2]}\n" for n in range(40))
CHATS = "".join(
    json.dumps({"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]}) + "\n"
    for prompt, answer in ROWS
)
RECIPE = """model = "nano"
[[domain]]
name = "support"
data = "{data}"
{extra}
[strategy]
method = "{method}"
{tables}
"""
LABELLED = 'prompt = "{text}"\nanswer = "{label}"\nlabels = ["up", "down"]'


@dataclass(frozen=True)
class Case:
    """A folder with one planted fault: `place` and `remedy` must be said; `mend` undoes the fault."""

    name: str
    files: dict[str, str | bytes]
    place: str
    remedy: str
    good: dict[str, str | bytes]
    command: tuple[str, ...] = ("check", "recipe.toml", "--offline")


def recipe(data: str = "x.csv", extra: str = "", method: str = "lora", tables: str = "") -> str:
    return RECIPE.format(data=data, extra=extra, method=method, tables=tables)


def data_case(name: str, content: str | bytes, place: str, remedy: str, good: str | bytes = CSV, **more: str) -> Case:
    file = more.pop("file", "x.csv")
    made = recipe(file, **more)
    return Case(name, {"recipe.toml": made, file: content}, place, remedy, {"recipe.toml": made, file: good})


def recipe_case(name: str, bad: str, place: str, remedy: str, good: str = "") -> Case:
    return Case(
        name, {"recipe.toml": bad, "x.csv": CSV}, place, remedy, {"recipe.toml": good or recipe(), "x.csv": CSV}
    )


CASES = [
    data_case("empty file", "", "x.csv", "is empty"),
    data_case("only a header", "prompt,answer\n", "x.csv", "row"),
    data_case("Latin-1", CSV.replace("number 3 is", "numéro 3 is").encode("latin-1"), "x.csv:5", "latin-1"),
    data_case("a row without answer", CSV.replace("answer number 7 is here", ""), "x.csv:9: answer", "fill it in"),
    data_case("white space as answer", CSV.replace("answer number 7 is here", "   "), "x.csv:9: answer", "fill it in"),
    data_case("a field too many", CSV.replace("answer number 4 ", "answer, number 4 "), "x.csv:6", "field"),
    data_case("a field too few", CSV.replace(",answer number 4 is here", ""), "x.csv:6", "field"),
    data_case("a huge cell", CSV.replace("number 5 is", "x" * 200_000), "x.csv:7", "100"),
    data_case("a NUL byte", CSV.replace("number 6 is", "nu\0mber"), "x.csv:8", "NUL"),
    data_case("an open quote", CSV.replace("answer number 8", '"answer number 8'), "x.csv:10", "quot"),
    data_case("a column twice", CSV.replace("prompt,answer", "prompt,prompt"), "x.csv:1", "prompt"),
    data_case(
        "label outside the set",
        LABELS.replace("headline 6 about 6,up", "headline 6 about 6,sideways"),
        "x.csv:8",
        "up",
        LABELS,
        extra=LABELLED,
    ),
    recipe_case(
        "a template naming no column",
        recipe(extra='prompt = "{prmpt}"\nanswer = "{answer}"'),
        "{prmpt}",
        "did you mean `prompt`?",
    ),
    data_case("a broken line of JSON", CHATS.replace("]}\n", "]\n", 1), "x.jsonl:1", "JSON", CHATS, file="x.jsonl"),
    data_case(
        "unknown role", CHATS.replace('"assistant"', '"robot"', 1), "x.jsonl:1", "role_map", CHATS, file="x.jsonl"
    ),
    data_case(
        "a conversation without answer",
        CHATS + '{"messages": [{"role": "user", "content": "anyone?"}]}\n',
        "x.jsonl:41",
        "answer",
        CHATS,
        file="x.jsonl",
    ),
    data_case(
        "duplicate ids",
        "id," + CSV.replace("\n", "\n7,", 2).replace("\nquestion", "\n8,question").replace("prompt,", "prompt,", 1),
        "x.csv:3",
        "id",
        "id," + "\n".join(f"{n},{line}" if n else line for n, line in enumerate(CSV.splitlines())) + "\n",
        extra='id = "id"',
    ),
    recipe_case("no such column for where", recipe(extra='where = { category = "x" }'), "category", "prompt"),
    recipe_case(
        "where leaves nothing", recipe(extra='where = { answer = "never" }'), "where: keeps no row", "values are"
    ),
    data_case("too few rows", "prompt,answer\na b c,d e f\n", "x.csv", "row"),
    Case("no such file", {"recipe.toml": recipe()}, "x.csv", "does not exist", {"recipe.toml": recipe(), "x.csv": CSV}),
    Case(
        "an unknown format",
        {"recipe.toml": recipe("x.xls"), "x.xls": CSV},
        "x.xls",
        "jsonl",
        {"recipe.toml": recipe(), "x.csv": CSV},
    ),
    recipe_case("misspelt key", recipe(tables="[train]\nlearning_rte = 1e-4"), "train.learning_rte", "learning_rate"),
    recipe_case("misspelt table", recipe(tables="[trian]\nseed = 1"), "trian", "train"),
    recipe_case("wrong type", recipe(tables='[train]\nseed = "one"'), "train.seed", "integer"),
    recipe_case(
        "r without an adapter", recipe(method="none", tables="[strategy.peft]\nr = 4"), "strategy.peft", "lora"
    ),
    recipe_case("not TOML", recipe() + "x = = 1\n", "recipe.toml", "line"),
    recipe_case("no such model", recipe().replace('"nano"', '"./models/none"'), "./models/none", "does not exist"),
    recipe_case("no such model on the hub", recipe().replace('"nano"', '"some/model"'), "some/model", "local path"),
    recipe_case(
        "Llama's names on Phi",
        recipe(tables='[strategy.peft]\ntarget_modules = ["q_proj", "down_proj"]'),
        "strategy.peft.target_modules",
        "qkv_proj",
    ),
    recipe_case("rows longer than anything", recipe(tables="[train]\nmax_length = 8"), "support", "max_length"),
    Case(
        "a long share of warm-up",
        {"recipe.toml": recipe(tables="[train]\nwarmup_steps = 0.5"), "x.csv": CSV},
        "train.warmup_steps",
        "explicit count",
        {"recipe.toml": recipe(tables="[train]\nwarmup_steps = 3"), "x.csv": CSV},
    ),
    Case(
        "an unknown override",
        {"recipe.toml": recipe(), "x.csv": CSV},
        "train.sed",
        "seed",
        {"recipe.toml": recipe(), "x.csv": CSV},
        ("check", "recipe.toml", "--offline", "--set", "train.sed=3"),
    ),
]


def call(*arguments: str) -> int:
    """The command as the console script runs it; its exit code."""
    before, sys.argv = sys.argv, ["metier", *arguments]
    try:
        main()
    except SystemExit as exit_:
        return int(exit_.code or 0)
    finally:
        sys.argv = before
    return 0


def lay(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_planted_fault_is_named(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lay(tmp_path, case.files)
    assert call(*case.command) == 2
    said = capsys.readouterr().err
    assert case.place in said
    assert case.remedy in said
    assert "Traceback" not in said
    assert {path.name for path in tmp_path.iterdir()} == set(case.files)

    for path in tmp_path.iterdir():
        path.unlink()
    lay(tmp_path, case.good)
    command = case.command if "train.sed=3" not in case.command else (*case.command[:-1], "train.seed=3")
    assert call(*command) == 0, capsys.readouterr().err


def test_a_byte_order_mark_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lay(tmp_path, {"recipe.toml": recipe(), "x.csv": b"\xef\xbb\xbf" + CSV.encode()})
    assert call("check", "recipe.toml", "--offline") == 0


def test_nothing_is_overwritten_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lay(tmp_path, {"x.csv": CSV, "recipe.toml": "mine"})
    assert call("init", "x.csv") == 2
    assert "recipe.toml: exists already" in capsys.readouterr().err
    assert (tmp_path / "recipe.toml").read_text() == "mine"
    (tmp_path / "recipe.toml").unlink()
    assert call("init", "x.csv", "--offline", "--out", "nowhere/recipe.toml") == 2
    assert "there is no folder nowhere; make it" in capsys.readouterr().err
    assert call("init", "x.csv", "--offline") == 0


@pytest.mark.parametrize(
    "arguments", [("runs", "nothing"), ("chat", "nothing"), ("train",), ("train", "--resume", "nothing")]
)
def test_what_is_no_run_is_said(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


SMALL = recipe(
    "sample:banking",
    "heldout = 0.9",
    tables="[train]\nnum_train_epochs = 0.2\nmax_length = 128\n[eval]\nlimit = 2\nmax_new_tokens = 4",
)


def child(folder: Path, *arguments: str, front: Sequence[str] = (), **how: Any) -> subprocess.CompletedProcess[str]:
    command = [*front, sys.executable, "-m", "metier.cli.main", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300, **how)


def unprivileged() -> list[str]:
    """What goes in front of a command so that permissions count for it, even where the tests are root's."""
    if os.geteuid():
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("running as root, and there is no setpriv to give its rights up")
    rights = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"]


@pytest.mark.slow
def test_no_permission_is_the_machines_refusal(tmp_path: Path) -> None:
    lay(tmp_path, {"recipe.toml": SMALL})
    tmp_path.chmod(0o555)
    done = child(tmp_path, "train", "recipe.toml", "--offline", front=unprivileged())
    tmp_path.chmod(0o755)
    assert done.returncode == 2, done.stderr
    assert "permission" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_half_written_and_the_run_continues(tmp_path: Path) -> None:
    lay(tmp_path, {"recipe.toml": SMALL})
    limit: Callable[[], None] = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # noqa: E731
    done = child(tmp_path, "train", "recipe.toml", "--offline", preexec_fn=limit)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "limit" in done.stderr or "full" in done.stderr
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]
    again = child(tmp_path, "train", "recipe.toml", "--offline")
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_an_adapter_of_another_base_is_refused_and_its_own_is_not(tmp_path: Path) -> None:
    base = tiny.save(tmp_path / "base")
    lay(tmp_path, {"recipe.toml": SMALL.replace('"nano"', '"base"').replace("max_length = 128", "max_length = 500")})
    done = child(tmp_path, "train", "recipe.toml", "--offline")
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").glob("lora-*")
    talk = child(tmp_path, "chat", str(run), "--offline", input="hello\n/base\n")
    assert talk.returncode == 0, talk.stderr
    shutil.rmtree(base)
    tiny.save(base, num_hidden_layers=3)
    refused = child(tmp_path, "chat", str(run), "--offline", input="hello\n")
    assert refused.returncode == 2
    assert "was trained with another base: made for base" in refused.stderr


def test_a_file_by_itself_names_the_columns_of_which_nothing_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [f"how do I reset device {n},hold its button for {n} seconds,{n}" for n in range(40)]
    (tmp_path / "x.csv").write_text("question,answer,ticket\n" + "\n".join(lines) + "\n")
    assert call("check", "x.csv", "--offline") == 0
    assert "\nnot used     ticket\n" in capsys.readouterr().err
