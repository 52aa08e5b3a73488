from __future__ import annotations

from dataclasses import asdict

import pytest

from metier.hardware import Layer, measure, probe


def test_a_machine_has_cores_and_memory() -> None:
    machine = probe()
    assert machine.cores >= 1
    assert 0 < machine.available <= machine.memory


@pytest.mark.parametrize("quantized", [False, True])
def test_every_rate_of_a_layer_is_measured(quantized: bool) -> None:
    """Widths that no head of 64 divides are layers too."""
    rates = asdict(measure(Layer(96, 128, 256, 4, "float32", quantized), threads=1))
    assert (rates.pop("unpack") > 0) == quantized
    assert all(rate > 0 for rate in rates.values())
