"""What tuning cost in general skill: general text read, and general questions asked, with the adapter and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from metier.data.general import Passage
from metier.data.items import Item
from metier.data.rendering import Renderer
from metier.evaluation.answering import blank
from metier.evaluation.answers import Answer
from metier.events import Event, Listener
from metier.model.adapters import disabled
from metier.model.forward import Forward
from metier.model.loading import Base
from metier.trees import Example, Floats, TokenTree, pack

_TOKENS = 512  # read at once: two whole distributions are held for each of them


@dataclass(frozen=True)
class Beside:
    """The tuned model in `forward`, which stands on `base`, with what renders for both."""

    base: Base
    forward: Forward
    renderer: Renderer
    max_length: int


def read_general_text(beside: Beside, passages: Sequence[Passage], listen: Listener) -> list[Answer]:
    """Read each passage with and without the adapter; log-probabilities and KL(base ‖ tuned) in nats.

    A passage longer than `max_length` tokens is read in pieces; nothing of it is left out.
    """
    pieces = [beside.renderer.windows(passage.text, beside.max_length) for passage in passages]
    owner = [index for index, each in enumerate(pieces) for _ in each]
    sums = np.zeros((len(passages), 3))  # log-probability tuned, untuned; divergence
    np.add.at(sums, owner, _read(beside, [row for each in pieces for row in each], "general text", listen))
    counts = [sum(len(row.tokens) - 1 for row in each) for each in pieces]
    return [_answer(*each) for each in zip(passages, sums.tolist(), counts, strict=True)]


def ask_general_choices(beside: Beside, items: Sequence[Item], listen: Listener) -> list[Answer]:
    """Score every choice with and without the adapter, and KL(base ‖ tuned) on the prompts' own tokens, in nats.

    An item longer than `max_length` counts as failed.
    """
    rows = [[_prompt(beside.renderer, item), *beside.renderer.label_rows(item)] for item in items]
    longest = [max(len(row.tokens) for row in each) for each in rows]
    fits = [length <= beside.max_length for length in longest]
    read = _read(beside, [row for each, fit in zip(rows, fits, strict=True) if fit for row in each], "choices", listen)
    sums = iter(np.split(read, np.cumsum([len(each) for each, fit in zip(rows, fits, strict=True) if fit])[:-1]))
    answers = []
    for item, each, length, fit in zip(items, rows, longest, fits, strict=True):
        failed = "" if fit else f"has {length} tokens, max_length is {beside.max_length}"
        done = replace(blank(item, failed), kind="general")
        answers.append(_chosen(done, next(sums), len(each[0].tokens) - 1) if fit else done)
    return answers


def _prompt(renderer: Renderer, item: Item) -> Example:
    """What is asked, every token of it counted but the first."""
    ids = renderer.prompt_ids(item.asked)
    return Example(tuple(ids), (0.0, *[1.0] * (len(ids) - 1)))


def _chosen(answer: Answer, sums_R3: Floats, tokens: int) -> Answer:
    """An answer with what was read of its prompt, then of each of its labels."""
    tuned, base = (tuple(column) for column in sums_R3[1:, :2].T.tolist())
    best = max(range(len(tuned)), key=tuned.__getitem__)
    known = replace(answer, output=answer.labels[best], label_logprobs=tuned, base_label_logprobs=base)
    return replace(known, kl=float(sums_R3[0, 2]), tokens=tokens)


@torch.no_grad()
def _read(beside: Beside, rows: Sequence[Example], phase: str, listen: Listener) -> Floats:
    """For each row log-probability tuned and untuned, and KL(base ‖ tuned), summed over its targets, [R, 3]."""
    sums = np.zeros((len(rows), 3))
    done = 0
    for tree in pack(rows, _TOKENS, fork=beside.forward.forks, boundary=beside.base.boundary):
        sums[tree.rows] = np.stack([tree.row_sums(each) for each in _compared(beside.forward, tree)], axis=1)
        done += len(tree.rows)
        listen(Event(phase, done, len(rows)))
    return sums


def _compared(forward: Forward, tree: TokenTree) -> tuple[Floats, Floats, Floats]:
    """For each target of a tree: log-probability tuned and untuned, and KL(base ‖ tuned) at its query."""
    tuned_UV, place_K = forward.distributions(tree)
    with disabled(forward.network):
        base_UV, _ = forward.distributions(tree)
    divergence_U = (base_UV.exp() * (base_UV - tuned_UV)).sum(-1)
    token_K = torch.as_tensor(tree.token, device=place_K.device)
    columns = (tuned_UV[place_K, token_K], base_UV[place_K, token_K], divergence_U[place_K])
    tuned_K, base_K, divergence_K = (column.cpu().double().numpy() for column in columns)
    return tuned_K, base_K, divergence_K


def _answer(passage: Passage, sums: Sequence[float], tokens: int) -> Answer:
    tuned, base, divergence = sums
    return Answer(
        id=passage.id,
        domain="general_text",
        group=passage.id,
        kind="text",
        place=passage.place,
        prompt="",
        reference=passage.text,
        logprob=tuned,
        base_logprob=base,
        kl=divergence,
        tokens=tokens,
    )
