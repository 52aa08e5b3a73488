"""What the server tells of itself for Prometheus; counts and times only, nothing of what is asked or said."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from metier.web.desk import Desk

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Meters:
    """Of one server."""

    def __init__(self, desk: Desk) -> None:
        self._registry = CollectorRegistry()
        how: dict[str, Any] = {"registry": self._registry}
        self._asked = Counter("metier_requests", "Answers that were asked for", ["model", "path"], **how)
        self._tokens = Counter("metier_tokens", "Tokens read and said, of whole answers", ["model", "kind"], **how)
        self._first = Histogram("metier_first_token_seconds", "Until the first piece", buckets=_SECONDS, **how)
        self._whole = Histogram("metier_answer_seconds", "Until the answer is whole", buckets=_SECONDS, **how)
        self._registry.register(_Load(desk))

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def asked(self, model: str, path: str) -> None:
        self._asked.labels(model, path).inc()

    def told(self, model: str, usage: dict[str, int], since: float | None) -> None:
        """A whole answer that was asked for at a time of `time.monotonic`; None where no model was asked."""
        self._count(model, usage)
        _observe(self._whole, since)

    async def timed(
        self, model: str, chunks: AsyncGenerator[dict[str, Any]], since: float | None, *, tells_usage: bool
    ) -> AsyncGenerator[dict[str, Any]]:
        """The same chunks, watched; without the last one, of what was used, where nobody asked for that."""
        first = True
        async for chunk in chunks:
            if first and _says(chunk):
                _observe(self._first, since)
                first = False
            if not chunk["choices"]:
                self._count(model, chunk["usage"])
            if chunk["choices"] or tells_usage:
                yield chunk
        _observe(self._whole, since)

    def _count(self, model: str, usage: dict[str, int]) -> None:
        for kind in ("prompt", "completion"):
            self._tokens.labels(model, kind).inc(usage[f"{kind}_tokens"])


def _observe(times: Histogram, since: float | None) -> None:
    if since is not None:
        times.observe(time.monotonic() - since)


def _says(chunk: dict[str, Any]) -> bool:
    """Whether there is text in it, and not only who speaks."""
    return any(each.get("text") or each.get("delta", {}).get("content") for each in chunk["choices"])


class _Load:
    """Read when it is asked for."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def collect(self) -> Iterator[Metric]:
        decoding = GaugeMetricFamily("metier_decoding", "Requests that decode", labels=["base"])
        waiting = GaugeMetricFamily("metier_waiting", "Requests that wait", labels=["base"])
        steps = CounterMetricFamily("metier_steps", "Steps that said something", labels=["base"])
        turns = CounterMetricFamily("metier_turns", "Answers that these steps went on with", labels=["base"])
        said = CounterMetricFamily("metier_said_tokens", "Tokens that these steps said", labels=["base"])
        families: tuple[GaugeMetricFamily | CounterMetricFamily, ...] = (decoding, waiting, steps, turns, said)
        for base in dict.fromkeys(ground.model for ground in self._desk.voices.grounds):
            workers = [each.worker for each in self._desk.voices.grounds if each.model == base]
            told = np.sum([(*each.load, *each.done) for each in workers], axis=0)
            for family, count in zip(families, told.tolist(), strict=True):
                family.add_metric([base], count)
        yield from families
