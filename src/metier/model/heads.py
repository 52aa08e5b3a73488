"""A head that classifies, in place of a decoder's output head or on an encoder, which reads both ways.

Shapes: R rows, L tokens of the longest, C outputs, U asked nodes.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedConfig

from metier.data.classes import Head
from metier.errors import ModelError
from metier.model.forward import Forward
from metier.model.loading import Base, NoCausalModel, NumberFormat, load, pretrained, probe, read_config, settled
from metier.trees import TokenTree

WHOLE = "an encoder reads each row whole"


def is_encoder(config: PreTrainedConfig) -> bool:
    """Whether a base of this kind is no causal language model."""
    try:
        probe(config)
    except NoCausalModel:
        return True
    return False


def open_base(directory: Path, number_format: NumberFormat, device: str, head: Head | None, **how: Any) -> Base:
    """A base by `loading.load`; an encoder with a fresh head on it. A decoder's is put there by `put`."""
    if head is None or not head.encoder:
        return load(directory, number_format, device, **how)
    config = _with_outputs(read_config(directory), head)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # what the checkpoint has not
        network = pretrained(AutoModelForSequenceClassification, directory, config, number_format, device)
    forward = EncoderForward(settled(network), forks=False, multiple=how.get("multiple", 1))
    return Base(forward, WHOLE, None)


def put(network: nn.Module, head: Head) -> nn.Module:
    """The network with a head of zeros on the last token's hidden state; an encoder has its head already."""
    return network if head.encoder else put_outputs(network, head.outputs)


def put_outputs(network: Any, outputs: int) -> nn.Module:
    """A decoder whose output head is a linear layer to so many outputs, at first zeros: all labels are as likely."""
    weight = network.get_input_embeddings().weight
    width = network.get_output_embeddings().weight.shape[-1]
    fresh = nn.Linear(width, outputs, bias=False, device=weight.device, dtype=weight.dtype)
    nn.init.zeros_(fresh.weight).requires_grad_(False)
    network.set_output_embeddings(fresh)
    network.config.tie_word_embeddings = False
    return network  # type: ignore[no-any-return]


def on_encoder(network: Any) -> bool:
    """Whether a loaded network's head stands on an encoder."""
    return network.get_output_embeddings() is None


def names(network: Any) -> list[str]:
    """The modules of the head: the output head of a decoder, or what stands behind an encoder's blocks.

    BERT's pooler is one of them: checkpoints of masked language models leave it out.
    """
    if not on_encoder(network):
        output = network.get_output_embeddings()
        return [name for name, module in network.named_modules() if module is output]
    outside = [name for name, module in network.named_children() if module is not network.base_model]
    found = [name for name in outside if next(network.get_submodule(name).parameters(), None) is not None]
    pooler = getattr(network.base_model, "pooler", None)
    return found + [f"{network.base_model_prefix}.pooler"] * (pooler is not None)


def network_of(config: PreTrainedConfig, head: Head | None, **how: Any) -> nn.Module:
    """A network of this kind with random weights, or none on the meta device."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if head is None or not head.encoder:
            network = AutoModelForCausalLM.from_config(config, trust_remote_code=False, **how)
            return network if head is None else put(network, head)
        config = _with_outputs(config, head)
        try:
            return AutoModelForSequenceClassification.from_config(config, trust_remote_code=False, **how)  # type: ignore[no-any-return]
        except ValueError:
            problem = f"{config.model_type}: transformers has no classification head for it"
            raise ModelError(problem, "choose an encoder such as BERT, RoBERTa or DeBERTa, or a decoder") from None


def _with_outputs(config: PreTrainedConfig, head: Head) -> PreTrainedConfig:
    config = copy.deepcopy(config)
    config.num_labels = head.outputs
    return config


class EncoderForward(Forward):
    """Runs whole rows through an encoder: what stands in front of an asked node is one row, read once."""

    def logits(self, tree: TokenTree, nodes: Tensor) -> Tensor:
        """The head's outputs [len(nodes), C] for the rows that end with `nodes`."""
        starts = np.array([block.start for block in tree.blocks])
        asked = nodes.cpu().numpy()
        begins = starts[np.searchsorted(starts, asked, side="right") - 1]
        row_U = [tuple(tree.tokens[begin : end + 1].tolist()) for begin, end in zip(begins, asked, strict=True)]
        rows = sorted(set(row_U), key=lambda row: (len(row), row))
        logits_RC = torch.cat([self.read(batch) for batch in _alike(rows)])
        place = {row: index for index, row in enumerate(rows)}
        return logits_RC[torch.tensor([place[row] for row in row_U], device=logits_RC.device)]

    def read(self, rows: Sequence[tuple[int, ...]]) -> Tensor:
        """The outputs [R, C] of rows that are filled up to one length, which attention does not see."""
        longest = math.ceil(len(rows[-1]) / self.multiple) * self.multiple
        pad = getattr(self.network.config, "pad_token_id", None) or 0
        limit = getattr(self.network.config, "max_position_embeddings", None) or longest
        longest = max(len(rows[-1]), min(longest, limit))
        ids_RL = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=self.device)
        mask_RL = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=self.device)
        logits: Tensor = self.network(input_ids=ids_RL, attention_mask=mask_RL).logits
        return logits


def _alike(rows: Sequence[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Rows in ascending length, cut where filling up would be more than a third of what is read."""
    batch: list[tuple[int, ...]] = []
    for row in rows:
        if batch and 4 * len(batch[0]) < 3 * len(row):
            yield batch
            batch = []
        batch.append(row)
    yield batch
