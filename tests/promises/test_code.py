"""Answers that are code: run where the recipe asks for it, and never again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from metier.errors import RecipeError
from metier.evaluation import programs
from metier.experiment import evaluate, train
from metier.recipe import Recipe
from tests.chat_server import ChatServer
from tests.unit import tiny

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="refused there")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    tiny.save(tmp_path / "base")
    rows = [
        {
            "ask": f"Write plus_{n}, which adds {n}.",
            "code": f"def plus_{n}(x):\n    return x + {n}",
            "tests": f"assert plus_{n}(1) == {n + 1}",
        }
        for n in range(30)
    ]
    (tmp_path / "code.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return tmp_path


def recipe(home: Path, url: str, **evaluation: Any) -> Recipe:
    domain = {"name": "code", "data": "code.jsonl", "prompt": "{ask}", "answer": "{code}", "task": "code"}
    strategy = {"method": "endpoint", "url": url, "model": "coder"}
    values = {"model": "base", "domain": [{**domain, "tests": "tests"}], "strategy": strategy, "eval": evaluation}
    return Recipe.of(values, home / "recipe.toml")


def says(body: Any) -> str:
    """Right for even numbers."""
    number = int(body["messages"][-1]["content"].split("plus_")[1].partition(",")[0])
    return f"```python\ndef plus_{number}(x):\n    return x + {number if number % 2 == 0 else -1}\n```"


@pytest.mark.long
def test_the_pass_rate_leads_and_is_recomputed_without_running_anything(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ChatServer(says)
    asked = train(recipe(home, server.url, run_code=True))
    unasked = train(recipe(home, server.url))
    server.close()
    answers = asked.answers()
    assert {each["passed"] for each in answers} == {True, False}
    assert all(each["passed"] == (int(each["prompt"].split("plus_")[1].partition(",")[0]) % 2 == 0) for each in answers)
    (domain,) = asked.scores()["domains"]
    assert domain["scores"][0]["metric"] == "pass_rate"
    assert domain["scores"][0]["value"] == sum(each["passed"] for each in answers) / len(answers)
    (against,) = asked.scores()["against"]["classical"]["domains"]  # whose answers were run as well
    assert against["differences"][0]["metric"] == "pass_rate"

    assert asked.directory != unasked.directory
    assert not any("passed" in each for each in unasked.answers())
    assert unasked.scores()["domains"][0]["scores"][0]["metric"] == "chrf"

    monkeypatch.setattr(programs, "run_tests", None)
    before = asked.scores()
    assert evaluate(asked).scores() == before


def test_nothing_to_run_is_refused(home: Path) -> None:
    domain = {"name": "code", "data": "code.jsonl", "prompt": "{ask}", "answer": "{code}"}
    with pytest.raises(RecipeError, match="no tests to run"):
        Recipe.of({"model": "base", "domain": [domain], "eval": {"run_code": True}}, home / "recipe.toml")
