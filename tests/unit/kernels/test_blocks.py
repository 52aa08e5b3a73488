from __future__ import annotations

import pytest
import torch

from metier.kernels import blocks
from metier.kernels.reference import Scoring, masked_attention


@pytest.mark.parametrize("most", [0, 1 << 22])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "groups", "new"), [(4, 4, 1), (6, 2, 1), (6, 2, 3), (4, 1, 2)])
def test_a_step_of_many_is_what_attention_is(
    heads: int, groups: int, new: int, dtype: torch.dtype, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_CONVERTED", most)
    draws = torch.Generator().manual_seed(1)
    q, k, v = (
        torch.randn(5, count, length, 8, generator=draws).to(dtype)
        for count, length in ((heads, new), (groups, 20), (groups, 20))
    )
    seen = torch.rand(5, 1, 1, 20, generator=draws) < 0.5
    seen[..., 0] = True
    found = blocks.fused_attention_batch(q, k, v, torch.zeros(seen.shape).masked_fill(~seen, float("-inf")), 0.4)
    expected = masked_attention(q.float(), k.float(), v.float(), seen, Scoring(0.4))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, atol=1e-6 if dtype == torch.float32 else 2e-2, rtol=1e-2)
