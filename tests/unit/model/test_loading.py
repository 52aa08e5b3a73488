from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from transformers import BertConfig, BloomConfig, Lfm2Config, LlamaConfig, MambaConfig, PreTrainedConfig

from metier.errors import ModelError
from metier.model.adapters import attach
from metier.model.loading import NumberFormat, load, probe, read_config
from metier.training.objectives import accumulate
from metier.trees import Example, pack
from tests.unit import tiny

NF4 = NumberFormat("nf4", "bfloat16")
INT8 = NumberFormat("int8", "float32")
TREES = pack([Example(tuple(range(6, 26)), (0.0, *[1.0] * 19)), Example(tuple(range(30, 40)), (0.0, *[1.0] * 9))], 100)
# bitsandbytes blocks are 64 wide: a base as narrow as the other tests' would not be quantised as real ones are.
WIDE = {"hidden_size": 128, "intermediate_size": 256}


# Short convolutions between attention layers: at a model's usual initial weights their fault is 4e-4 nats.
CONVOLUTION = Lfm2Config(
    hidden_size=64,
    num_attention_heads=4,
    num_key_value_heads=2,
    num_hidden_layers=2,
    layer_types=["conv", "full_attention"],
)


def packed_weights(network: torch.nn.Module) -> list[torch.Tensor]:
    """In the order of the layers; an adapter changes their names."""
    packed = (Linear4bit, Linear8bitLt)
    found = [each.weight.data.clone() for each in network.modules() if isinstance(each, packed)]
    assert found
    return found


@pytest.mark.parametrize("number_format", [NF4, INT8], ids=str)
def test_a_quantised_base_survives_evaluation_and_still_gives_gradients(
    tmp_path: Path, number_format: NumberFormat
) -> None:
    """bitsandbytes' CPU path repacks weights in place at the first forward in eval mode; after that
    gradients are silently zero. Ours must train, evaluate and train again as if nothing had been."""
    loaded = load(tiny.save(tmp_path, **WIDE), number_format, "cpu")
    before = packed_weights(loaded.network)
    adapted, _ = attach(loaded.network, tiny.lora(), seed=0)
    forward = loaded.forward.over(adapted)

    def gradient() -> torch.Tensor:
        adapted.train()
        accumulate(forward, TREES)
        found = torch.cat([each.grad.flatten() for each in adapted.parameters() if each.grad is not None])
        adapted.zero_grad()
        return found

    first = gradient()
    adapted.eval()
    with torch.no_grad():
        forward.logprobs(TREES[0])
    second = gradient()
    assert float(first.norm()) > 0
    assert torch.equal(first, second)
    after = packed_weights(loaded.network)
    assert all(torch.equal(one, two) for one, two in zip(after, before, strict=True))


def test_the_trap_is_real_where_the_processor_has_it(tmp_path: Path) -> None:
    """Without our switch the weights change: should bitsandbytes mend it, the switch can go."""
    loaded = load(tiny.save(tmp_path, **WIDE), NF4, "cpu")
    layers = [each for each in loaded.network.modules() if isinstance(each, Linear4bit)]
    assert all(layer.support_avx512bf16_for_cpu is False for layer in layers)
    fresh = Linear4bit(128, 128, quant_type="nf4", compute_dtype=torch.bfloat16)
    if not fresh.support_avx512bf16_for_cpu:
        pytest.skip("this processor has no AVX512-BF16")
    for layer in layers:
        layer.support_avx512bf16_for_cpu = True
    before = packed_weights(loaded.network)
    with torch.no_grad():
        loaded.forward.logprobs(TREES[0])
    after = packed_weights(loaded.network)
    assert any(one.shape != two.shape or not torch.equal(one, two) for one, two in zip(after, before, strict=True))


@pytest.mark.parametrize(
    "config", [BloomConfig(hidden_size=64, n_head=4, n_layer=2), MambaConfig(hidden_size=64), CONVOLUTION]
)
def test_models_that_cannot_fork_are_found_out(config: PreTrainedConfig) -> None:
    assert probe(config).startswith(config.model_type)


def test_what_sees_the_future_is_no_causal_model() -> None:
    with pytest.raises(ModelError, match="is no causal language model"):
        probe(BertConfig(hidden_size=32, num_attention_heads=4, intermediate_size=48))


def test_a_probe_leaves_no_trace() -> None:
    config = LlamaConfig(hidden_size=64, num_attention_heads=4)
    before, state = config.to_dict(), torch.get_rng_state()
    assert probe(config) == ""
    assert config.to_dict() == before
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_no_model_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a model"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "unheard-of"}')
    with pytest.raises(ModelError, match="is not a model"):
        read_config(tmp_path)
