from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from metier.files import (
    MANIFEST,
    append_line,
    canonical,
    digest,
    file_digest,
    kept_directory,
    read_json,
    verify,
    write_atomic,
    write_directory,
    write_json,
)


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical({"b": 1, "a": [1.5, "ä"]}) == '{"a":[1.5,"ä"],"b":1}'
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1}) != digest({"a": 2, "b": 2})


def test_nan_is_refused_everywhere(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"a": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", [float("inf")])
    assert list(tmp_path.iterdir()) == []


def test_an_atomic_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "one")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "two")
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_lines_are_appended_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append_line(path, "a")
    append_line(path, "b")
    assert path.read_text() == "a\nb\n"


def test_a_directory_is_sealed_and_any_change_is_seen(tmp_path: Path) -> None:
    target = tmp_path / "adapter"

    def fill(staged: Path) -> None:
        (staged / "weights").write_bytes(b"1234")

    write_directory(target, fill)
    assert verify(target)
    assert read_json(target / MANIFEST) == {"weights": file_digest(target / "weights")}
    (target / "weights").write_bytes(b"1235")
    assert not verify(target)
    assert not verify(tmp_path / "absent")


def test_a_directory_that_fails_to_fill_is_never_seen(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    write_directory(target, lambda staged: write_atomic(staged / "a", "old"))

    def fail(staged: Path) -> None:
        (staged / "a").write_text("new")
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_directory(target, fail)
    assert (target / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_what_is_kept_is_made_once_and_anew_where_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = list[int]()

    def fill(to: Path) -> None:
        made.append(1)
        (to / "a").write_text("a")

    path = kept_directory("things", "key", fill)
    assert kept_directory("things", "key", fill) == path
    assert path.is_relative_to(tmp_path / "metier" / "things")
    assert len(made) == 1
    (path / "a").write_text("b")
    assert (kept_directory("things", "key", fill) / "a").read_text() == "a"
    assert len(made) == 2


def test_what_was_kept_longest_ago_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for number in range(20):
        path = kept_directory("things", str(number), lambda to: None)
        os.utime(path, (number, number))
    left = {path.name for path in path.parent.iterdir() if path.is_dir()}
    assert len(left) <= 17
    assert {"19", "18"} <= left


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_where_nobody_may_write_it_is_kept_as_long_as_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o500)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kept_directory("things", "key", lambda to: None).is_dir()


def test_a_line_for_which_there_was_no_room_leaves_no_part(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append_line(path, "whole")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 3, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            append_line(path, "torn")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    append_line(path, "next")
    assert path.read_text() == "whole\nnext\n"
