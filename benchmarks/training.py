"""Training: metier's token trees beside a plain PEFT loop over packed rows, in one run, as a ratio.

The peer is what TRL's `bfd` packing amounts to: rows laid end to end up to a number of tokens, told apart
by `position_ids` (no mask, no cache, sdpa), labels of -100 outside the answers. It gets the same base,
adapter, number format, rows and threads, its rows in its best order, and the best of several packing
lengths. Both do forward, backward and an AdamW step; times are medians over whole passes.

    python benchmarks/training.py --data ../shared --quick
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from metier.hardware import probe
from metier.job import Job, prepare
from metier.model.adapters import attach, trainable
from metier.model.loading import NumberFormat, load
from metier.recipe import Recipe
from metier.strategies import LoraStrategy
from metier.training.objectives import accumulate
from metier.trees import Example, pack

_RECIPE = Path(__file__).parents[1] / "src" / "metier" / "assets" / "recipes" / "care.toml"
_PEER_LENGTHS = (1024, 2048, 4096)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of public data and models")
    parser.add_argument("--quick", action="store_true", help="a tenth of an epoch, two passes")
    parser.add_argument("--compute", choices=("float32", "bfloat16"), help="number format; by default the plan's")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    hardware = probe()
    compute = options.compute or ("bfloat16" if hardware.fast_bf16 else "float32")
    torch.set_num_threads(hardware.cores)
    job = _job(options.data)
    rows = [row for step in job.steps()[: 12 if options.quick else 60] for unit in step for row in unit.rows]
    passes = 2 if options.quick else 5
    ours = _ours(job, compute, rows)
    peers = {length: _peer(job, compute, rows, length) for length in _PEER_LENGTHS}
    timed = _alternate([ours, *peers.values()], passes)
    best = min(timed[1:])
    length = _PEER_LENGTHS[timed[1:].index(best)]
    tokens = sum(len(row.tokens) for row in rows)
    print(f"{hardware.system}, {hardware.cores} cores, {compute}, nano, {len(rows)} CARE rows, {tokens} tokens")
    print(f"metier, token trees        {timed[0]:7.2f} s  {tokens / timed[0]:7.0f} row tokens/s")
    print(f"PEFT, packed to {length:<10} {best:7.2f} s  {tokens / best:7.0f} row tokens/s")
    print(f"ratio {best / timed[0]:.2f} (above 1: metier is faster)")


def _job(data: Path) -> Job:
    root = str((data / "data").resolve())
    return prepare(Recipe.load(_RECIPE, {"data_root": root, "strategy": {"method": "lora"}}))


def _strategy(job: Job) -> LoraStrategy:
    assert isinstance(job.recipe.strategy, LoraStrategy)
    return job.recipe.strategy


def _ours(job: Job, compute: str, rows: Sequence[Example]) -> Callable[[], None]:
    base = load(
        job.source.directory, NumberFormat(compute, compute), "cpu", multiple=64 if compute == "bfloat16" else 1
    )
    adapted, _ = attach(base.network, _strategy(job), seed=0)
    forward = base.forward.over(adapted.train())
    optimizer = torch.optim.AdamW(trainable(adapted).values(), lr=1e-4)
    steps = [rows[start : start + 16] for start in range(0, len(rows), 16)]

    def one_pass() -> None:
        for step in steps:
            accumulate(forward, pack(step, 2048))
            optimizer.step()
            optimizer.zero_grad()

    return one_pass


def _peer(job: Job, compute: str, rows: Sequence[Example], length: int) -> Callable[[], None]:
    network = AutoModelForCausalLM.from_pretrained(
        job.source.directory, dtype=getattr(torch, compute), attn_implementation="sdpa"
    )
    adapted, _ = attach(network.requires_grad_(False), _strategy(job), seed=0)
    adapted.train()
    optimizer = torch.optim.AdamW(trainable(adapted).values(), lr=1e-4)
    batches = [_packed(bin_) for bin_ in _best_fit(rows, length)]

    def one_pass() -> None:
        for tokens, positions, labels in batches:
            adapted(input_ids=tokens, position_ids=positions, labels=labels, use_cache=False).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return one_pass


def _best_fit(rows: Sequence[Example], length: int) -> list[list[Example]]:
    """Best-fit decreasing: each row into the fullest bin that has room."""
    bins: list[list[Example]] = []
    used: list[int] = []
    for row in sorted(rows, key=lambda row: -len(row.tokens)):
        room = [index for index, full in enumerate(used) if full + len(row.tokens) <= length]
        if room:
            index = max(room, key=used.__getitem__)
            bins[index].append(row)
            used[index] += len(row.tokens)
        else:
            bins.append([row])
            used.append(len(row.tokens))
    return bins


def _packed(rows: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    tokens = [token for row in rows for token in row.tokens]
    positions = [place for row in rows for place in range(len(row.tokens))]
    pairs = [(token, weight) for row in rows for token, weight in zip(row.tokens, row.weights, strict=True)]
    labels = [token if weight else -100 for token, weight in pairs]
    return torch.tensor([tokens]), torch.tensor([positions]), torch.tensor([labels])


def _alternate(contenders: Sequence[Callable[[], None]], passes: int) -> list[float]:
    """Median seconds of each, turn by turn, so that a disturbance hits all alike; the first pass warms up."""
    timings: list[list[float]] = [[] for _ in contenders]
    for number in range(passes + 1):
        for contender, own in zip(contenders, timings, strict=True):
            begun = time.perf_counter()
            contender()
            if number:
                own.append(time.perf_counter() - begun)
    return [statistics.median(own) for own in timings]


if __name__ == "__main__":
    main()
