"""A comparison's page: complete, readable with many strategies, self-contained, and safe to open."""

from __future__ import annotations

import re
import shutil
import subprocess
from copy import deepcopy
from html import escape
from pathlib import Path
from typing import Any

import pytest

from metier.errors import RunError
from metier.figures import duration, figure
from metier.report.contest import render
from tests.unit.report import contests
from tests.unit.report.test_page import EVIL, Page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
MARKS = ("recommended", "best")

Made = tuple[dict[str, Any], Path]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return contests.large(tmp_path_factory.mktemp("large"), evil=f" {EVIL}")


def read(made: Made) -> Page:
    page = Page()
    page.feed(render(*made))
    page.close()
    assert page.stack == []
    page.text = re.sub(r"\s+", " ", page.text)
    return page


def test_a_large_comparison_shows_every_line_and_every_number(large: Made) -> None:
    page, table = read(large), large[0]["table"]
    assert len(table["lines"]) > 20
    assert table["verdict"] in page.text
    for line in table["lines"]:
        assert page.text.count(line["name"]) >= 3  # in the table, the forests, the costs
        for score in (line["overall"], *line["by_domain"].values()):
            assert figure("overall", score["value"]) in page.text
        assert figure("overall", line["overall"]["low"]) in page.text
        assert duration(line["cost"]["answering"]) in page.text
    for name, why in table["failed"].items():
        assert f"{name}: {why}" in page.text


def test_every_section_has_its_link_and_every_picture_its_caption(large: Made) -> None:
    page = read(large)
    shown = [section["id"] for section in page.all("section")]
    assert [each["href"] for each in page.all("a")] == [f"#{section}" for section in shown]
    assert len(shown) == 13
    assert len(page.all("figure")) == len(page.all("figcaption")) == 11


def test_the_recommended_one_s_scales_are_weighed(large: Made) -> None:
    page = read(large)
    assert f"A share of what {large[0]['table']['recommended']} learned" in page.text
    assert "scale 0.75 is recommended: it keeps most of the gain" in page.text


def test_layouts_routers_and_warnings_are_told(large: Made) -> None:
    page = read(large)
    assert "interference" in page.text
    assert "outside of it stands what a wrong route costs, −20.0 points in the mean over all pairs alike" in page.text
    assert "Below a share of 0.64, chosen on validation, it abstains" in page.text
    assert "Held-out questions by their domain (rows)" in page.text
    assert "All hard prompts by their domain (rows)" in page.text
    assert "the answers of one came from a model" in page.text
    assert "metier compare strategies.toml --set train.rows=50 --plan threads=1" in page.text


def test_a_router_that_trusts_nothing_is_said_to(large: Made) -> None:
    values, runs = deepcopy(large[0]), large[1]
    values["table"]["routers"][0]["threshold"] = 2.0
    assert "no share was large enough to be trusted: it sends nothing" in render(values, runs)


def test_what_has_nothing_to_show_is_absent(tmp_path: Path) -> None:
    page = read(contests.small(tmp_path))
    assert [section["id"] for section in page.all("section")] == [
        "table",
        "scores",
        "answers",
        "cost",
        "reading",
        "reproduce",
    ]


def test_lines_stand_by_score_and_the_two_that_matter_are_marked(large: Made) -> None:
    page = render(*large)
    scores = [float(each) for each in re.findall(r'<td class="value"[^>]*>([\d.]+)<', page)]
    assert scores == sorted(scores, reverse=True)
    table = page[page.index('id="table"') : page.index('id="scores"')]
    marked = re.findall(r'<span class="key (\w+)">([^<]+)</span> <span class="chip mark (\w+)">', table)
    names = {mark: escape(large[0]["table"][mark], quote=False) for mark in MARKS}
    assert {mark: name.replace("&#39;", "'").replace("&#34;", '"') for _, name, mark in marked} == names
    assert {look for look, *_ in marked} == set(MARKS)


def test_nothing_that_was_written_by_others_is_anything_but_text(large: Made) -> None:
    page = read(large)
    names = {name for name, _ in page.elements}
    assert not names & {"script", "img", "iframe", "object", "link"}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "alert('owned')" in page.text
    assert "alert" not in page.style


def test_nothing_is_fetched_and_the_same_comparison_gives_the_same_bytes(large: Made) -> None:
    text = render(*large)
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|url\(|@import", text)
    assert render(deepcopy(large[0]), large[1]) == text


def test_a_number_that_was_not_measured_is_a_dash(tmp_path: Path) -> None:
    values, runs = contests.small(tmp_path)
    assert "other runs worked beside it" not in render(values, runs)
    values["table"]["lines"][0]["cost"]["answering"] = None
    page = render(values, runs)
    assert "other runs worked beside it" in page
    assert 'data-head="1,000 answers">–</td>' in page


def test_a_price_is_a_column_where_there_is_one(tmp_path: Path) -> None:
    values, runs = contests.small(tmp_path)
    assert "price of 1,000" not in render(values, runs)
    values["table"]["lines"][0]["cost"]["price"] = 1.5
    assert 'data-head="price of 1,000">1.50</td>' in render(values, runs)


def test_who_is_within_the_margin_is_said_by_the_test_and_not_by_the_value(large: Made) -> None:
    values, runs = deepcopy(large[0]), large[1]
    gaps = [line["against_best"] for line in values["table"]["lines"] if line["against_best"]]
    for gap, p in zip(gaps, (0.0249, 0.025, *[None] * len(gaps)), strict=False):
        gap["p_inferior"] = p
    page = render(values, runs)
    assert page.count('<span class="range">within 2.0</span>') == 1
    assert page.count("not shown within 2.0") == len(gaps) - 1


def test_where_a_guard_says_no_to_all_the_best_speaks_first(tmp_path: Path) -> None:
    made = contests.Contest(tmp_path, contests.DOMAINS[:2])
    made.add("LoRA", 0.8, trained=contests.DOMAINS[:2])
    made.add("untuned base", 0.3, kind="base")
    values = made.values()
    values["table"]["recommended"] = None
    page = read((values, made.runs))
    assert "FAILED" in page.text
    assert "Which labels LoRA takes for which" in page.text


def test_without_a_single_line_that_worked_the_page_says_why(tmp_path: Path) -> None:
    values, runs = contests.small(tmp_path)
    values["table"] |= {"lines": [], "domains": [], "best": None, "recommended": None, "failed": {"LoRA": "no memory"}}
    values["lines"] = []
    assert "LoRA: no memory" in read((values, runs)).text


def test_a_run_that_is_gone_is_told(tmp_path: Path) -> None:
    values, runs = contests.small(tmp_path)
    shutil.rmtree(runs / "run0-0")
    with pytest.raises(RunError, match="run0-0"):
        render(values, runs)


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")
@pytest.mark.parametrize("make", [contests.large, contests.small])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser_nothing_runs_over_the_edge_and_nothing_complains(tmp_path: Path, make: Any, scheme: str) -> None:
    """In frames as wide as a phone and a desk: a window can be no narrower than 500 pixels."""
    page = render(*make(tmp_path))
    measured = browse(tmp_path, page, "--force-dark-mode" if scheme == "dark" else "--disable-extensions")
    assert measured == [(width, width) for width in (320, 390, 768, 1280)]


def browse(folder: Path, page: str, *flags: str) -> list[tuple[int, int]]:
    """(width, width that its content takes) of a page in frames; asserts that its console is silent."""
    frames = "".join(
        f'<iframe width="{width}" height="900" style="border:0" srcdoc="{escape(page)}"></iframe>'
        for width in (320, 390, 768, 1280)
    )
    script = (
        "onload = () => { document.body.innerHTML = [...document.querySelectorAll('iframe')].map(frame => "
        "`<p>${frame.contentWindow.innerWidth} ${frame.contentDocument.documentElement.scrollWidth}</p>`).join('') }"
    )
    path = folder / "frames.html"
    path.write_text(f'<!doctype html><meta charset="utf-8"><script>{script}</script><body>{frames}', encoding="utf-8")
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}",
    ]
    done = subprocess.run(
        [*command, *flags, "--enable-logging=stderr", "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    return [(int(inner), int(content)) for inner, content in re.findall(r"<p>(\d+) (\d+)</p>", done.stdout)]
