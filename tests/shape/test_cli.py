"""The command line's surface: the verbs, at most six flags each, and a quick start."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import typer
from typer.testing import CliRunner

from metier.cli.main import app

COMMON = {"--set", "--plan", "--json", "--offline", "--help"}
SURFACE = {
    "demo": set(),
    "init": {"--model", "--recipe", "--out", "--skip-faulty", "--show"},
    "check": {"--show"},
    "plan": set(),
    "train": {"--resume"},
    "eval": {"--tasks", "--limit", "--num-fewshot", "--apply-chat-template"},
    "compare": {"--check", "--jobs", "--csv", "--markdown", "--fail-under", "--judge"},
    "runs": {"--all"},
    "chat": {"--domain"},
    "feedback": {"--run", "--out"},
    "serve": {"--host", "--port", "--keys", "--new-key", "--origin", "--safety"},
}


def test_the_surface_is_frozen() -> None:
    group = typer.main.get_command(app)
    commands = group.commands  # type: ignore[attr-defined]
    found = {
        name: {option for parameter in command.params for option in parameter.opts if option.startswith("--")} - COMMON
        for name, command in commands.items()
    }
    assert found == SURFACE
    assert all(len(flags) <= 6 for flags in found.values())


def test_every_verb_explains_itself() -> None:
    for verb in SURFACE:
        result = CliRunner().invoke(app, [verb, "--help"])
        assert result.exit_code == 0
        assert len(result.output.splitlines()) > 3


def test_help_loads_nothing_heavy() -> None:
    """That it takes less than half a second follows; tests do not time."""
    code = (
        "import sys\nfrom metier.cli.main import app\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'scipy', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'loads {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_it_tells_its_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output.strip()) == (0, version("metier"))


def test_python_runs_it_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "metier", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, version("metier"))


def test_no_verb_s_summary_is_cut() -> None:
    lines = CliRunner().invoke(app, ["--help"]).output.splitlines()
    assert not [line for line in lines if line.startswith("  ") and line.endswith("...")]
