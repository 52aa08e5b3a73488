from __future__ import annotations

from pathlib import Path

import pytest

from metier.assistant.safety import Safety
from metier.assistant.scope import elsewhere
from metier.cli.serve import _care, _scope
from metier.web.dispatch import Typed
from tests.unit.assistant.test_scope import asked


def sides(heldout: list[str]) -> Typed:
    train, validation = asked("banking")[0::3], asked("banking")[1::3]
    return {"train": {"banking": train}, "validation": {"banking": validation}, "heldout": {"banking": heldout}}


@pytest.mark.parametrize(
    ("heldout", "knows"),
    [
        (asked("banking")[2::3], True),
        (asked("banking")[2:15:3], False),  # too few to tell
        (elsewhere()[1], False),  # too many would be lost
    ],
)
def test_nothing_is_declined_where_rows_do_not_tell_what_belongs_here(
    heldout: list[str], knows: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (_scope(sides(heldout), Safety.open()) is not None) == knows
    assert ("no question is declined" in capsys.readouterr().err) != knows


def test_it_is_told_which_domains_are_taken_for_medical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # where tickets lie
    texts = {"my-clinic": ["a"], "selfcare": ["b"]}
    _care(None, {"train": texts, "validation": {}, "heldout": {}})
    assert "taken for medical by name: my-clinic;" in capsys.readouterr().err
