"""The machine: what it has, and in a child process what it can do."""

from __future__ import annotations

import ctypes
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from metier import cgroup

DEVICES = ("cpu", "cuda", "mps")
_KEPT = {-3: 32 * 2**20, -1: 512 * 2**20}  # mallopt's M_MMAP_THRESHOLD, at its highest, and M_TRIM_THRESHOLD, in bytes
_LOOKS = 2.0  # seconds between two looks at what others take of the machine
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Accelerator:
    """A CUDA card or a Mac's graphics unit that this torch can use, in bytes.

    `capability` is CUDA's ("8.6"), empty on a Mac; `driver` is the card's, or macOS's own version.
    """

    kind: str
    name: str
    memory: int
    available: int
    capability: str
    driver: str

    def __str__(self) -> str:
        return f"{self.name}, {self.memory / (1 << 30):.0f} GiB, driver {self.driver}"

    @property
    def unified(self) -> bool:
        """Whether its memory is the machine's own."""
        return self.kind == "mps"

    @property
    def fast_bf16(self) -> bool:
        """CUDA's matrix units have bfloat16 from Ampere on, Metal from macOS 14 on."""
        version = self.driver if self.kind == "mps" else self.capability
        return int(version.partition(".")[0]) >= (14 if self.kind == "mps" else 8)


@dataclass(frozen=True)
class Hardware:
    """One machine, in bytes; `features` are the instruction sets that matter to matrix arithmetic."""

    system: str
    cores: int
    memory: int
    available: int
    features: tuple[str, ...]
    accelerator: Accelerator | None = None

    @property
    def fast_bf16(self) -> bool:
        """Whether bfloat16 arithmetic is done by the processor itself."""
        return "amx_bf16" in self.features or "avx512_bf16" in self.features

    @property
    def devices(self) -> tuple[str, ...]:
        """What can compute, the fastest first, in torch's words."""
        return (self.accelerator.kind, "cpu") if self.accelerator else ("cpu",)

    def room(self, device: str) -> int:
        """How much memory is free there, in bytes."""
        if device == "cpu" or self.accelerator is None:
            return self.available
        return min(self.accelerator.available, self.available if self.accelerator.unified else sys.maxsize)

    def number_format(self, device: str) -> tuple[str, str]:
        """What `device` computes in best, and why."""
        card = self.accelerator
        if device == "cpu" or card is None:
            features = ", ".join(self.features) or "no vector instructions that matter"
            return ("bfloat16" if self.fast_bf16 else "float32"), f"this processor has {features}"
        if card.kind == "mps":
            told = f"macOS {card.driver}"
            return ("bfloat16", told) if card.fast_bf16 else ("float32", f"{told} has no bfloat16, macOS 14 has")
        told = f"compute capability {card.capability}"
        return ("bfloat16", told) if card.fast_bf16 else ("float16", f"{told} has no bfloat16: with loss scaling")


@dataclass(frozen=True)
class Layer:
    """One decoder layer as it will be worked on: numbers that fix how long it takes."""

    hidden: int
    intermediate: int
    tokens: int  # read at once
    sequences: int  # decoded at once
    compute: str
    quantized: bool
    device: str = "cpu"


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


def padding(device: str, compute: str) -> tuple[int, str]:
    """To what multiple lengths are best filled up, and why."""
    if compute == "float32" or device == "mps":
        return 1, "no padding is needed"
    if device == "cpu":
        return 64, f"{compute} kernels are compiled for each length"
    return 8, "what the card's matrix units take at once"


def probe() -> Hardware:
    """Look at this machine, and at what `cgroup` has of a container's share. The only place that does."""
    memory = psutil.virtual_memory()
    limit = cgroup.memory_limit() or memory.total
    return Hardware(
        system=f"{platform.system()} {platform.machine()}",
        cores=_cores(),
        memory=min(memory.total, limit),
        available=min(memory.available, limit),
        features=_features(),
        accelerator=_accelerator(),
    )


@cache
def measure(layer: Layer, threads: int) -> Rates:
    """Time a random layer in a child, so that this process stays light and undisturbed; once for each layer."""
    command = [sys.executable, "-m", "metier.hardware", json.dumps([asdict(layer), threads])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, start_new_session=True)
    return Rates(**json.loads(done.stdout.splitlines()[-1]))


def peak_memory(device: str = "cpu") -> int:
    """The most memory this process has held at once there, on the CPU mapped files included, in bytes.

    Metal keeps no record of a peak: what its driver holds now, which hardly ever shrinks.
    """
    if device != "cpu":
        import torch

        return torch.cuda.max_memory_allocated() if device == "cuda" else torch.mps.driver_allocated_memory()
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    info = psutil.Process().memory_info()
    return int(getattr(info, "peak_wset", info.rss))


def _cores() -> int:
    """Physical cores this process may use: hyper-threads share one matrix unit.

    A container may be given the time of fewer than it sees, and whoever sets OMP_NUM_THREADS wants so many.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # further ones are of threads in threads
    asked = int(wanted) if wanted.isdecimal() else 0
    return min(usable, psutil.cpu_count(logical=False) or usable, cgroup.cores() or usable, asked or usable)


@cache
def _accelerator() -> Accelerator | None:
    """What torch finds, asked in a child where there may be something: this process stays light."""
    if not (shutil.which("nvidia-smi") or shutil.which("rocm-smi") or platform.system() == "Darwin"):
        return None
    done = subprocess.run([sys.executable, "-c", _LOOK], capture_output=True, text=True, check=False, timeout=120)
    found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
    return Accelerator(**found) if found else None


_LOOK = "from metier.hardware import look; look()"


def look() -> None:
    """The child: print the accelerator as JSON, or null."""
    import torch

    found: dict[str, object] | None = None
    if torch.cuda.is_available():
        available, memory = torch.cuda.mem_get_info()
        major, minor = torch.cuda.get_device_capability()
        found = {"kind": "cuda", "name": torch.cuda.get_device_name(), "memory": memory, "available": available}
        found |= {"capability": f"{major}.{minor}", "driver": _driver()}
    elif torch.backends.mps.is_available():
        memory = torch.mps.recommended_max_memory()
        found = {"kind": "mps", "name": platform.processor() or "Apple", "memory": memory, "available": memory}
        found |= {"capability": "", "driver": platform.mac_ver()[0]}
    print(json.dumps(found))


def _driver() -> str:
    """Of the first NVIDIA card; another maker's goes without."""
    if not shutil.which("nvidia-smi"):
        return ""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.partition("\n")[0].strip()


def _features() -> tuple[str, ...]:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return ()
    line = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "")
    return tuple(flag for flag in _FLAGS if flag in line.split())


def _main(layer: Layer, threads: int) -> None:
    """The child: print the rates as JSON."""
    import torch

    torch.set_num_threads(threads)
    torch.set_default_device(layer.device)
    work, wait = _Work(layer), _WAIT[layer.device](torch)
    rows = max(1, min(layer.tokens, 1024) // _ROW)
    tokens = torch.randn(rows * _ROW, layer.hidden, dtype=work.dtype)
    with torch.no_grad():
        read = _median(lambda: work.forward(tokens), wait)
        decode = _median(lambda: work.forward(tokens[:1].expand(layer.sequences, -1), cached=2 * _ROW), wait)
        product = _median(lambda: torch.nn.functional.linear(tokens, work.weights[2]), wait) / tokens.shape[0]
    tokens.requires_grad_()
    train = _median(lambda: work.forward(tokens).float().sum().backward(), wait)
    unpack = 0.0
    if layer.quantized:
        fetch_no_kernels()
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        packed, state = quantize_4bit(work.weights[2], quant_type="nf4", compress_statistics=True)
        unpack = _median(lambda: dequantize_4bit(packed, state), wait) / work.weights[2].numel()
    count = tokens.shape[0]
    rates = Rates(train / count, read / count, decode, unpack, product / work.weights[2].numel())
    print(json.dumps(asdict(rates)))


def spin(looks: int = 1_000) -> None:
    """Before torch is loaded: so often a thread that waits for others looks again before it sleeps.

    To be woken takes longer than many a product, and to look takes a core from whoever else has work: beside any other
    busy program long spinning makes a step of training twenty times as slow, and never to spin makes it half as slow
    again alone (decision 7). Whoever sets OMP_WAIT_POLICY has decided.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["GOMP_SPINCOUNT"] = str(looks)


def settle(threads: int) -> None:
    """Compute with so many threads, and keep the memory that was freed.

    glibc gives a freed tensor's pages back at once, and to be given them anew takes longer than a product of matrices.
    """
    import torch

    torch.set_num_threads(threads)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        for option, size in _KEPT.items():
            mallopt(option, size)


class Yielding:
    """Call it before every piece of work: it computes with as many threads as there are cores that others leave.

    A thread waits for all of its fellows, so that one whom another program has pushed off its core costs more than it
    brings. Others are looked at every few seconds.
    """

    def __init__(self, threads: int) -> None:
        self._most = self._now = threads
        self._looked, self._ours = time.monotonic(), _left()

    def __call__(self) -> None:
        seconds = time.monotonic() - self._looked
        if seconds < _LOOKS:
            return
        try:
            now = _left()
        except (OSError, psutil.Error):  # as where too many files are open: it goes on with as many
            return
        left = (now - self._ours) / seconds
        self._looked, self._ours = time.monotonic(), now
        lately = seconds < 2 * _LOOKS  # what was long ago says nothing: whoever took a core may have left it
        threads = max(1, min(self._most, math.ceil(left - 0.5))) if lately else self._most
        if threads != self._now:
            import torch

            torch.set_num_threads(threads)
            self._now = threads


def _left() -> float:
    """Core seconds that others have left so far: those that this process took, and those that nobody did."""
    own = psutil.Process().cpu_times()
    return float(own.user + own.system + psutil.cpu_times().idle)


def fetch_no_kernels() -> None:
    """Let no library load native code that it fetches; before one is imported that would.

    bitsandbytes (on processors with AVX512-BF16, at import) and transformers (for some families) ask the optional
    package `kernels` for it, without a word, wherever that is installed.
    """
    sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]


# An accelerator's work goes on behind the call that began it.
_WAIT: dict[str, Callable[[Any], Callable[[], object]]] = {
    "cpu": lambda _: lambda: None,
    "cuda": lambda torch: torch.cuda.synchronize,
    "mps": lambda torch: torch.mps.synchronize,
}
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


def _median(work: Callable[[], object], wait: Callable[[], object]) -> float:
    """Seconds, of at most twenty timings in at most a second, after a first that nobody counts."""
    work()
    wait()
    timings: list[float] = []
    while len(timings) < 20 and sum(timings) < 1:
        begun = time.perf_counter()
        work()
        wait()
        timings.append(time.perf_counter() - begun)
    return statistics.median(timings)


if __name__ == "__main__":
    _layer, _threads = json.loads(sys.argv[1])
    _main(Layer(**_layer), _threads)
