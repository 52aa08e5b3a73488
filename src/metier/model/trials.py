"""A strategy tried on a small random twin of the base before any weight is read: measured, not listed."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.utils import logging as vendor_logging

from metier.data.classes import Head
from metier.errors import Fault, RecipeError
from metier.model.adapters import Kind, attach, reached_by_lora, trainable
from metier.model.blocks import check_blocks, everywhere, names_some
from metier.model.forward import ATTENTION, Forward, register
from metier.model.heads import WHOLE, EncoderForward, network_of, put_outputs
from metier.model.loading import boundary, probe, probe_rows, random_network, row_logprob, sees_ahead, twin
from metier.model.methods import said
from metier.strategies import HeadOnly, LoraStrategy, PeftStrategy, QloraStrategy, Tuned
from metier.trees import pack

_TOLERANCE = 1e-3
_FAILURES = (NotImplementedError, TypeError, ValueError, RuntimeError, AttributeError, LookupError, UserWarning)


@dataclass(frozen=True)
class Trial:
    """Why rows must run alone, and why activations cannot be recomputed; "" where they need not and can."""

    why_rows: str = ""
    why_kept: str = ""


def tried(config: PreTrainedConfig, strategy: Tuned, head: Head | None = None) -> Trial:
    """Run a small twin with something random in all that moves: rows alone in plain transformers, the same
    rows as trees, and their gradients with activations recomputed.

    A strategy for some blocks is tried on the same kinds of modules in every block. Raises `RecipeError` where PEFT
    cannot run the strategy at all, where it names blocks that are not there, or where a token sees those behind it.
    """
    encoder = head is not None and head.encoder
    if isinstance(strategy, LoraStrategy | QloraStrategy) and not encoder:
        _check_blocks(config, strategy, head)
        return Trial()  # proven once and for all, by tests
    register()
    vendor_logging.set_verbosity_error()
    strategy = _in_every_block(config, strategy, head)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        small = twin(config)
        small.intermediate_size = small.hidden_size  # widths that divide as the base's own do
        if encoder:
            proven = isinstance(strategy, LoraStrategy | QloraStrategy)  # the reading alone is tried
            return _read_whole(small, HeadOnly(method="head", objective="classify") if proven else strategy)
        network = random_network(small, "eager")
        adapted, _ = attach(put_outputs(network, small.vocab_size) if head else network, strategy, seed=0)
        return _measured(adapted.eval(), strategy, boundary(small))


def why_rows(config: PreTrainedConfig, strategy: object, head: Head | None = None) -> str:
    """Why rows must run alone on this base under this strategy, or ""."""
    return probe(config) or (tried(config, strategy, head).why_rows if isinstance(strategy, Tuned) else "")


def count(config: PreTrainedConfig, strategy: Tuned, head: Head | None = None) -> list[Kind]:
    """What `attach` would train, found on the meta device: no weight is read."""
    try:
        return _on_meta(config, strategy, head)
    except (NotImplementedError, RuntimeError):  # some methods look at numbers while they are put on
        return _extrapolated(config, strategy, head)


def _on_meta(config: PreTrainedConfig, strategy: Tuned, head: Head | None) -> list[Kind]:
    with torch.device("meta"):
        return attach(network_of(config, head), strategy, seed=0)[1]


def _extrapolated(config: PreTrainedConfig, strategy: Tuned, head: Head | None) -> list[Kind]:
    """The same from random networks of one and of two blocks of the base's own widths."""
    reached = _reached(config, strategy, head) if names_some(strategy) else {}
    strategy = _in_every_block(config, strategy, head)
    one, two = (attach(_blocks(config, number, head), strategy, seed=0)[1] for number in (1, 2))
    all_layers = config.num_hidden_layers - 1

    def grown(first: Kind, second: Kind) -> Kind:
        a_block = second.adapted - first.adapted
        in_all = first.adapted + all_layers * a_block
        adapted = reached.get(first.name, in_all) if a_block else first.adapted
        more = (adapted - first.adapted) / a_block if a_block else all_layers
        return Kind(
            first.name,
            first.layers + all_layers * (second.layers - first.layers),
            adapted,
            first.parameters + round(more * (second.parameters - first.parameters)),
        )

    return [grown(first, second) for first, second in zip(one, two, strict=True)]


def _in_every_block(config: PreTrainedConfig, strategy: Tuned, head: Head | None) -> Tuned:
    """The strategy as a twin of few blocks can bear it; raises `RecipeError` for a block that the base has not."""
    if not isinstance(strategy, PeftStrategy):
        return strategy
    _check_blocks(config, strategy, head)
    if not names_some(strategy):
        return strategy
    return everywhere(strategy, _reached(config, strategy, head))


def _check_blocks(
    config: PreTrainedConfig, strategy: LoraStrategy | QloraStrategy | PeftStrategy, head: Head | None
) -> None:
    with torch.device("meta"):
        check_blocks(network_of(config, head), config.num_hidden_layers, dict(strategy.peft))


def _reached(config: PreTrainedConfig, strategy: Tuned, head: Head | None) -> dict[str, int]:
    """In how many modules of each kind something moves."""
    assert isinstance(strategy, PeftStrategy), "no other names any"
    try:
        kinds = _on_meta(config, strategy, head)
    except (NotImplementedError, RuntimeError):
        with torch.device("meta"):
            kinds = reached_by_lora(network_of(config, head), strategy)
    return {kind.name: kind.adapted for kind in kinds if kind.adapted}


def _blocks(config: PreTrainedConfig, number: int, head: Head | None) -> nn.Module:
    small = twin(config)
    small.num_hidden_layers, small.intermediate_size = number, config.intermediate_size
    if getattr(small, "layer_types", None):
        small.layer_types = small.layer_types[:1] * number
    return network_of(small, head, dtype=torch.float32).requires_grad_(False)


def _read_whole(small: PreTrainedConfig, strategy: Tuned) -> Trial:
    """Rows of an encoder alone and filled up to one length; raises where PEFT or the encoder cannot do it."""
    small.pad_token_id = 0
    network = network_of(small, Head({"": ("one", "two", "three")}, encoder=True))
    adapted, _ = attach(network.requires_grad_(False).eval(), strategy, seed=0)
    rows = sorted((row.tokens for row in probe_rows()), key=len)
    forward = EncoderForward(adapted.eval(), forks=False)
    try:
        _disturb(adapted)
        alone = torch.cat([forward.read([row]) for row in rows])
        together = forward.read(rows)
        alone.log_softmax(-1)[:, 0].sum().backward()
    except _FAILURES as error:
        raise _fault(strategy, f"does not classify with this encoder: {said(error)}", "choose another method") from None
    worst = float((alone - together).abs().max())
    if worst > _TOLERANCE:
        problem = f"an encoder's rows filled up to one length differ from those alone by {worst:.2g}"
        raise _fault(strategy, problem, "choose another method")
    return Trial(WHOLE, f"{WHOLE}, and recomputing them was not tried")


def _measured(adapted: PeftModel, strategy: Tuned, limit: int | None) -> Trial:
    try:
        _disturb(adapted)
        with torch.no_grad():
            expected = torch.stack([row_logprob(adapted, row) for row in probe_rows()])
            ahead = sees_ahead(adapted, probe_rows()[0])
    except _FAILURES as error:
        fix = "give what it asks for in [strategy.peft] if that is a key, or choose another method"
        raise _fault(strategy, f"PEFT does not run it by itself: {said(error)}", fix) from None
    if ahead:
        raise _fault(strategy, "lets a token see those that follow: no causal language model", "choose another method")
    why_kept = _why_kept(adapted)
    return Trial(_named(strategy, _why_rows(adapted, expected, limit)), _named(strategy, why_kept))


def _fault(strategy: Tuned, problem: str, fix: str) -> RecipeError:
    return RecipeError("recipe", [Fault("strategy.method", f"{strategy.method}: {problem}", fix)])


def _named(strategy: Tuned, why: str) -> str:
    return why and f"{strategy.method}: {why}"


@torch.no_grad()
def _disturb(adapted: PeftModel) -> None:
    """A fresh adapter is often the base; a disturbed one is not."""
    for parameter in trainable(adapted).values():
        parameter.add_(torch.randn_like(parameter) * 0.3 / parameter.shape[-1] ** 0.5)


@torch.no_grad()
def _why_rows(adapted: Any, expected: Tensor, limit: int | None) -> str:
    """Why a tree is not its rows, or ""; what PEFT warns of is taken as said."""
    together = torch.empty_like(expected)
    adapted.get_base_model().set_attn_implementation(ATTENTION)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            for tree in pack(probe_rows(), 1 << 20, boundary=limit):
                logprobs = Forward(adapted, forks=True).logprobs(tree).numpy()
                together[torch.as_tensor(tree.rows)] = torch.as_tensor(tree.row_sums(logprobs), dtype=expected.dtype)
    except _FAILURES as error:
        return f"fails as a tree ({said(error)})"
    worst = float((expected - together).abs().max())
    return "" if worst < _TOLERANCE else f"a tree differs from its rows alone by {worst:.2g} nats"


def _why_kept(adapted: PeftModel) -> str:
    """Why gradients with recomputed activations are others, or ""."""
    adapted.train()
    kept = _gradients(adapted)
    try:
        recompute(adapted)
        again = _gradients(adapted)
    except _FAILURES as error:
        return f"fails with recomputed activations ({said(error)})"
    finally:
        adapted.gradient_checkpointing_disable()
        adapted.eval()
    worst = max(float((one - two).abs().max()) for one, two in zip(kept, again, strict=True))
    return "" if worst < _TOLERANCE else f"recomputed activations change a gradient by {worst:.2g}"


def recompute(network: nn.Module) -> None:
    """Keep no activation of a block; compute it again when its gradient is due."""
    network.activation_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]


def _gradients(adapted: PeftModel) -> list[Tensor]:
    torch.manual_seed(0)
    moving = list(trainable(adapted).values())
    return list(torch.autograd.grad(row_logprob(adapted, probe_rows()[0]), moving, materialize_grads=True))
