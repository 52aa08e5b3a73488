"""The page, used in a browser as a team would use it: four domains on the embedded base, people, and a tuning."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metier import experiment
from metier.assistant.feedback import Feedback
from metier.assistant.tickets import Tickets
from metier.inference.voices import Voices
from metier.recipe import Recipe
from metier.web.care import Care
from metier.web.desk import Desk
from metier.web.dispatch import open_dispatch, typed
from metier.web.keys import Keys, new_key
from metier.web.lessons import Lesson, Lessons
from tests import opened
from tests.promises import serving
from tests.promises.browsing import CHROMIUM, Tab, browser

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")]

QUESTIONS = {
    "telecom": "My router blinks red and I have no internet",
    "banking": "The cash machine swallowed my card",
    "medical": "What should I take for the fever that I have had since yesterday?",
    "finance": "Nokia's profit rises to a record",
}
USED = ("button", "textbox", "combobox", "switch", "link", "spinbutton")
RECIPE = """
model = "nano"
[[domain]]
name = "telecom"
data = "sample:telecom"
[[domain]]
name = "banking"
data = "sample:banking"
[[domain]]
name = "medical"
data = "sample:medical"
[[domain]]
name = "finance"
data = "sample:finance"
prompt = "Headline: {text}\\nSentiment:"
answer = "{label}"
labels = ["negative", "neutral", "positive"]
[strategy]
method = "lora"
[train]
num_train_epochs = 1
max_length = 256
[eval]
limit = 12
max_new_tokens = 24
"""
CONTRAST = """(() => {
  const numbers = color => color.match(/[\\d.]+/g).map(Number);
  const over = ([r, g, b, a = 1], below) => [r, g, b].map((each, i) => each * a + below[i] * (1 - a));
  const ground = node => {
    if (!node) return [255, 255, 255];
    const color = numbers(getComputedStyle(node).backgroundColor);
    return (color[3] ?? 1) === 1 ? color.slice(0, 3) : over(color, ground(node.parentElement));
  };
  const light = color => {
    const [r, g, b] = color.map(each => each / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const told = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement, unseen = node.closest('.unseen, .skip, :disabled');
    if (!walker.currentNode.data.trim() || !node.checkVisibility() || unseen) continue;
    const below = ground(node), color = over(numbers(getComputedStyle(node).color), below);
    const [high, low] = [light(color), light(below)].sort((one, other) => other - one);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) told.push(`${ratio.toFixed(2)} ${walker.currentNode.data.trim().slice(0, 40)}`);
  }
  return told;
})()"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def desk(home: Path) -> Desk:
    (home / "recipe.toml").write_text(RECIPE)
    run = experiment.train(Recipe.load(home / "recipe.toml"), offline=True)
    voices = Voices(offline=True)
    voices.add(run, "care")
    safety, database = opened.safety(), home / "assistant.db"
    care = Care(safety, opened.moods(), Tickets(database, safety.masked), Feedback(database, safety.masked))
    dispatch = open_dispatch(typed([run], offline=True), home / "routers")
    return Desk(voices, Lessons(Lesson(dispatch)), care)


@pytest.fixture(scope="module")
def url(desk: Desk, home: Path) -> Iterator[str]:
    with serving.served(desk, home) as url:
        yield url


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(window: Tab, url: str) -> Iterator[Tab]:
    """A fresh page, of which nothing complained when it was left."""
    window.look(1280)
    window.open(f"{url}/")
    window.wait("document.querySelector('#model').value")
    yield window
    assert window.complaints == []


def ask(tab: Tab, question: str) -> str:
    """What is said, once all of it is."""
    before = tab.run("document.querySelectorAll('.turn').length")
    tab.click("#question")
    tab.type(question)
    tab.press("Enter")
    tab.wait(f"document.querySelectorAll('.turn').length > {before} && !document.querySelector('.waiting')")
    return tab.text(".turn:last-child .answer .words")


def basis(tab: Tab) -> str:
    tab.click(".turn:last-child .answer summary")
    return tab.text(".turn:last-child .answer .facts")


@pytest.mark.parametrize("domain", QUESTIONS)
def test_each_domain_answers_and_says_what_that_rests_on(tab: Tab, domain: str) -> None:
    tab.choose("#model", domain)
    assert ask(tab, QUESTIONS[domain])
    told = basis(tab)
    for each in (domain, "care", "held-out question", "its base", "the classical baseline ("):
        assert each in told
    assert ("no diagnosis" in tab.text(".notice")) == (domain == "medical")
    shares = tab.run("[...document.querySelectorAll('.shares b')].map(each => parseInt(each.innerText))")
    assert len(shares) == (3 if domain == "finance" else 0)
    assert not shares or sum(shares) == pytest.approx(100, abs=2)


def test_auto_says_which_domain_it_chose(tab: Tab) -> None:
    assert tab.run("document.querySelector('#model').value") == "auto"
    for domain in ("banking", "finance"):
        ask(tab, QUESTIONS[domain])
        assert f"auto chose {domain}" in tab.text(".turn:last-child summary")


def test_a_card_tells_how_a_run_did_beside_its_base_and_the_classical_baseline(tab: Tab) -> None:
    cards = tab.run("[...document.querySelectorAll('#served button')].map(each => each.innerText)")
    assert len(cards) == len(QUESTIONS)
    for each in cards:
        assert "its base" in each
        assert "the classical baseline (" in each


def test_where_auto_was_not_sure_the_base_that_answers_is_not_called_tuned(tab: Tab) -> None:
    """The run that learned all domains answers here, so the page is told that it is the base."""
    told = """import('/page/answer.js').then(({ Answer }) => {
      const answer = new Answer({ model: 'auto', messages: [] });
      answer.take({ metier: { run: 'nano', route: { domain: null, share: 0.2 } }, choices: [] });
      return [answer.name.textContent, answer.node.classList.contains('tuned')];
    })"""
    assert tab.run(told) == ["Untuned base (auto was not sure)", False]


def test_the_untuned_base_answers_beside_the_run(tab: Tab) -> None:
    tab.choose("#model", "banking")
    tab.click("#beside")
    ask(tab, QUESTIONS["banking"])
    tuned, base = tab.run("[...document.querySelectorAll('.answer')].map(each => each.getBoundingClientRect().x)")
    assert base > tuned
    said = tab.run("[...document.querySelectorAll('.words')].map(each => each.innerText)")
    assert said[0] != said[1]
    assert "nano, untuned" in tab.text(".untuned summary")
    tab.look(390)
    places = tab.run("[...document.querySelectorAll('.answer')].map(each => each.getBoundingClientRect().x)")
    assert places[0] == places[1]


def test_an_emergency_stands_out_and_asks_no_model(tab: Tab) -> None:
    tab.click("#beside")
    assert "emergency" in ask(tab, "my dad has crushing chest pain and cannot breathe")
    assert tab.run("document.querySelector('.alarm').getAttribute('role')") == "alert"
    assert tab.text(".alarm .who") == "Emergency"
    assert "a fixed text, no model" in tab.text(".alarm summary")
    assert "Not asked" in tab.text(".untuned")
    assert not tab.run("document.querySelector('.thumb')")


def test_who_wants_a_person_finds_a_ticket_that_people_close(tab: Tab) -> None:
    ask(tab, QUESTIONS["banking"])
    told = ask(tab, "let me talk to a real person please <img src=x onerror='window.hit = 1'>")
    number = tab.text(".note .who").rpartition(" ")[2]
    assert number in told
    tab.run("location.hash = '#tickets'")
    tab.click(f"#ticket-{number}")
    read = tab.text("#ticket")
    for each in ("asks for a person", QUESTIONS["banking"], "<img src=x", "In short"):
        assert each in read
    assert not tab.run("window.hit")
    tab.click("#note")
    tab.type("called back")
    tab.click("#close")
    tab.wait("document.querySelector('#ticket').innerText.includes('called back')")
    assert "closed" in tab.text("#ticket")
    assert not tab.run(f"document.querySelector('#ticket-{number}')")


def test_a_corrected_answer_comes_back_as_a_training_row(tab: Tab, home: Path) -> None:
    tab.choose("#model", "banking")
    said = ask(tab, QUESTIONS["banking"])
    tab.click(".thumb[aria-label='Bad answer']")
    tab.type("I have blocked the card; a new one is on its way.")
    tab.click(".correction .main")
    tab.wait("document.querySelector('.opinion').innerText.includes('Kept')")
    ask(tab, QUESTIONS["telecom"])
    tab.click(".turn:last-child .thumb[aria-label='Good answer']")
    tab.wait("document.querySelector('.turn:last-child .opinion').innerText.includes('a good answer')")
    command = [sys.executable, "-m", "metier.cli.main", "feedback", str(home / "assistant.db"), "--out", "rows"]
    subprocess.run(command, cwd=home, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    (row,) = [json.loads(line) for line in (home / "rows/banking.answers.jsonl").read_text().splitlines()]
    assert [each["content"] for each in row["messages"]][-2:] == [
        QUESTIONS["banking"],
        "I have blocked the card; a new one is on its way.",
    ]
    (pair,) = [json.loads(line) for line in (home / "rows/banking.pairs.jsonl").read_text().splitlines()]
    assert pair["rejected"][0]["content"] == said.strip()


def test_escape_stops_and_frees_the_place(tab: Tab, desk: Desk) -> None:
    (ground,) = desk.voices.grounds
    waits = ground.worker.do(lambda: time.sleep(2))
    tab.click("#question")
    tab.type("Tell me all")
    tab.press("Enter")
    tab.wait("!document.querySelector('#stop').hidden")
    tab.press("Escape")
    tab.wait("!document.querySelector('#send').hidden")
    assert "Stopped" in tab.text(".answer")
    waits.result()
    until = time.monotonic() + 60
    while ground.worker.load != (0, 0):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_load_is_what_the_server_does(tab: Tab) -> None:
    ask(tab, QUESTIONS["banking"])
    tab.run("location.hash = '#load'")
    tab.wait("document.querySelectorAll('.tile').length === 4")
    tab.wait("/the first piece came after/.test(document.querySelector('#load').innerText)")
    assert "auto" in tab.text("#load table")


def test_a_tuning_from_file_to_report(tab: Tab, url: str, tmp_path: Path) -> None:
    rows = [f"how do I open box {n}?,take key {n % 3} and turn it" for n in range(60)]
    (tmp_path / "boxes.csv").write_text("\n".join(["question,answer", *rows, "what is empty?,"]))
    tab.run("location.hash = '#studio'")
    tab.wait("document.querySelector('#base').value === 'nano'")
    tab.attach("#file", tmp_path / "boxes.csv")
    tab.run("document.querySelector('#suffix').value = 'boxes'; document.querySelector('#epochs').value = '2'")
    tab.click("#look")
    tab.wait("document.querySelector('#faults')", 120)
    assert tab.text("#faults tbody tr").split("\t") == [
        "boxes.csv:62: answer",
        "is empty",
        "remove the row or fill it in",
    ]
    looks(tab)
    tab.click("#skip")
    tab.wait("document.querySelector('#plan')", 120)
    assert "it fits" in tab.text("#plan")
    looks(tab)
    tab.click("#start")
    tab.wait("/preparing: .*loads the model/.test(document.querySelector('.progress')?.innerText)", 20)
    tab.wait("document.querySelector('#jobs .chip')?.innerText === 'running'", 20)
    tab.wait("document.querySelector('.loss polyline')", 120)
    tab.wait("/left/.test(document.querySelector('.progress').innerText)", 120)
    looks(tab)
    tab.wait("document.querySelector('#report')", 300)
    name = tab.text("#tuning h2")
    assert name.startswith("boxes-lora-")
    link = "fetch('/v1/metier/reports', {method: 'POST', headers: {'Content-Type': 'application/json'}, body: "
    link += f"{json.dumps(json.dumps({'model': name}))}}}).then(told => told.json()).then(told => told.url)"
    report = tab.run(link)
    tab.click("#talk-to")
    tab.wait(f"document.querySelector('#model').value === {json.dumps(name)}")
    ask(tab, "how do I open box 7?")
    assert "boxes" in basis(tab)
    tab.run("location.hash = '#studio'")
    tab.click("#unload")
    tab.wait("/served no more/.test(document.querySelector('.progress')?.innerText)")
    assert not tab.run("document.querySelector('#talk-to')")
    tab.run("location.hash = '#chat'")
    tab.wait(f"![...document.querySelector('#model').options].some(each => each.value === {json.dumps(name)})")
    tab.open(f"{url}{report}")
    assert "run report" in tab.text("body").lower()
    assert tab.run("getComputedStyle(document.querySelector('h2')).fontFamily.includes('Georgia')")  # its style applies


def test_who_may_tune_nothing_is_shown_no_form(tab: Tab) -> None:
    told = "{error: {message: 'this route takes an admin key'}}"
    refused = f"new Response(JSON.stringify({told}), {{status: 403}})"
    kept = "String(url).includes('/fine_tuning/')"
    tab.run(f"const read = fetch; window.fetch = async (url, ...more) => {kept} ? {refused} : read(url, ...more); 0")
    tab.run("location.hash = '#studio'")
    tab.wait("/admin key/.test(document.querySelector('#studio-fault')?.textContent)")
    assert tab.run(
        "document.querySelector('#tune').hidden && getComputedStyle(document.querySelector('#tune')).display === 'none'"
    )


def test_a_tuning_is_stopped(tab: Tab, tmp_path: Path) -> None:
    rows = [f"how do I close box {n}?,take key {n % 3} and turn it twice" for n in range(100)]
    (tmp_path / "more.csv").write_text("\n".join(["question,answer", *rows]))
    tab.run("location.hash = '#studio'")
    tab.wait("document.querySelector('#base').value === 'nano'")
    tab.attach("#file", tmp_path / "more.csv")
    tab.run("document.querySelector('#epochs').value = '50'")
    tab.click("#look")
    tab.wait("document.querySelector('#start')", 120)
    tab.click("#start")
    tab.wait("document.querySelector('.loss')", 120)
    lost = "String(url).endsWith('/jobs?limit=100') ? Promise.reject(new TypeError('lost')) : read(url, ...more)"
    tab.run(f"window.read = window.fetch; window.fetch = (url, ...more) => {lost}; 0")
    tab.click("#halt")
    tab.wait("document.querySelector('#tuning [data-status=cancelled]')", 60)
    tab.run("window.fetch = window.read; 0")
    tab.wait("/cancelled/.test(document.querySelector('#jobs').textContent)")  # read again


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", ["chat", "tickets", "load", "studio"])
def test_every_view_fits_every_screen_and_can_be_read(tab: Tab, view: str, scheme: str, tmp_path: Path) -> None:
    """Pictures of each lie in the test's folder, for people."""
    if view == "chat":
        tab.click("#beside")
        for question in (*QUESTIONS.values(), "he stopped breathing!!", "let me talk to a real person please"):
            ask(tab, question)
        tab.run("document.querySelectorAll('details').forEach(each => { each.open = true })")
        tab.click(".thumb[aria-label='Bad answer']")
    tab.run(f"location.hash = '#{view}'")
    tab.wait(f"!document.querySelector('#view-{view}').hidden")
    time.sleep(0.5)
    looks(tab, scheme)
    for width in (390, 1280):
        tab.look(width, scheme)
        tab.picture(tmp_path / f"{view}-{width}-{scheme}.png", whole=True)


def looks(tab: Tab, *schemes: str) -> None:
    """Nothing runs over the edge, and everything can be read, on all widths."""
    for scheme in schemes or ("light", "dark"):
        for width in (320, 390, 768, 1280):
            tab.look(width, scheme)
            assert tab.overflow == 0, (width, scheme)
            assert tab.run(CONTRAST) == [], (width, scheme)
    tab.look(1280)


def test_everything_has_a_name_and_the_keyboard_reaches_it(tab: Tab) -> None:
    for view in ("chat", "tickets", "load", "studio"):
        tab.run(f"location.hash = '#{view}'")
        time.sleep(0.5)
        nodes = tab.ask("Accessibility.getFullAXTree")["nodes"]
        named = [each.get("name", {}).get("value") for each in nodes if each["role"]["value"] in USED]
        assert len(named) > 4
        assert all(named)
    tab.run("location.hash = '#chat'; document.activeElement.blur()")
    reached = []
    for _ in range(12):
        tab.press("Tab")
        reached.append(tab.run("(each => each.id || each.className || each.hash)(document.activeElement)"))
        ring = "(each => each.nextElementSibling?.className === 'slide' ? each.nextElementSibling : each)"
        seen = tab.run(f"getComputedStyle({ring}(document.activeElement)).outlineStyle") != "none"
        assert seen or tab.run("document.activeElement === document.body"), reached[-1]
    assert {"skip", "model", "beside", "anew"} <= {*reached}


def test_a_key_is_asked_for_once(desk: Desk, tmp_path: Path) -> None:
    key = new_key(tmp_path / "keys.json", "team", "user")
    with (
        serving.served(desk, tmp_path, Keys.open(tmp_path / "keys.json")) as url,
        browser(tmp_path / "profile") as tab,
    ):
        tab.open(f"{url}/")
        for given in ("wrong", key):
            tab.wait("document.querySelector('#key-dialog').open")
            tab.click("#key")
            tab.type(given)
            tab.press("Enter")
        tab.wait("document.querySelector('#model').value")
        assert ask(tab, QUESTIONS["banking"])
        tab.ask("Page.reload")
        tab.wait("document.readyState === 'complete' && document.querySelector('#model').value")
        assert not tab.run("document.querySelector('#key-dialog').open")
        tab.run("location.hash = '#tickets'")
        tab.wait("/needs an admin's key/.test(document.querySelector('#tickets').innerText)")
        refused: list[Any] = [each for each in tab.complaints if "401" not in each and "403" not in each]
        assert refused == []  # a browser tells of each refused request by itself
