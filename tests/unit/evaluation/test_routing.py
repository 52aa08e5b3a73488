"""The untuned base as a router: its own shares of the domains' names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from metier.evaluation.answering import Limits
from metier.evaluation.routing import by_base
from metier.inference.loaded import open_base
from metier.model.loading import NumberFormat
from tests.unit import tiny


def test_it_names_the_domain_that_plain_transformers_finds_likeliest(tmp_path: Path) -> None:
    opened = open_base(str(tiny.save(tmp_path / "base")), NumberFormat("float32", "float32"), "cpu", offline=True)
    names, texts = ("dogs", "cats"), ("the lazy dog", "{names} {0}", "fox " * 400)
    routes = by_base(opened.engine(), opened.renderer, texts, names, Limits(256, 8, 512))
    assert routes[2] == (None, 0.0)  # longer than max_length
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    for text, (sent, share) in zip(texts[:2], routes, strict=False):
        asked = (
            f"Which topic is this message about? Please choose an answer from {{dogs/cats}}.\nMessage: {text}\nTopic:"
        )
        prompt = opened.renderer.encode(asked)
        controls = [
            opened.renderer.tokenizer.convert_tokens_to_ids(f"<|{each}|>") for each in ("user", "end", "assistant")
        ]
        line = opened.renderer.encode("\n")
        ids = [controls[0], *line, *prompt, controls[1], *line, controls[2], *line]
        sums = []
        for name in names:
            label = opened.renderer.encode(name)
            with torch.no_grad():
                logits = plain(input_ids=torch.tensor([[*ids, *label]])).logits[0, len(ids) - 1 : -1]
            sums.append(logits.log_softmax(-1).gather(-1, torch.tensor(label)[:, None]).sum())
        shares = torch.stack(sums).softmax(0)
        assert sent == names[int(shares.argmax())]
        assert share == pytest.approx(shares.max().item(), abs=1e-4)
