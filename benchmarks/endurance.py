"""Serving for long: a thousand requests at once, ten thousand answers of mixed adapters, and the memory that it takes.

The runs are served in float32, where no batch may change an answer: every answer is compared with what was said to
the same request alone, and where one differs, with how near the two likeliest tokens were. Memory is the server's
resident set, told by thirds of the time. It ends with 1, and says why, where an answer differs or fails, fewer requests
share a step than are promised, or the memory still grows in the last third.

    python benchmarks/endurance.py runs/lora-… runs/lora-… --answers 10000 --minutes 30
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import psutil

_NEAR = 1e-3  # nats between the two likeliest tokens: either may be taken
_TOKENS = 12
_STREAMS = 48
_TOGETHER = 6  # requests that share a step, in the mean
_GROWTH = 1.03  # of the last third's memory, to the one before: the first third warms up
_QUESTIONS = (
    "My card was swallowed by the machine, what now?",
    "How long does delivery take?",
    "I have had a headache since Monday.",
    "My internet is slow in the evening.",
    "Can I change my tariff?",
    "Shares of the company fell after the report.",
    "Where is my parcel {n}?",
    "I was charged {n} pounds twice.",
)


@dataclass
class Watched:
    """What was seen of the server from outside: steps, the answers that they went on with, bytes that it holds."""

    steps: list[float] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)

    @property
    def together(self) -> float:
        """How many requests shared a step, in the mean."""
        return (self.turns[-1] - self.turns[0]) / max(1, self.steps[-1] - self.steps[0])

    @property
    def thirds(self) -> list[list[int]]:
        third = len(self.resident) // 3
        return [self.resident[:third], self.resident[third : 2 * third], self.resident[2 * third :]]

    def faults(self, outcome: Counter[str]) -> list[str]:
        """What was promised and is not so."""
        _, middle, last = (statistics.mean(each) for each in self.thirds)
        found = {
            f"{outcome['differs']} answers differ from those alone": outcome["differs"] > 0,
            f"{outcome['error']} requests failed": outcome["error"] > 0,
            f"{self.together:.1f} requests share a step; {_TOGETHER} are promised": self.together < _TOGETHER,
            f"memory grew by {last / middle - 1:.1%} from the middle third to the last": last > _GROWTH * middle,
        }
        return [sentence for sentence, wrong in found.items() if wrong]


@dataclass(frozen=True)
class Asked:
    model: str
    question: str

    @property
    def body(self) -> dict[str, Any]:
        messages = [{"role": "system", "content": "Help."}, {"role": "user", "content": self.question}]
        return {"model": self.model, "messages": messages, "max_tokens": _TOKENS, "logprobs": True, "top_logprobs": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="finished runs of one base")
    parser.add_argument("--answers", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        names = [_in_float32(run, Path(folder)) for run in options.runs]
        with _server(names, Path(folder)) as (process, url):
            served = [each.name for each in names]
            asyncio.run(_all(psutil.Process(process.pid), url, served, options.answers, options.minutes))


async def _all(process: psutil.Process, url: str, names: Sequence[str], answers: int, minutes: float) -> None:
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=600) as client:
        models = [each async for each in client.models.list()]
        bases = [each.id for each in models if each.id != "auto" and not (each.model_extra or {})["parent"]]
        runs = [*bases, *names]
        asked = [Asked(model, text.format(n=n)) for model in runs for n in range(12) for text in _QUESTIONS]
        asked = list(dict.fromkeys(asked))
        print(f"{len(runs)} models, {len(asked)} different requests")
        alone = {each: await _answer(client, each) for each in asked}
        faults = await _crowd(client, asked)
        outcome, watched = await _long(client, process, alone, answers, minutes)
    _tell(watched)
    if faults := [*faults, *watched.faults(outcome)]:
        raise SystemExit("\n".join(faults))


async def _answer(client: openai.AsyncOpenAI, asked: Asked) -> list[tuple[str, float]]:
    """Its tokens, each with how far behind the next likeliest was."""
    answer = await client.chat.completions.create(**asked.body)
    told = answer.choices[0].logprobs
    content = (told.content or []) if told else []
    return [(each.token, each.top_logprobs[0].logprob - each.top_logprobs[1].logprob) for each in content]


async def _crowd(client: openai.AsyncOpenAI, asked: Sequence[Asked]) -> list[str]:
    """A thousand at once: each is answered, or told to come again; else what was not so."""

    async def one(each: Asked) -> int:
        try:
            await client.chat.completions.create(**each.body)
        except openai.APIStatusError as error:
            return error.status_code
        except openai.APIConnectionError:
            return 0
        return 200

    begun = time.monotonic()
    statuses = Counter(await asyncio.gather(*(one(asked[n % len(asked)]) for n in range(1000))))
    print(f"1,000 at once: {dict(statuses)} in {time.monotonic() - begun:.1f} s")
    strange = sum(count for status, count in statuses.items() if status not in (200, 429, 503))
    return [f"of 1,000 at once {strange} were neither answered nor told to come again"] if strange else []


async def _long(
    client: openai.AsyncOpenAI,
    process: psutil.Process,
    alone: dict[Asked, list[tuple[str, float]]],
    answers: int,
    minutes: float,
) -> tuple[Counter[str], Watched]:
    """Answers of all models mixed, as many and as long as was asked for."""
    chance, watched = random.Random(0), Watched()
    begun, outcome = time.monotonic(), Counter[str]()

    async def stream() -> None:
        while outcome.total() < answers or time.monotonic() - begun < minutes * 60:
            asked = chance.choice([*alone])
            try:
                outcome[_compared(await _answer(client, asked), alone[asked])] += 1
            except openai.APIError:
                outcome["error"] += 1
                await asyncio.sleep(1)  # or a server that is gone would be asked as fast as it refuses

    watching = asyncio.create_task(_watch(client, process, watched))
    await asyncio.gather(*(stream() for _ in range(_STREAMS)))
    watching.cancel()
    print(f"{outcome.total():,} answers in {time.monotonic() - begun:.0f} s: {dict(outcome)}")
    return outcome, watched


def _tell(watched: Watched) -> None:
    print(f"mean of requests that share a step {watched.together:.1f}")
    print("resident MiB by thirds, mean and most: ", end="")
    print(", ".join(f"{statistics.mean(each) / 2**20:.0f} ({max(each) / 2**20:.0f})" for each in watched.thirds))


def _compared(said: Sequence[tuple[str, float]], alone: Sequence[tuple[str, float]]) -> str:
    for (one, _), (two, gap) in zip(said, alone, strict=False):
        if one != two:
            return "near tie" if gap < _NEAR else "differs"
    return "equal" if len(said) == len(alone) else "differs"


async def _watch(client: openai.AsyncOpenAI, process: psutil.Process, watched: Watched) -> None:
    while True:
        text = await client.get("/../metrics", cast_to=str)
        told = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        for name, seen in (("metier_steps_total", watched.steps), ("metier_turns_total", watched.turns)):
            seen.append(sum(float(value) for key, value in told.items() if key.startswith(name)))
        watched.resident.append(process.memory_info().rss)
        await asyncio.sleep(0.5)


def _in_float32(run: Path, folder: Path) -> Path:
    """A copy of a run that is served in float32."""
    made = folder / "runs" / run.name
    shutil.copytree(run, made)
    plan = json.loads((made / "plan.json").read_text(encoding="utf-8"))
    plan |= {"storage": "float32", "compute": "float32", "pad_to": 1}
    (made / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    return made


@contextmanager
def _server(runs: Sequence[Path], folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "metier.cli.main", "serve", *map(str, runs), "--port", str(port), "--offline"]
    with subprocess.Popen(command, cwd=folder) as process:
        try:
            _until_it_answers(port, process)
            yield process, f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def _until_it_answers(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise SystemExit("the server did not start")


if __name__ == "__main__":
    main()
