"""The machine: what it has, and in a child process what it can do."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Hardware:
    """One machine, in bytes; `features` are the instruction sets that matter to matrix arithmetic."""

    system: str
    cores: int
    memory: int
    available: int
    features: tuple[str, ...]

    @property
    def fast_bf16(self) -> bool:
        """Whether bfloat16 arithmetic is done by the processor itself."""
        return "amx_bf16" in self.features or "avx512_bf16" in self.features


@dataclass(frozen=True)
class Rates:
    """Measured: floating-point operations a second of a matrix product, 4-bit weights unpacked a second."""

    matrix: float
    unpack: float


def probe() -> Hardware:
    """Look at this machine. The only place that does."""
    memory = psutil.virtual_memory()
    limit = _container_limit() or memory.total
    return Hardware(
        system=f"{platform.system()} {platform.machine()}",
        cores=_cores(),
        memory=min(memory.total, limit),
        available=min(memory.available, limit),
        features=_features(),
    )


def measure(compute: str, shape: tuple[int, int, int], threads: int, *, quantized: bool) -> Rates:
    """Time products of [tokens, in] × [in, out] in a child, so that this process stays light and undisturbed."""
    arguments = [compute, *map(str, shape), str(threads), str(int(quantized))]
    done = subprocess.run(
        [sys.executable, "-m", "metier.hardware", *arguments], capture_output=True, text=True, check=True, timeout=120
    )
    matrix, unpack = map(float, done.stdout.split()[-2:])
    return Rates(matrix, unpack)


def peak_memory() -> int:
    """The most memory this process has held at once, mapped files included, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    info = psutil.Process().memory_info()
    return int(getattr(info, "peak_wset", info.rss))


def _cores() -> int:
    """Physical cores this process may use: hyper-threads share one matrix unit."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, psutil.cpu_count(logical=False) or usable)


def _features() -> tuple[str, ...]:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return ()
    line = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "")
    return tuple(flag for flag in _FLAGS if flag in line.split())


def _container_limit() -> int | None:
    """What a container may use, where one is set."""
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(name)
        if path.exists() and (text := path.read_text().strip()).isdecimal():
            return int(text)
    return None


def _main(compute: str, tokens: int, width: int, out: int, threads: int, quantized: bool) -> None:
    """The child: print both rates."""
    import torch

    torch.set_num_threads(threads)
    dtype = getattr(torch, compute)
    left, right = torch.randn(tokens, width, dtype=dtype), torch.randn(out, width, dtype=dtype)
    seconds = _best(lambda: torch.nn.functional.linear(left, right))
    matrix, unpack = 2.0 * tokens * width * out / seconds, float("inf")
    if quantized:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        packed, state = quantize_4bit(right, quant_type="nf4", compress_statistics=True)
        unpack = right.numel() / _best(lambda: dequantize_4bit(packed, state))
    print(matrix, unpack)


def _best(work: object) -> float:
    """The least of several timings: what the machine can do when nobody disturbs it."""
    assert callable(work)
    work()
    timings = []
    for _ in range(20):
        begun = time.perf_counter()
        work()
        timings.append(time.perf_counter() - begun)
    return min(timings)


if __name__ == "__main__":
    _compute, *_numbers = sys.argv[1:]
    _main(_compute, *map(int, _numbers))  # type: ignore[arg-type]
