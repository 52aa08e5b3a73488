from __future__ import annotations

import dataclasses

import pytest

from metier import proposal
from metier.bases import known
from metier.hardware import Hardware, Rates
from metier.memory import GIB
from metier.proposal import HOUR, Proposal, eligible, propose
from tests.unit.test_planning import NANO, recipe

FAST = Rates(train=1e-6, read=4e-7, decode=1e-3, unpack=1e-13, product=1e-15)
OPEN = eligible(known(), token=False, room=1 << 50)


def machine(gib: int) -> Hardware:
    return Hardware("Linux x86_64", 8, gib * GIB, gib * GIB, ("avx2", "avx512f", "avx512_bf16"))


def slower(factor: float) -> Rates:
    return Rates(**{name: factor * value for name, value in dataclasses.asdict(FAST).items()})


def proposed(gib: int, factor: float = 1.0) -> Proposal | None:
    return propose(recipe("lora"), NANO, OPEN, machine(gib), slower(factor))


def test_the_largest_that_fits_is_proposed() -> None:
    found = proposed(200)
    assert found
    assert found.base.name == "Qwen/Qwen2.5-14B-Instruct"
    assert found.method == "lora"


def test_memory_decides() -> None:
    sizes = []
    for gib in (64, 32, 16, 8, 4):
        found = proposed(gib)
        assert found
        assert found.plan.peak <= gib * GIB
        sizes.append(found.base.parameters)
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 3
    assert proposed(1) is None


def test_an_hour_decides() -> None:
    sizes = []
    for factor in (1, 10, 30, 100, 300):
        found = proposed(200, factor)
        if found:
            assert found.seconds <= HOUR
            sizes.append(found.base.parameters)
    assert sizes == sorted(set(sizes), reverse=True)
    assert len(sizes) == 5
    assert proposed(200, 1000) is None


def test_four_bits_only_where_sixteen_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    found = proposed(24)
    assert found
    assert found.method == "qlora"
    monkeypatch.setattr(proposal, "find_spec", lambda name: None)
    without = proposed(24)
    assert without
    assert without.method == "lora"
    assert without.base.parameters < found.base.parameters


def test_gates_terms_and_the_disk_are_heeded() -> None:
    def names(token: bool, room: int = 1 << 50) -> set[str]:
        return {base.name for base in eligible(known(), token=token, room=room)}

    gated = {base.name for base in known() if base.gated}
    terms = {base.name for base in known() if base.terms}
    assert names(token=True) == {base.name for base in known()} - terms
    assert names(token=False) == {base.name for base in known()} - terms - gated
    assert names(token=True, room=10**9) == {base.name for base in known() if base.bytes <= 10**9}
