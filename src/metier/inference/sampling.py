"""How the next token is chosen: the likeliest, or drawn by each request's own rules and seed.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

_COLD = 1e-6  # below this temperature, scores that are divided by it leave what float32 can hold


@dataclass(frozen=True)
class Sampling:
    """Rules of one request, each without effect at its default but the temperature, which at 0 takes the likeliest.

    In the order in which they are applied: `bias` is added to logits; `repetition_penalty` divides the logits of
    what stands in prompt or answer (Keskar et al. 2019), `frequency_penalty` and `presence_penalty` are taken from
    those of the answer's tokens (OpenAI's API reference); then the temperature; then `top_k`, `top_p` (Holtzman et
    al. 2020) and `min_p`, a share of the likeliest one's probability (Nguyen et al. 2024), each cut what is left.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None

    @property
    def plain(self) -> bool:
        """Whether it takes what is likeliest as the model has it."""
        return self.temperature == 0 and not (self._repeats or self.bias)

    @property
    def _repeats(self) -> bool:
        return (self.frequency_penalty, self.presence_penalty, self.repetition_penalty) != (0, 0, 1)


class Sampler:
    """Draws one request's tokens: the same seed gives the same, whoever shares the batch."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._biased = torch.tensor([*sampling.bias], dtype=torch.long)
        self._bias = torch.tensor([*sampling.bias.values()], dtype=torch.float32)
        self._random = torch.Generator()
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)

    def choose(self, logits_V: Tensor, prompt: Sequence[int], answer: Sequence[int]) -> int:
        """The next token behind `prompt` and `answer`."""
        rules = self._sampling
        scores_V = self._penalised(logits_V.float().cpu(), prompt, answer)
        if rules.temperature < _COLD:
            return int(scores_V.argmax())
        shares_V = self._cut((scores_V / rules.temperature).softmax(-1))
        # The largest of p / e with e exponential is drawn with probability p.
        noise_V = torch.empty_like(shares_V).exponential_(generator=self._random)
        return int((shares_V / noise_V).argmax())

    def _penalised(self, scores_V: Tensor, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
        rules = self._sampling
        if rules.plain or not (rules._repeats or rules.bias):
            return scores_V
        scores_V = scores_V.clone()
        scores_V[self._biased] += self._bias
        if rules.repetition_penalty != 1:
            seen = torch.tensor(sorted({*prompt, *answer}), dtype=torch.long)
            scores = scores_V[seen]
            scores_V[seen] = torch.where(
                scores > 0, scores / rules.repetition_penalty, scores * rules.repetition_penalty
            )
        if counts := Counter(answer):
            said = torch.tensor([*counts], dtype=torch.long)
            often = torch.tensor([*counts.values()], dtype=scores_V.dtype)
            scores_V[said] -= rules.frequency_penalty * often + rules.presence_penalty
        return scores_V

    def _cut(self, shares_V: Tensor) -> Tensor:
        rules = self._sampling
        if 0 < rules.top_k < len(shares_V):
            shares_V = torch.where(shares_V < shares_V.topk(rules.top_k).values[-1], 0.0, shares_V)
        if rules.top_p < 1:
            sorted_V, order_V = (shares_V / shares_V.sum()).sort(descending=True)
            beyond_V = sorted_V.cumsum(-1) - sorted_V >= rules.top_p
            beyond_V[0] = False  # the likeliest is kept, at 0 as well
            shares_V = shares_V.scatter(-1, order_V[beyond_V], 0.0)
        if rules.min_p > 0:
            shares_V = torch.where(shares_V < rules.min_p * shares_V.max(), 0.0, shares_V)
        return shares_V
