"""Two runs judged: by a model, in both orders and again offline; by people, on a page that names nobody."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from metier.cli.main import app
from metier.experiment import train
from metier.inference import endpoint as module
from metier.recipe import Recipe
from metier.run import Run
from tests.chat_server import ChatServer
from tests.unit import tiny


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """The second answers better, but for every fifth question, where both say the same."""
    home = tmp_path_factory.mktemp("home")
    tiny.save(home / "base")
    rows = [{"ask": f"Where is order {n}?", "reply": f"It is on shelf {n}."} for n in range(60)]
    (home / "desk.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    server = ChatServer(_answers)
    made = []
    for name in ("vague", "exact"):
        domain = {"name": "desk", "data": "desk.jsonl", "prompt": "{ask}", "answer": "{reply}", "heldout": 0.5}
        strategy = {"method": "endpoint", "url": server.url, "model": name}
        values = {"model": "base", "domain": [domain], "strategy": strategy}
        made.append(train(Recipe.of(values, home / "recipe.toml")))
    server.close()
    return made[0], made[1]


def _answers(body: Mapping[str, Any]) -> str:
    number = int(re.findall(r"\d+", body["messages"][-1]["content"])[0])
    if number % 5 == 0:
        return "I do not know."
    return f"On shelf {number}, I am sure: {'z' * 200}" if body["model"] == "exact" else "Somewhere."


def _judges(body: Mapping[str, Any]) -> str:
    """Prefers what is exact; of every third order always the first; says nothing useful of order 7."""
    text = body["messages"][-1]["content"]
    number = int(re.findall(r"order (\d+)", text)[0])
    if number == 7:
        return "Hm."
    if number % 3 == 0:
        return "The first one. [[A]]"
    return "[[A]]" if "sure" in text.partition("[Answer of B]")[0] else "[[B]]"


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "WAIT", 0.01)
    server = ChatServer(_judges)
    path = tmp_path / "judge.toml"
    path.write_text(f'url = "{server.url}"\nmodel = "wise"\n')
    yield path, server
    server.close()


def _compare(*parts: object) -> Any:
    return CliRunner().invoke(app, ["compare", *map(str, parts)])


def test_a_model_judges_in_both_orders_and_is_replayed_offline(runs: tuple[Run, Run], toml: Any) -> None:
    path, server = toml
    (vague, exact), command = runs, [*(run.directory for run in runs), "--judge", path, "--json"]
    numbers = [int(re.findall(r"\d+", each["prompt"])[0]) for each in exact.answers()]
    differing = [number for number in numbers if number % 5]
    done = _compare(*command)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert len(server.bodies) == 2 * len(differing)
    assert all("exact" not in json.dumps(body) and "vague" not in json.dumps(body) for body in server.bodies)
    biased = [number for number in differing if number % 3 == 0]
    unread = [number for number in differing if number == 7]
    (domain,) = found["domains"]
    assert found["unread"] == len(unread)
    assert domain["lost"] == 0
    assert domain["won"] == len(differing) - len(biased) - len(unread)
    assert domain["tied"] == len(numbers) - len(differing) + len(biased)
    assert domain["verdict"] == "better"
    assert found["position"]["changed"] == len(biased)
    assert found["position"]["n"] == len(differing) - len(unread)

    server.close()
    again = _compare(*command, "--offline")
    assert json.loads(again.stdout) == found == json.loads((exact.directory / f"judged.{vague.name}.json").read_text())
    text = _compare(*command[:-1], "--offline").stderr
    assert "judged by wise" in text
    assert "50 % is no bias" in text


def test_offline_says_what_is_missing(runs: tuple[Run, Run], tmp_path: Path) -> None:
    path = tmp_path / "judge.toml"
    path.write_text('url = "http://127.0.0.1:9/v1"\nmodel = "nobody"\n')
    done = _compare(*(run.directory for run in runs), "--judge", path, "--offline")
    assert done.exit_code != 0
    assert "answers are missing" in str(done.exception)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('url = "http://127.0.0.1:9/v1"', "model: is missing"),
        ('url = "http://127.0.0.1:9/v1"\nmodel = "x"\nmodle = "y"', "modle: is not a key of a judge"),
        ('url = "http://127.0.0.1:9/v1"\nmodel = "x"\nprompt = "{first}"', "prompt: says nowhere {question}"),
        ('url = "http://me:secret@127.0.0.1/v1"\nmodel = "x"', "url: holds more than an address"),
    ],
)
def test_a_judge_that_is_none_is_refused(runs: tuple[Run, Run], text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "judge.toml").write_text(text)
    done = _compare(*(run.directory for run in runs), "--judge", tmp_path / "judge.toml")
    assert said in str(done.exception)
    assert "secret" not in str(done.exception)


def test_a_judge_needs_two_runs(tmp_path: Path) -> None:
    assert "two finished runs" in str(_compare(tmp_path / "x.toml", "--judge", "blind").exception)


def _page(runs: tuple[Run, Run]) -> Path:
    done = _compare(*(run.directory for run in runs), "--judge", "blind")
    assert done.exit_code == 0, done.output
    return runs[1].directory / f"blind.{runs[0].name}.html"


def test_people_judge_blind_and_are_compared_with_the_judge(runs: tuple[Run, Run], toml: Any, tmp_path: Path) -> None:
    text = _page(runs).read_text()
    assert not re.search(r"https?://|vague|exact", text)
    values = json.loads(text.partition('id="values">')[2].partition("</script>")[0])
    assert len(values["items"]) == sum(each["output"] != "I do not know." for each in runs[1].answers())
    said = {each["key"]: "one" if "sure" in each["one"] else "two" for each in values["items"]}
    (tmp_path / "verdicts.json").write_text(json.dumps({"format": 1, "page": values["page"], "verdicts": said}))
    _compare(*(run.directory for run in runs), "--judge", toml[0])
    done = _compare(*(run.directory for run in runs), "--judge", tmp_path / "verdicts.json", "--json")
    found = json.loads(done.stdout)
    (domain,) = found["domains"]
    assert (domain["won"], domain["lost"], domain["tied"]) == (len(said), 0, 0)
    assert 0 < found["agreement"]["raw"]["value"] < 1  # the judge calls what it changes its mind on a tie
    assert found["agreement"]["kappa"]["value"] == pytest.approx(0, abs=1e-9)  # people said one thing only
    assert (
        "people and the judge agree"
        in _compare(*(run.directory for run in runs), "--judge", tmp_path / "verdicts.json").stderr
    )


_CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(_CHROMIUM is None, reason="no chromium here")
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_in_a_browser(runs: tuple[Run, Run], width: int, tmp_path: Path) -> None:
    """Framed, as headless windows are never narrower than 500 pixels; the frame presses keys and reads the page."""
    assert _CHROMIUM
    page = tmp_path / "page.html"
    page.write_text(_page(runs).read_text())
    (tmp_path / "frame.html").write_text(_FRAME.replace("WIDTH", str(width)))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--enable-logging=stderr"]
    command = [_CHROMIUM, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000", "--dump-dom"]
    environment = {**os.environ, "HOME": str(tmp_path)}
    url = (tmp_path / "frame.html").as_uri()
    done = subprocess.run([*command, url], capture_output=True, text=True, timeout=120, check=True, env=environment)
    assert "CONSOLE" not in done.stderr
    seen = json.loads(re.findall(r'<pre id="seen">(.*?)</pre>', done.stdout)[0])
    assert seen["overflow"] <= 0
    assert seen["before"].startswith("pair 1 of ")
    assert seen["after"].startswith("pair 4 of ")
    assert "3 judged" in seen["after"]
    assert seen["pressed"] == "true"


_FRAME = """<!doctype html><body style="margin:0">
<iframe id="page" src="page.html" style="width:WIDTHpx;height:900px;border:0"></iframe><pre id="seen"></pre>
<script>
document.getElementById("page").addEventListener("load", () => {
  const inner = document.getElementById("page").contentWindow, page = inner.document;
  const told = () => page.getElementById("progress").textContent;
  const press = (key) => page.dispatchEvent(new inner.KeyboardEvent("keydown", { key }));
  const before = told();
  press("1"); press("0"); page.querySelector('[data-say="two"]').click();
  const after = told();
  page.getElementById("back").click();
  const pressed = page.querySelector('[data-say="two"]').getAttribute("aria-pressed");
  page.getElementById("save").click();
  const overflow = page.documentElement.scrollWidth - inner.innerWidth;
  document.getElementById("seen").textContent = JSON.stringify({ before, after, pressed, overflow });
});
</script>"""
