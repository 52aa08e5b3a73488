"""Prompts with the domains that may answer them, and every fault of such a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metier.data.items import Message
from metier.data.prompts import Prompt, read_prompts
from metier.errors import DataError

DOMAINS = ("bank", "clinic")


def test_csv_and_json_lines_mean_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('prompt,domain,allowed,kind\nhi,bank,,\nill and broke,bank,"[""clinic""]",mixed\n')
    rows = [
        {"prompt": "hi", "domain": "bank"},
        {"prompt": "ill and broke", "domain": "bank", "allowed": ["clinic", "bank"], "kind": "mixed"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    one, other = (read_prompts(tmp_path / name, DOMAINS) for name in ("a.csv", "a.jsonl"))
    assert [(each.turns, each.allowed, each.kind) for each in one] == [
        (each.turns, each.allowed, each.kind) for each in other
    ]
    assert other[1] == Prompt(other[1].place, (Message("user", "ill and broke"),), "bank", ("bank", "clinic"), "mixed")


def test_of_a_conversation_the_users_turns_are_read(tmp_path: Path) -> None:
    said = [("system", "Be kind."), ("user", "hi"), ("assistant", "hello"), ("user", "my card")]
    messages = [{"role": role, "content": text} for role, text in said]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": messages, "domain": "bank"}))
    (found,) = read_prompts(tmp_path / "a.jsonl", DOMAINS)
    assert (found.turns, found.kind, found.messages[0].role) == (["hi", "my card"], "", "system")


def test_every_fault_is_told_with_its_line(tmp_path: Path) -> None:
    ends = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    rows = [
        {"prompt": "hi", "domain": "banks"},
        {"prompt": " ", "domain": "bank"},
        {"messages": ends, "domain": "bank"},
        {"prompt": "hi", "domain": "bank", "allowed": ["shop"]},
        {"prompt": "hi", "domain": ""},
        {"messages": [{"role": "user", "content": ""}], "domain": "bank"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError) as told:
        read_prompts(tmp_path / "a.jsonl", DOMAINS)
    assert [str(fault).partition("a.jsonl:")[2].split(";")[0] for fault in told.value.faults] == [
        "1: domain: 'banks' is no domain here",
        "2: prompt: there is none",
        "3: messages: end with assistant",
        "4: allowed: 'shop' is no domain here",
        "5: domain: is missing",
        "6: prompt: there is none",
    ]


def test_absent_columns_are_told_once(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("promt,topic\nhi,bank\nho,bank\n")
    with pytest.raises(DataError, match="did you mean `promt`") as told:
        read_prompts(tmp_path / "a.csv", DOMAINS)
    assert len(told.value.faults) == 2
