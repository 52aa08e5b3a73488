from __future__ import annotations

from pathlib import Path

import pytest

from metier.files import verify
from metier.web.failures import Refusal
from metier.web.files import Files


def test_a_file_comes_back_as_it_was_sent_to_whom_it_belongs(tmp_path: Path) -> None:
    files = Files(tmp_path / "files")
    kept = files.keep("rows.jsonl", "fine-tune", b"{}\n", "team")
    assert files.path(kept).read_bytes() == b"{}\n"
    assert files.all("team") == [files.get(kept.id, "team")] == [kept]
    assert "owner" not in kept.told()
    strangers = [(kept.id, "other"), ("file-" + "0" * 32, "team"), ("../../etc", "team"), (f"{kept.id}\n", "team")]
    for id, owner in strangers:
        with pytest.raises(Refusal, match="there is no file"):
            files.get(id, owner)
    assert files.all("other") == []
    files.remove(kept)
    assert files.all("team") == []


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("../../etc/passwd", "passwd.jsonl"),
        ("C:\\rows\\a b.csv", "a_b.csv"),
        ("", "data.jsonl"),
        ("file.json", "data-file.json"),
        ("Manifest.json", "data-Manifest.json"),
        (".hidden", "hidden.jsonl"),
        ("ü" * 300 + ".csv", "ü" * 98 + ".csv"),
        ("名" * 100 + ".csv", "名" * 65 + ".csv"),
        ("a." + "名" * 300, "名" * 66 + ".jsonl"),
    ],
)
def test_a_name_leads_nowhere(name: str, plain: str, tmp_path: Path) -> None:
    kept = Files(tmp_path).keep(name, "fine-tune", b"x", "team")
    assert kept.filename == plain
    assert Files(tmp_path).path(kept) == tmp_path / kept.id / plain
    assert Files(tmp_path).path(kept).read_bytes() == b"x"
    assert verify(tmp_path / kept.id)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="is empty"):
        Files(tmp_path).keep("a.csv", "fine-tune", b"", "team")
