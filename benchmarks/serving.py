"""Serving: metier beside `transformers serve` and llama.cpp's server, in one run, as ratios.

Each gets the same base, adapters, number format (bfloat16), prompts, threads and number of answer tokens. Every round
starts the servers one after another, in another order each time, and asks each of them the same; figures are medians
over rounds. A cell is so many streams at once, all through one adapter or a quarter of them through each of four:

- metier: four runs of one base, each request names its own.
- llama.cpp: four `--lora`, each request scales its own to 1 and the others to 0; one slot a stream.
- transformers: continuous batching knows one model at a time and no adapters, so it serves each adapter merged into its
  base, four processes side by side where four are mixed. It has no cost of adapters at all.

    python benchmarks/serving.py --shape nano --llama-server PATH
    python benchmarks/serving.py --shape Qwen2.5-0.5B-Instruct --data ../shared --tokens 32 --llama-server PATH
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
from served_models import ADAPTERS, Models, make

from metier.data.items import Message
from metier.hardware import probe

_PORT = 8310
_ANSWERS = 8  # of a round, at least
_STARTS = 240.0  # seconds in which a server has to answer
_TOPICS = ["a blocked card", "a late parcel", "a cough at night", "a slow line", "a double charge", "a lost password"]
Body = Callable[[Sequence[int], str, int, int], dict[str, Any]]


@dataclass(frozen=True)
class Cell:
    """So many streams at once through so many adapters."""

    streams: int
    adapters: int

    def __str__(self) -> str:
        return f"{self.streams:>2} streams, {self.adapters} adapter{'s' if self.adapters > 1 else ' '}"


@dataclass(frozen=True)
class Served:
    """One of the servers: how it is started, by port, and what it is asked.

    `body` takes ids, their text, an adapter's number and how many tokens are wanted; `apart` where an adapter needs a
    process of its own.
    """

    name: str
    command: Callable[[int, int], Sequence[str]]  # the first adapter's number, and the port
    path: str
    body: Body
    apart: bool = False


@dataclass
class Heard:
    """What one stream heard: when its first token came, the gaps between the following ones, and how many."""

    first: float = 0.0
    gaps: list[float] = field(default_factory=list)
    tokens: int = 0


@dataclass(frozen=True)
class Result:
    """Of one cell: tokens a second in all, and a second of CPU; first token and gaps in seconds; how busy others were.

    What others take of the machine slows whoever waits for all of its threads more than it costs CPU.
    """

    rate: float
    lean: float
    first: float
    gap: float
    worst: float
    others: float


def main() -> None:
    options = _options()
    folder = options.folder.resolve() / options.shape
    models = make(options.shape, folder, data=options.data, merged=options.merged, threads=options.threads)
    cells = [
        Cell(streams, adapters) for streams in options.streams for adapters in (1, ADAPTERS) if adapters <= streams
    ]
    servers = [_metier(models), *_transformers(models, options), *_llama(models, options)]
    found: dict[tuple[str, Cell], list[Result]] = {}
    for number in range(options.rounds):
        for server in servers[number % len(servers) :] + servers[: number % len(servers)]:
            for cell, result in _round(server, models, cells, number, options):
                found.setdefault((server.name, cell), []).append(result)
                told = f"{result.rate:8.1f} tokens/s, {result.lean:8.1f} a CPU second, others {result.others:.0%}"
                print(f"# round {number + 1}, {server.name:<12} {cell}: {told}", flush=True)
    _show(options, servers, cells, found)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="nano", help="nano, or a folder of DATA/models/configs")
    parser.add_argument("--data", type=Path, help="folder of public data and models")
    parser.add_argument("--folder", type=Path, default=Path("serving-models"), help="where models are made and kept")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=64, help="of every answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every server")
    parser.add_argument("--merged", type=int, default=ADAPTERS, help="of how many adapters transformers gets a base")
    parser.add_argument("--transformers", default=shutil.which("transformers", path=Path(sys.executable).parent))
    parser.add_argument("--llama-server", default=shutil.which("llama-server"))
    return parser.parse_args()


def _metier(models: Models) -> Served:
    start = [sys.executable, "-c", "from metier.cli.main import main; main()", "serve", *map(str, models.runs)]

    def body(ids: Sequence[int], text: str, adapter: int, tokens: int) -> dict[str, Any]:
        model, usage = models.runs[adapter].name, {"include_usage": True}
        return {"model": model, "prompt": [*ids], "max_tokens": tokens, "stream": True, "stream_options": usage}

    return Served("metier", lambda _, port: [*start, "--port", str(port), "--offline"], "/v1/completions", body)


def _transformers(models: Models, options: argparse.Namespace) -> list[Served]:
    if not options.transformers or not models.merged:
        print("# transformers serve: left out, for it is not installed, or --merged is 0")
        return []
    # Blocks of 256 tokens: without a number it asks for a share of a GPU's memory.
    blocks = 2 * max(options.streams) + 16
    how = ["--continuous-batching", "--device", "cpu", "--cb-num-blocks", str(blocks), "--cb-max-batch-tokens", "512"]

    def body(ids: Sequence[int], text: str, adapter: int, tokens: int) -> dict[str, Any]:
        model = str(models.merged[adapter])
        return {"model": model, "prompt": text, "max_tokens": tokens, "temperature": 0, "stream": True}

    def command(adapter: int, port: int) -> list[str]:
        return [options.transformers, "serve", str(models.merged[adapter]), *how, "--port", str(port)]

    return [Served("transformers", command, "/v1/completions", body, apart=True)]


def _llama(models: Models, options: argparse.Namespace) -> list[Served]:
    if not options.llama_server:
        print("# llama-server: left out, for it is not on the path; --llama-server names it")
        return []
    slots, room = max(options.streams), 256 + options.tokens
    how = ["-m", str(models.base_gguf), "--lora", ",".join(map(str, models.ggufs)), "--lora-init-without-apply"]
    how += ["-np", str(slots), "-c", str(slots * room), "-t", str(options.threads)]

    def body(ids: Sequence[int], text: str, adapter: int, tokens: int) -> dict[str, Any]:
        lora = [{"id": each, "scale": float(each == adapter)} for each in range(ADAPTERS)]
        rules = {"temperature": 0, "ignore_eos": True, "stream": True}
        return {"prompt": [*ids], "n_predict": tokens, "lora": lora, **rules}

    command = [options.llama_server, *how, "--no-webui"]
    return [Served("llama.cpp", lambda _, port: [*command, "--port", str(port)], "/completion", body)]


def _round(
    server: Served, models: Models, cells: Sequence[Cell], number: int, options: argparse.Namespace
) -> Iterator[tuple[Cell, Result]]:
    """All cells of one server, which is started anew for each number of processes that it needs."""
    for processes in (1, ADAPTERS) if server.apart else (ADAPTERS,):
        own = [each for each in cells if not server.apart or each.adapters == processes]
        if (server.apart and processes > len(models.merged)) or not own:
            continue
        ports = [_PORT + each for each in range(processes if server.apart else 1)]
        with ExitStack() as running:
            children = []
            for adapter, port in enumerate(ports):
                log, threads = options.folder / f"{server.name}-{port}.log", max(1, options.threads // len(ports))
                children.append(running.enter_context(_running(server.command(adapter, port), port, threads, log)))
            for cell in own:
                asyncio.run(_burst(server, models, cell, number=-1, tokens=4, ports=ports))  # warms up
                measured = partial(_bursts, server, models, cell, number=number, tokens=options.tokens, ports=ports)
                yield cell, _metered(measured, children)


def _metered(burst: Callable[[], Coroutine[Any, Any, Result]], children: Sequence[psutil.Process]) -> Result:
    """With what its servers took of the processors, and others beside them."""
    own, before, begun = _taken(children), psutil.cpu_times(), time.perf_counter()
    result = asyncio.run(burst())
    seconds, own, after = time.perf_counter() - begun, _taken(children) - own, psutil.cpu_times()
    room = (psutil.cpu_count() or 1) * seconds
    busy = room - (after.idle - before.idle) - (after.iowait - before.iowait)
    return replace(result, lean=result.rate * seconds / own, others=max(0.0, busy - own) / room)


def _taken(children: Sequence[psutil.Process]) -> float:
    """CPU seconds, those of their own children too."""
    whole = [each for child in children for each in (child, *child.children(recursive=True))]
    return float(sum(each.cpu_times().user + each.cpu_times().system for each in whole))


@contextmanager
def _running(command: Sequence[str], port: int, threads: int, log: Path) -> Iterator[psutil.Process]:
    """A server until it is left."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    with log.open("wb") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=log.parent)
        try:
            _wait(child, port, log)
            yield psutil.Process(child.pid)
        finally:
            child.terminate()
            try:
                child.wait(40)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _wait(child: subprocess.Popen[bytes], port: int, log: Path) -> None:
    begun = time.monotonic()
    while time.monotonic() - begun < _STARTS and child.poll() is None:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"{log}: the server did not start\n{log.read_text(errors='replace')[-2000:]}")


async def _bursts(
    server: Served, models: Models, cell: Cell, *, number: int, tokens: int, ports: Sequence[int]
) -> Result:
    """Few streams are asked again and again, one burst after another, or CPU time would be too coarse for them."""
    again = max(1, _ANSWERS // cell.streams)
    heard, seconds = list[Heard](), 0.0
    for each in range(again):
        more, longer = await _burst(server, models, cell, number=number * again + each, tokens=tokens, ports=ports)
        heard, seconds = [*heard, *more], seconds + longer
    gaps = sorted(gap for each in heard for gap in each.gaps) or [0.0]
    firsts = sorted(each.first for each in heard)
    rate = sum(each.tokens for each in heard) / seconds
    return Result(rate, 0.0, _high(firsts), statistics.median(gaps), _high(gaps), 0.0)


async def _burst(
    server: Served, models: Models, cell: Cell, *, number: int, tokens: int, ports: Sequence[int]
) -> tuple[list[Heard], float]:
    """All streams at once, each asked once, and the seconds; raises where an answer has another length."""
    renderer, begun = models.renderer, time.perf_counter()
    asked = []
    for stream in range(cell.streams):
        adapter = stream % cell.adapters
        says = [Message("user", _question(f"{number}.{cell.streams}.{cell.adapters}.{stream}", stream))]
        body = server.body(renderer.prompt_ids(says), renderer.text(says), adapter, tokens)
        asked.append(_ask(ports[adapter if server.apart else 0], server.path, body))
    begun = time.perf_counter()
    heard = await asyncio.gather(*asked)
    seconds = time.perf_counter() - begun
    if short := [each.tokens for each in heard if each.tokens != tokens]:
        raise SystemExit(f"{server.name}: answers of {short} tokens where {tokens} were asked for")
    return heard, seconds


def _high(ordered: Sequence[float]) -> float:
    """The 99th percentile."""
    return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]


def _question(name: str, stream: int) -> str:
    """Some sixty tokens, no two questions alike, so that nothing is answered out of a cache but the template."""
    topic = _TOPICS[stream % len(_TOPICS)]
    return f"Case {name}. I wrote to you about {topic} last week and nobody has answered me. What should I do now?"


async def _ask(port: int, path: str, body: dict[str, Any]) -> Heard:
    """Server-sent events, read by hand so that the client takes little of the cores that are measured."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    heard, begun = Heard(), time.perf_counter()
    last = begun
    async for line in reader:
        if line.startswith(b"HTTP/1.1 ") and b" 200 " not in line:
            raise SystemExit(f"{path}: {line!r} {await reader.read(2000)!r}")
        if not line.startswith(b"data: {"):
            continue
        now, event = time.perf_counter(), json.loads(line[6:])
        if _text(event):
            if heard.first:
                heard.gaps.append(now - last)
            else:
                heard.first = now - begun
            last = now
        heard.tokens = _count(event) or heard.tokens
    writer.close()
    return heard


def _text(event: dict[str, Any]) -> str:
    choices: Any = event.get("choices") or [{}]
    text: str = event.get("content") or choices[0].get("text") or ""
    return text


def _count(event: dict[str, Any]) -> int:
    """How many tokens were said in all, where the event tells."""
    told = (event.get("usage") or {}).get("completion_tokens") or (event.get("stop") and event.get("tokens_predicted"))
    return int(told or 0)


def _show(
    options: argparse.Namespace,
    servers: Sequence[Served],
    cells: Sequence[Cell],
    found: dict[tuple[str, Cell], list[Result]],
) -> None:
    hardware = probe()
    print(f"\n{options.shape}, bfloat16, {options.tokens} tokens an answer, medians of {options.rounds} rounds")
    print(f"{hardware.system}, {hardware.cores} cores, {options.threads} threads each, torch {version('torch')}")
    print(f"metier {version('metier')}, {_peers(options)}; others on the machine took {_others(found):.0%} of it")
    head = f"{'tokens/s':>9} {'a CPU s':>8} {'first p99':>10} {'gap p50':>8} {'gap p99':>8}"
    print(f"{'':<22} {'server':<12} {head}  metier is")
    for cell in cells:
        ours = _median(found["metier", cell])
        for server in servers:
            if not (results := found.get((server.name, cell))):
                continue
            one = _median(results)
            ratio = f"{ours.rate / one.rate:6.2f} times as fast, {ours.lean / one.lean:6.2f} by CPU"
            times = f"{one.first:9.2f}s {one.gap * 1e3:6.0f}ms {one.worst * 1e3:6.0f}ms"
            told = f"{cell!s:<22} {server.name:<12} {one.rate:9.1f} {one.lean:8.1f} {times}"
            print(told if server.name == "metier" else f"{told}  {ratio}")


def _median(results: Sequence[Result]) -> Result:
    return Result(*(statistics.median(getattr(each, one.name) for each in results) for one in fields(Result)))


def _others(found: dict[tuple[str, Cell], list[Result]]) -> float:
    return statistics.mean(each.others for results in found.values() for each in results)


def _peers(options: argparse.Namespace) -> str:
    told = [f"transformers {version('transformers')}"]
    if options.llama_server:
        answer = subprocess.run([options.llama_server, "--version"], capture_output=True, text=True, check=False)
        told.append(
            "llama.cpp " + next(iter((answer.stdout + answer.stderr).splitlines()), "?").removeprefix("version: ")
        )
    return ", ".join(told)


if __name__ == "__main__":
    main()
