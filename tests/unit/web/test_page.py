from __future__ import annotations

import re
from pathlib import Path

import pytest

from metier.run import Run
from metier.web.failures import Refusal
from metier.web.page import Links

PAGE = Path(__file__).parents[3] / "src/metier/assets/page"
FILES = sorted(PAGE.iterdir())


def test_a_link_is_good_for_a_while_and_for_one_run(tmp_path: Path) -> None:
    run, links = Run(tmp_path), Links(seconds=60)
    name = links.make(run)
    assert links.run(name) == run
    assert len(name) > 40
    assert links.make(run) != name
    for strange in ("", "x", name[:-1]):
        with pytest.raises(Refusal, match="no longer good"):
            links.run(strange)


def test_an_old_link_is_not_good_any_more(tmp_path: Path) -> None:
    links = Links(seconds=-1)
    name = links.make(Run(tmp_path))
    with pytest.raises(Refusal, match="no longer good"):
        links.run(name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_of_the_page_fits_a_head_and_its_policy(path: Path) -> None:
    """No HTML out of text, nothing inline, nothing from elsewhere."""
    text = path.read_text()
    assert len(text.splitlines()) < 400
    for banned in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "eval(", "style="):
        assert banned not in text, banned
    assert set(re.findall(r"https?://[\w.]+", text)) <= {"http://www.w3.org"}
    if path.suffix == ".html":
        assert re.findall(r"<script[^>]*>([^<]*)", text) == [""]
        assert not re.search(r"\son\w+=", text)


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".js"], ids=lambda path: path.name)
def test_what_a_module_imports_is_there(path: Path) -> None:
    """By file and by name: a page has no compiler that would say so."""
    for names, module in re.findall(r"import \{([^}]*)\} from \"\./([\w.]+)\"", path.read_text()):
        given = (PAGE / module).read_text()
        for name in filter(None, (each.strip() for each in names.split(","))):
            assert re.search(rf"export (async )?(function\*?|const|class|let) {name}\b", given), (module, name)
        for name in filter(None, (each.strip() for each in names.split(","))):
            assert len(re.findall(rf"\b{name}\b", path.read_text())) > 1, f"{name} is not used"


def test_what_scripts_look_for_is_in_the_page() -> None:
    made = "".join(path.read_text() for path in FILES if path.suffix in (".js", ".html"))
    sought = set(re.findall(r"find\(\"([\w-]+)\"\)", made))
    assert sought
    for name in sought:
        assert re.search(rf"id(=|: )\"{name}\"", made), name
