"""The memory that a job takes, phase by phase: pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

GIB = 1 << 30
# Bytes a parameter: NF4 with double quantisation keeps 4 bits and one 8-bit scale for 64 values.
BYTES = {"nf4": 0.5 + 1 / 64, "int8": 1.0, "float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
_PYTHON = int(0.55 * GIB)  # interpreter, torch, transformers, PEFT and scikit-learn, measured after importing them
_SLACK = 1.3  # of activations: what the backward pass and the allocator hold beside them, measured (docs/log.md)
_KERNELS = 300 << 20  # code that oneDNN compiles and keeps for every length of a bfloat16 product (decision 4)
_GENERAL = 512  # tokens of general text read at once: two whole distributions each, and what compares them
_COMPARED = 5  # float32 copies of the vocabulary for each


@dataclass(frozen=True)
class Shape:
    """What planning knows of a job, in plain numbers.

    Of the base: parameters, those in linear layers, layers, widths, vocabulary, bytes of its files. Of
    the data: training examples, tokens and targets of one epoch, the distinct tokens of an epoch and of
    the largest step, the longest row, the longest pair that is read at once, held-out and validation items to
    be decoded and scored, tokens of general text, and how long a trained answer may be, 0 where none is trained.
    """

    parameters: int
    linear_parameters: int
    file_bytes: int
    layers: int
    hidden: int
    intermediate: int
    cache_width: int  # key and value numbers a layer keeps for one position
    vocabulary: int
    context: int
    forks: bool
    why_rows: str
    examples: int
    packed_tokens: int
    row_tokens: int
    targets: int
    longest_row: int
    longest_unit: int
    largest_step: int
    general_tokens: int
    decoded_items: int
    scored_tokens: int
    validation_items: int
    validation_tokens: int = 0
    answer_tokens: int = 0
    compared_tokens: int = 0  # of an epoch, on which whole distributions are compared with the base's
    replay_items: int = 0  # prompts that the untuned base answers in front of training
    trainable: int = 0
    frozen: int = 0  # of adapters that do not move: one made elsewhere, or what PiSSA and OLoRA begin with
    why_kept: str = ""  # why activations cannot be recomputed
    foreign: bool = False  # whether an adapter made elsewhere is measured
    whole: bool = False  # whether whole modules of the base move

    @property
    def unreached(self) -> int:
        """Weights in neither linear layers nor embeddings: small norms, and a mixture's experts."""
        return self.parameters - self.linear_parameters - 2 * self.vocabulary * self.hidden


class Means(Protocol):
    """The choices of a plan on which memory depends."""

    @property
    def device(self) -> str: ...
    @property
    def storage(self) -> str: ...
    @property
    def compute(self) -> str: ...
    @property
    def tokens_per_batch(self) -> int: ...
    @property
    def checkpointing(self) -> bool: ...
    @property
    def sequences(self) -> int: ...


def held(means: Means, shape: Shape) -> dict[str, int]:
    """What stays from the first step to the last, in bytes by purpose."""
    width = BYTES[means.compute]
    rest = (shape.parameters - shape.linear_parameters) * width
    return {
        "libraries": 0 if beside(means) else _PYTHON,
        "compiled kernels": _KERNELS if means.device == "cpu" and means.compute != "float32" else 0,
        "weights": int(shape.linear_parameters * BYTES[means.storage] + rest),
        # Float32 with AdamW's two moments; whole modules have a copy in the compute format beside it.
        "what moves, optimizer": int((12 + width * (shape.whole and width < 4)) * shape.trainable),
        "frozen adapter": 4 * shape.frozen,
        "best so far": int((width if shape.whole else 4) * shape.trainable),
    }


def beside(means: Means) -> dict[str, int]:
    """What the host holds where a card has memory of its own; a Mac's graphics unit shares the machine's."""
    return {"libraries": _PYTHON} if means.device == "cuda" else {}


def phases(means: Means, shape: Shape, max_new_tokens: int) -> dict[str, dict[str, int]]:
    """What each phase of a run needs on top of that; the largest makes the peak."""
    answers = _answers(means, shape, max_new_tokens)
    # Mapped only until the weights are read, when nothing moves yet.
    later = held(means, shape)["what moves, optimizer"] + held(means, shape)["best so far"]
    mapped = 0 if beside(means) else max(0, shape.file_bytes - later)
    found = {"loading": {"weight files": mapped}, "answers": answers}
    general = {"whole distributions": 4 * _COMPARED * _GENERAL * shape.vocabulary}
    if not shape.trainable:
        return {**found, "general text": general} if shape.foreign else found
    checkpoint = {"file, twice over": 8 * shape.trainable}  # measured; one kind of tensor at a time
    return {**found, "training": _training(means, shape), "checkpoint": checkpoint, "general text": general}


def _training(means: Means, shape: Shape) -> dict[str, int]:
    width = BYTES[means.compute]
    tokens = min(means.tokens_per_batch, max(shape.largest_step, 1))
    # Kept for the backward pass, a layer and token: inputs of norms, attention and MLP in the compute
    # format, and the float32 copies that float32 adapters work on.
    layer = _layer(width, shape) + 12 * shape.hidden + 8 * shape.intermediate
    kept = shape.layers * (shape.hidden * width if means.checkpointing else layer) + layer
    targets = min(tokens, max(1, round(tokens * shape.targets / max(1, shape.packed_tokens))))
    compared = min(_GENERAL, shape.compared_tokens)
    return {
        "gradients": 4 * shape.trainable,
        "activations": int(_SLACK * tokens * kept),
        "logits": 4 * shape.vocabulary * max(3 * targets, _COMPARED * compared),
    }


def _answers(means: Means, shape: Shape, max_new_tokens: int) -> dict[str, int]:
    """Prompts are read, replies scored, and open answers decoded in one cache of the longest."""
    width = BYTES[means.compute]
    reading = means.tokens_per_batch * _layer(width, shape)
    scoring = 2 * 4 * shape.vocabulary * means.tokens_per_batch * min(1.0, shape.targets / max(1, shape.packed_tokens))
    if not shape.decoded_items:
        return {"reading": int(reading), "scoring": int(scoring)}
    position = shape.layers * shape.cache_width * width
    longest = min(shape.context, shape.longest_row + max_new_tokens)
    sequences = min(means.sequences, shape.decoded_items)
    return {
        "reading": int(reading + means.tokens_per_batch * position),  # whose keys and values go into the cache
        "scoring": int(max(scoring, 2 * 4 * shape.vocabulary * sequences)),
        "decoding cache": int(sequences * longest * position),
    }


def _layer(width: float, shape: Shape) -> float:
    """A layer's activations for a token, in bytes."""
    return width * (10 * shape.hidden + 4 * shape.intermediate)


def peak(means: Means, shape: Shape, max_new_tokens: int) -> tuple[str, Mapping[str, int]]:
    """The phase that needs the most, and all that is held in it."""
    needed = phases(means, shape, max_new_tokens)
    largest = max(needed, key=lambda name: sum(needed[name].values()))
    return largest, held(means, shape) | needed[largest]
