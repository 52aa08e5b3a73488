"""The machine: what it has, and in a child process what it can do."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
class Layer:
    """One decoder layer as it will be worked on: numbers that fix how long it takes."""

    hidden: int
    intermediate: int
    tokens: int  # read at once
    sequences: int  # decoded at once
    compute: str
    quantized: bool


@dataclass(frozen=True)
class Rates:
    """Measured on a layer of the model's own widths, in seconds.

    A token trained (forward, backward, low-rank adapters) and read; a step of decoding all sequences;
    a 4-bit weight unpacked; a multiplication with addition in a matrix product.
    """

    train: float
    read: float
    decode: float
    unpack: float
    product: float


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


def measure(layer: Layer, threads: int) -> Rates:
    """Time a random layer in a child, so that this process stays light and undisturbed."""
    command = [sys.executable, "-m", "metier.hardware", json.dumps([asdict(layer), threads])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return Rates(**json.loads(done.stdout.splitlines()[-1]))


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


def _main(layer: Layer, threads: int) -> None:
    """The child: print the rates as JSON."""
    import torch

    torch.set_num_threads(threads)
    work = _Work(layer)
    rows = max(1, min(layer.tokens, 1024) // _ROW)
    tokens = torch.randn(rows * _ROW, layer.hidden, dtype=work.dtype)
    with torch.no_grad():
        read = _median(lambda: work.forward(tokens))
        decode = _median(lambda: work.forward(tokens[:1].expand(layer.sequences, -1), cached=2 * _ROW))
        product = _median(lambda: torch.nn.functional.linear(tokens, work.weights[2])) / tokens.shape[0]
    tokens.requires_grad_()
    train = _median(lambda: work.forward(tokens).float().sum().backward())
    unpack = 0.0
    if layer.quantized:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        packed, state = quantize_4bit(work.weights[2], quant_type="nf4", compress_statistics=True)
        unpack = _median(lambda: dequantize_4bit(packed, state)) / work.weights[2].numel()
    count = tokens.shape[0]
    rates = Rates(train / count, read / count, decode, unpack, product / work.weights[2].numel())
    print(json.dumps(asdict(rates)))


_ROW = 128  # tokens of a row in the timed batch
_RANK = 16


class _Work:
    """A decoder layer with adapters, in plain torch: what is done for a token, not what comes out."""

    def __init__(self, layer: Layer) -> None:
        import torch

        self.dtype = getattr(torch, layer.compute)
        self.heads = layer.hidden // 64 if layer.hidden % 64 == 0 else 1
        hidden, wide = layer.hidden, layer.intermediate
        shapes = ((3 * hidden, hidden), (hidden, hidden), (2 * wide, hidden), (hidden, wide))
        self.weights = [torch.randn(shape, dtype=self.dtype) / shape[1] ** 0.5 for shape in shapes]
        self.factors = [
            (torch.randn(_RANK, width, requires_grad=True), torch.zeros(out, _RANK, requires_grad=True))
            for out, width in shapes
        ]

    def forward(self, tokens: Any, cached: int = 0) -> Any:
        """[tokens, hidden] → the same; with `cached` each token has a sequence of its own behind it."""
        from torch.nn.functional import scaled_dot_product_attention, silu

        length = 1 if cached else _ROW
        query, key, value = (
            each.reshape(len(tokens) // length, length, self.heads, -1).transpose(1, 2)
            for each in self._linear(self._norm(tokens), 0).chunk(3, -1)
        )
        if cached:
            key, value = (each.expand(-1, -1, cached, -1) for each in (key, value))
        mixed = scaled_dot_product_attention(query, key, value, is_causal=not cached)
        tokens = tokens + self._linear(mixed.transpose(1, 2).reshape(tokens.shape), 1)
        gate, up = self._linear(self._norm(tokens), 2).chunk(2, -1)
        return tokens + self._linear(silu(gate) * up, 3)

    def _norm(self, tokens: Any) -> Any:
        wide = tokens.float()
        return (wide * (wide.square().mean(-1, keepdim=True) + 1e-5).rsqrt()).to(self.dtype)

    def _linear(self, tokens: Any, index: int) -> Any:
        down, up = self.factors[index]
        return tokens @ self.weights[index].T + (tokens.float() @ down.T @ up.T).to(self.dtype)


def _median(work: Callable[[], object]) -> float:
    """Seconds, of at most twenty timings in at most a second, after a first that nobody counts."""
    work()
    timings: list[float] = []
    while len(timings) < 20 and sum(timings) < 1:
        begun = time.perf_counter()
        work()
        timings.append(time.perf_counter() - begun)
    return statistics.median(timings)


if __name__ == "__main__":
    _layer, _threads = json.loads(sys.argv[1])
    _main(Layer(**_layer), _threads)
