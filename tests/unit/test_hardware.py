from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from unittest.mock import Mock

import psutil
import pytest
import torch

from metier import hardware
from metier.hardware import Accelerator, Layer, look, measure, peak_memory, probe


def test_a_machine_has_cores_and_memory() -> None:
    machine = probe()
    assert machine.cores >= 1
    assert 0 < machine.available <= machine.memory


@pytest.mark.long
@pytest.mark.parametrize("quantized", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_rate_of_a_layer_is_measured(quantized: bool) -> None:
    """Widths that no head of 64 divides are layers too."""
    rates = asdict(measure(Layer(96, 128, 256, 4, "float32", quantized), threads=1))
    assert (rates.pop("unpack") > 0) == quantized
    assert all(rate > 0 for rate in rates.values())


@pytest.fixture
def looked_anew() -> Iterator[None]:
    hardware._accelerator.cache_clear()
    yield
    hardware._accelerator.cache_clear()


def found(capsys: pytest.CaptureFixture[str]) -> Accelerator:
    look()
    return Accelerator(**json.loads(capsys.readouterr().out))


def test_a_cuda_card_is_described(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (14 << 30, 15 << 30))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    card = found(capsys)
    assert card == Accelerator("cuda", "Tesla T4", 15 << 30, 14 << 30, "7.5", card.driver)
    assert not card.unified
    assert not card.fast_bf16


def test_a_mac_is_described(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 12 << 30)
    monkeypatch.setattr("platform.mac_ver", lambda: ("15.1", ("", "", ""), "arm64"))
    unit = found(capsys)
    assert (unit.kind, unit.driver, unit.memory) == ("mps", "15.1", 12 << 30)
    assert unit.unified
    assert unit.fast_bf16


@pytest.mark.long
@pytest.mark.usefixtures("looked_anew")
def test_a_driver_without_a_torch_for_it_is_no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child is asked where a tool of the driver's is there; what counts is what torch finds."""
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/nvidia-smi" if name == "nvidia-smi" else None)
    machine = probe()
    assert (machine.accelerator is not None) == (torch.cuda.is_available() or torch.backends.mps.is_available())
    assert machine.devices[-1] == "cpu"


def test_a_cards_peak_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 123)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 456)
    assert (peak_memory("cuda"), peak_memory("mps")) == (123, 456)
    assert peak_memory() > 1 << 20


def test_libraries_find_nothing_that_fetches_native_code() -> None:
    from importlib.util import find_spec

    import metier.data  # noqa: F401 (whose import says so)

    assert find_spec("kernels") is None
    with pytest.raises(ImportError):
        import kernels  # type: ignore[import-not-found] # noqa: F401


@pytest.mark.long
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_is_kept_for_the_next_tensors() -> None:
    """In a process of its own, where nothing has asked for more before."""
    code = (
        "import resource, torch; from metier.hardware import settle; settle(1)\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    torch.empty(5_000_000).zero_() + torch.empty(5_000_000).zero_()\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "first, *others = (faults() for _ in range(9))\nprint(first > 1000, min(others) < 100)\n"  # others disturb
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["True", "True"]


@pytest.mark.parametrize(("policy", "expected"), [(None, "7"), ("passive", None)])
def test_how_long_threads_spin_is_the_users_before_it_is_ours(
    policy: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", {"OMP_WAIT_POLICY": policy} if policy else {"GOMP_SPINCOUNT": "20000"})
    hardware.spin(7)
    assert os.environ.get("GOMP_SPINCOUNT") == expected


class Machine:
    """Two cores, of which this process takes what others leave; `turn` goes two seconds on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.left = 0.0
        self.threads: list[int] = []
        monkeypatch.setattr(hardware.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(hardware, "_left", lambda: self.left)
        monkeypatch.setattr(torch, "set_num_threads", self.threads.append)

    def turn(self, others: float, seconds: float = 2.0) -> None:
        self.now += seconds
        self.left += (2.0 - others) * seconds


def test_cores_that_others_take_are_left_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    yielding = hardware.Yielding(2)
    for others in (0.0, 0.3, 0.7, 1.0, 2.0, 0.9, 0.2, 0.0):
        machine.turn(others)
        yielding()
    assert machine.threads == [1, 2]
    machine.turn(1.0, seconds=1.0)
    yielding()  # too soon to tell
    machine.turn(1.0, seconds=60.0)
    yielding()  # nobody has computed for long
    assert machine.threads == [1, 2]
    machine.turn(1.0)
    yielding()
    machine.turn(1.0, seconds=60.0)
    yielding()
    assert machine.threads == [1, 2, 1, 2]


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), psutil.AccessDenied()])
def test_where_nothing_can_be_seen_of_others_it_goes_on(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    yielding = hardware.Yielding(2)
    with monkeypatch.context() as patch:
        patch.setattr(hardware, "_left", Mock(side_effect=error))
        machine.turn(1.0)
        yielding()
    assert not machine.threads
    machine.turn(1.0, seconds=1.0)
    yielding()
    assert machine.threads == [1]


def test_what_others_leave_is_measured() -> None:
    before = hardware._left()
    begun = time.monotonic()
    while time.monotonic() - begun < 0.3:
        pass
    assert hardware._left() > before


@pytest.mark.parametrize(("wanted", "cores"), [("1", 1), ("1,4", 1), ("0", 0), ("many", 0), ("999", 0)])
def test_no_more_threads_than_are_wanted(wanted: str, cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    every = probe().cores
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    assert probe().cores == (cores or every)
