"""The report of every kind of run: complete, equal to the stored scores, self-contained, and safe to open."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from metier.errors import RunError
from metier.evaluation.answers import Answer
from metier.figures import HABITS, figure
from metier.report.page import write_report
from metier.run import Run

SECTIONS = ["scores", "learning", "confusions", "forgetting", "benchmarks", "answers", "cost", "data", "reproduce"]
VOID = {"meta", "br", "line", "circle", "path", "rect"}
EVIL = "</div></style><script>alert('owned')</script><img src=x onerror=alert(1)>\"'><svg onload=alert(2)>"
MINUS = "\N{MINUS SIGN}"

Make = Callable[..., Any]


@dataclass
class Page(HTMLParser):
    """What a browser would see: text, elements with their attributes; balance is asserted on the way."""

    text: str = ""
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    stack: list[str] = field(default_factory=list)
    style: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] == "style":
            self.style += data
        else:
            self.text += data + " "

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read(run: Run) -> Page:
    page = Page()
    page.feed(write_report(run).read_text(encoding="utf-8"))
    page.close()
    assert page.stack == []
    page.text = re.sub(r"\s+", " ", page.text)
    return page


def item(number: int, domain: str, **values: Any) -> Answer:
    kept = {"prompt": f"question {number}", "place": f"{domain}.csv:{number}", "group": f"{number}"}
    return Answer(id=f"{number:03}", domain=domain, **{**kept, **values})


def label(number: int, right: bool, labels: tuple[str, ...] = ("yes", "no"), **values: Any) -> Answer:
    wanted, other = labels[number % len(labels)], labels[(number + 1) % len(labels)]
    kept = {"output": wanted if right else other, "reference": wanted, "labels": labels, "kind": "label"}
    return item(number, "bank", **{**kept, **values})


def reply(number: int, output: str | None, **values: Any) -> Answer:
    kept = {"kind": "open", "reference": "your card is blocked", "logprob": -9.0, "tokens": 5, "stopped": True}
    return item(number, "care", output=output, **{**kept, **values})


def passage(number: int, rise: float) -> Answer:
    base = -300.0 - number
    kept = {"kind": "text", "prompt": "", "reference": "it was the best of times", "tokens": 100, "kl": 5.0}
    return item(number, "general_text", logprob=base - 100 * rise, base_logprob=base, **kept)


def labels(right: int, n: int = 30, **values: Any) -> list[Answer]:
    return [label(number, number < right, **values) for number in range(n)]


def replies(good: int, n: int = 24) -> list[Answer]:
    outputs = ["your card is blocked" if number < good else "hello" for number in range(n)]
    return [reply(number, output) for number, output in enumerate(outputs)]


def passages(rise: float = 0.05) -> list[Answer]:
    return [passage(number, rise + 0.001 * (number % 3)) for number in range(8)]


@pytest.fixture(scope="module")
def three(bench: Make) -> dict[str, Run]:
    """The tuned run with both its opponents, on a closed and an open domain."""
    made = bench("bank", "care", dropped=["care.csv:3: has 2000 tokens, more than max_length = 1024; dropped"])
    classical = made.write("classical", [replace(each, logprob=None, stopped=None) for each in labels(16) + replies(9)])
    untuned = made.write("none", labels(12) + replies(4), {"classical": classical})
    both = {"none": untuned, "classical": classical}
    tuned = made.write("lora", labels(28) + replies(20) + passages(), both)
    return {**both, "lora": tuned}


def stored(run: Run) -> Iterator[str]:
    """Every number of scores.json as the page should show it."""
    scores = run.scores()
    asked = [domain for domain in scores["domains"] if domain["kind"] != "text"]
    for score in (score for domain in asked for score in domain["scores"]):
        yield from (figure(score["metric"], score[name]) for name in ("value", "low", "high"))
    for domain in (domain for against in scores["against"].values() for domain in against["domains"]):
        for each in domain["differences"]:
            yield from (figure(each["metric"], each[name], signed=True) for name in ("value", "low", "high"))
            yield from (each["verdict"], each["test"])
    if forgot := scores["forgetting"]:
        yield from (figure("loss", forgot[name], signed=True) for name in ("value", "low", "high"))


@pytest.mark.parametrize("method", ["lora", "none", "classical"])
def test_every_kind_of_run_has_its_verdict_every_section_and_every_stored_number(
    three: dict[str, Run], method: str
) -> None:
    run = three[method]
    page = read(run)
    assert run.scores()["verdict"] in page.text
    absent = {"lora": {"benchmarks"}}.get(method, {"benchmarks", "learning", "forgetting"})
    shown = [section for section in SECTIONS if section not in absent]
    assert [section["id"] for section in page.all("section")] == shown
    assert [each["href"] for each in page.all("a")] == [f"#{section}" for section in shown]
    assert [text for text in stored(run) if text not in page.text] == []
    for fact in (run.name, run.facts["model"], run.facts["key"], run.facts["started"][:10], "finished"):
        assert fact in page.text


def test_a_metric_that_the_page_cannot_write_is_noticed(three: dict[str, Run]) -> None:
    metrics = {score["metric"] for domain in three["lora"].scores()["domains"] for score in domain["scores"]}
    assert metrics - {"base_loss", "kl"} <= HABITS.keys()


def test_opponents_stand_beside_the_tuned_run(three: dict[str, Run]) -> None:
    page = read(three["lora"])
    for role in ("none", "classical"):
        for domain in three[role].scores()["domains"]:
            primary = domain["scores"][0]
            assert figure(primary["metric"], primary["value"]) in page.text
    assert page.text.count("hello") >= 20 - 6  # answers of all sides are shown


def test_what_a_tuned_run_alone_has(three: dict[str, Run]) -> None:
    text = read(three["lora"]).text
    assert "validation score" in text
    assert "best validation: step 32" in text
    assert "guard general_text passed +0.051 of at most +0.100 nats a token" in text
    assert "distance from the base (KL) 0.050" in text
    assert "8 passages" in text
    assert "q_proj 24 of 24 688,128" in text
    assert "40 of 40 planned" in text
    assert "care.csv:3: has 2000 tokens" in text
    assert "training and validation 7 min 40 s 8 min 32 s × 1.11" in text  # forecast 400 + 60, measured 512
    assert f"metier train support-{three['lora'].name}.toml --plan compute=bfloat16" in text
    assert "without untuned base and classical baseline, which are runs of their own" in text


def test_what_is_not_there_is_not_drawn(three: dict[str, Run]) -> None:
    text = read(three["classical"]).text
    assert "Learning" not in text
    assert "general text" not in text
    assert "no guard was set" in text
    assert "--plan" not in text


def test_a_guard_that_failed_and_an_alarm_are_named(bench: Make) -> None:
    text = read(bench("bank").write("lora", labels(20) + passages(rise=0.3))).text
    assert "FAILED" in text
    assert "alarm" in text.partition("What tuning cost")[2].partition("On general text")[0]


def test_better_and_worse_are_said_only_as_stored(bench: Make) -> None:
    made = bench("bank")
    base = made.write("none", labels(15))
    text = read(made.write("lora", labels(15), {"none": base})).text
    assert "no difference shown" in text
    assert "better" not in text
    assert "worse" not in text


def test_answers_are_twenty_and_marked(three: dict[str, Run]) -> None:
    page = read(three["lora"])
    assert len([each for each in page.all("li") if each.get("class") == "item"]) == 20
    for title in ("7 with the least gain over the untuned base", "6 with the most gain", "7 drawn at random (seed 17)"):
        assert title in page.text


def test_failed_unparsed_and_empty_answers_are_told_apart(bench: Make) -> None:
    odd = [label(0, True, output=None, failed="has 2000 tokens"), label(1, True, output="perhaps")]
    run = bench("bank", "care").write("none", [*odd, *labels(9)[2:9], reply(0, ""), reply(1, "\n ")])
    text = read(run).text
    assert "no answer: has 2000 tokens" in text
    assert "no answer (failed) 1 no label (unparsed) 1" in text
    assert "Apart from these: 1 failed, 1 unparsed" in text
    assert text.count("chrF 0.0 empty") == 2
    assert "no label perhaps" in text


@pytest.mark.parametrize("answers", [labels(9), replies(5), labels(1, n=1), replies(1, n=1)])
def test_runs_of_one_kind_or_one_item(bench: Make, answers: list[Answer]) -> None:
    made = bench(answers[0].domain)
    base = made.write("none", answers)
    text = read(made.write("lora", answers, {"none": base})).text
    assert ("ROUGE-L" in text) == (answers[0].kind == "open")
    assert ("Confusions" in text) == (answers[0].kind == "label")


def test_a_few_labels_make_a_matrix_and_many_a_list_of_pairs(bench: Make) -> None:
    few = read(bench("bank").write("none", labels(9)))
    assert [table["class"] for table in few.all("table") if table.get("class") == "matrix"] == ["matrix"]
    intents = tuple(f"intent_{number:02}" for number in range(77))
    many = read(bench("bank").write("classical", labels(20, n=77, labels=intents)))
    assert not [table for table in many.all("table") if table.get("class") == "matrix"]
    assert "The 20 pairs confused most, of 77 labels" in many.text


def test_items_alike_in_question_and_answers_are_shown_once(bench: Make) -> None:
    same = [
        label(number, False, prompt="an equal question", place=f"x:{number}", group=f"{number}") for number in (0, 2, 4)
    ]
    base = (made := bench("bank")).write("none", [*same, *labels(30)[5:]])
    page = read(made.write("lora", [*same, *labels(30)[5:]], {"none": base}))
    assert page.text.count("an equal question") == 1


def test_who_was_asked_otherwise_and_which_wording_was_chosen_is_said(bench: Make) -> None:
    made = bench("bank")
    base = made.write("none", [replace(each, prompt=f"Which {each.prompt}") for each in labels(12)])
    base.update(wordings={"bank": "Which team?"})
    run = made.write("lora", labels(12), {"none": base})
    run.update(wordings={"bank": "Team?"})
    text = read(run).text
    assert text.count("was asked: Which question") == 20
    assert "best on validation, for the tuned model: Team?" in text
    assert "best on validation, for the untuned base: Which team?" in text
    assert "was asked:" not in read(base).text


def test_what_became_of_the_files_is_listed(bench: Make) -> None:
    run = bench("bank").write("none", labels(9))
    assert "No row was left out" in read(run).text
    run.update(notes=["domain bank: x.csv:3: is no label; left out (skip_faulty)"])
    text = read(run).text
    assert "x.csv:3: is no label; left out (skip_faulty)" in text
    assert "No row was left out" not in text


def test_who_learned_nothing_is_warned(bench: Make) -> None:
    made = bench("bank")
    base = made.write("none", labels(9))
    still = [replace(each, kl=0.01) for each in passages(0.0)]
    assert "it hardly differs from its base" in read(made.write("lora", labels(9) + still, {"none": base})).text


def test_hostile_and_foreign_text_stays_text(bench: Make) -> None:
    foreign = "我的卡被吞了 لم أستلم بطاقتي 🏦 \u2028 \u202e"
    hostile = [label(number, True, prompt=EVIL, place=EVIL, labels=(EVIL, foreign)) for number in range(8)]
    hostile += [reply(number, f"{EVIL} {foreign}", reference=EVIL) for number in range(8)]
    run = bench("bank", "care", dropped=[EVIL]).write("none", [*hostile, reply(9, None, failed=EVIL)])
    page = read(run)
    assert not {tag for tag, _ in page.elements} & {"script", "img", "iframe", "object", "link", "base", "form"}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "<script>alert('owned')</script>" in page.text
    assert "我的卡被吞了" in page.text


def test_the_page_needs_nothing_else(three: dict[str, Run]) -> None:
    page = read(three["lora"])
    addresses = [value for _, each in page.elements for name, value in each.items() if name in ("href", "src")]
    assert addresses
    assert all(address and address.startswith("#") for address in addresses)
    assert "url(" not in page.style
    assert "@import" not in page.style
    policy = next(each for each in page.all("meta") if "http-equiv" in each)
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_the_page_can_be_read_without_seeing_it(three: dict[str, Run]) -> None:
    page = read(three["lora"])
    ids = [each["id"] for _, each in page.elements if "id" in each]
    assert len(ids) == len(set(ids))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    pictures = [each for each in page.all("svg") if each.get("role") == "img"]
    assert len(pictures) == len(page.all("title")) - 1 == 3
    assert all(each["aria-label"] for each in pictures)
    assert len(page.all("table")) == len(page.all("caption"))


@pytest.mark.long
def test_the_same_run_gives_the_same_bytes_and_a_small_page(bench: Make) -> None:
    made = bench("bank", "care")
    long = [replace(each, prompt="word " * 800) for each in labels(50, n=100) + replies(50, n=100)]
    base = made.write("none", long)
    run = made.write("lora", long + passages(), {"none": base})
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert len(first) < 300_000


def test_an_opponent_that_is_gone_is_named(three: dict[str, Run], tmp_path: Path) -> None:
    alone = Run(Path(shutil.copytree(three["lora"].directory, tmp_path / "alone")))
    with pytest.raises(RunError, match=three["none"].name):
        write_report(alone)
