"""A job → the answers of an endpoint, each kept as it comes, with what they took and cost."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from metier.data.items import Item
from metier.errors import RunError
from metier.evaluation.baseline import UNANSWERED
from metier.evaluation.programs import keep_answers
from metier.evaluation.prompted import answered, messages
from metier.events import Event
from metier.files import digest
from metier.inference.endpoint import Endpoint
from metier.inference.journal import Journal, Reply
from metier.job import Job
from metier.planning import ANSWERS
from metier.run import Run
from metier.strategies import Endpoint as Strategy
from metier.strategies import Price
from metier.tuning import Means, write_shown


def items_of(job: Job) -> list[Item]:
    """The held-out items that ask for an answer. Raises `RunError` where there are none."""
    found = [item for item in job.heldout if item.kind not in UNANSWERED]
    if not found:
        problem = "endpoint: the data asks for no answers, and an endpoint can do nothing else"
        raise RunError(problem, "choose another strategy.method, such as none or lora")
    return found


def answer_remotely(run: Run, job: Job, means: Means) -> dict[str, Any]:
    """Answer every item out of the journal, for which what it lacks is asked before; returns what was measured.

    What failed is asked again. Raises `RunError` where the endpoint does not answer or, offline, something is missing.
    """
    strategy = job.recipe.strategy
    assert isinstance(strategy, Strategy)
    endpoint = Endpoint(strategy.url, strategy.model, strategy.api_key_env, strategy.concurrency)
    items = items_of(job)
    requests = [endpoint.request(messages(item), job.recipe.eval.max_new_tokens) for item in items]
    distinct = list({digest(request): request for request in requests}.values())
    journal = Journal(run.directory / "journal.jsonl")
    if wanted := journal.missing(distinct, offline=means.offline):
        known = len(distinct) - len(wanted)
        endpoint.ask(wanted, journal, lambda done: means.listen(Event("endpoint", known + done, len(distinct))))
    answers = [answered(*each) for each in zip(items, map(journal.reply, requests), strict=True)]
    keep_answers(run, answers, means.listen)
    write_shown(run, job)
    counts = {"asked": len(wanted), "replayed": len(distinct) - len(wanted)}
    return counts | measure([journal.reply(request) for request in distinct], strategy.price_per_million)


def measure(replies: Sequence[Reply], price: Price | None) -> dict[str, Any]:
    """What replies took: seconds of waiting for one answer, tokens as the endpoint counts them, their price.

    The same whether they were asked for now or replayed. None is what the endpoint or the recipe does not tell.
    """
    given = [reply for reply in replies if not reply.failed]
    seconds = [reply.seconds for reply in given]
    read, written = (_total([getattr(reply, side) for reply in given]) for side in ("tokens_in", "tokens_out"))
    cost = None
    if given and price and read is not None and written is not None:
        cost = (read * price.input + written * price.output) / 1e6 / len(given) * 1000
    return {
        "answers": len(given),
        "failed": len(replies) - len(given),
        "attempts": sum(reply.attempts for reply in replies),
        "seconds": {ANSWERS: sum(seconds)},
        "seconds_per_answer": fmean(seconds) if given else None,
        "seconds_per_answer_p95": float(np.quantile(seconds, 0.95)) if given else None,
        "tokens_in": read,
        "tokens_out": written,
        "price_per_1000": cost,
    }


def _total(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
