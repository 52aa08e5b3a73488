"""What an answer contributes to each metric of its kind, and the statistic over all of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

from rapidfuzz.distance import LCSseq
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from metier.domain import Task
from metier.evaluation.answers import Answer, Kind
from metier.evaluation.own import Own, checked
from metier.resampling import Statistic
from metier.scores import auc, bleu, f1, mean, ratio

TIMED_OUT = "timed out"  # the error of code that is still running when its time is over
_WORD = re.compile(r"[^\W_]+")


def chrf(output: str, reference: str) -> float:
    """Sentence chrF2, 0 … 100: characters 1 to 6, no words, beta 2 (Popović 2015; sacrebleu's defaults)."""
    return float(CHRF().sentence_score(output, [reference]).score)


def rouge_l(output: str, reference: str) -> float:
    """ROUGE-L F1, 0 … 100 (Lin 2004): the longest common subsequence of lower-cased words, not stemmed.

    On English the words are those of the rouge-score package; unlike there, other scripts have words too.
    """
    ours, theirs = _words_of(output), _words_of(reference)
    if not ours or not theirs:
        return 0.0
    return 200 * LCSseq.similarity(ours, theirs) / (len(ours) + len(theirs))


def rouge_n(output: str, reference: str, n: int) -> float:
    """ROUGE-N F1, 0 … 100 (Lin 2004): runs of `n` words in common, each counted as often as both have it.

    Words are those of `rouge_l`.
    """
    ours, theirs = (Counter(_runs(_words_of(text), n)) for text in (output, reference))
    total = ours.total() + theirs.total()
    return 200 * (ours & theirs).total() / total if total else 0.0


def repetition(output: str) -> float:
    """The share of runs of four words that stood in the answer before, 0 … 1; a shorter answer repeats nothing.

    "seq-rep-4" of Welleck et al. 2020 (Neural text generation with unlikelihood training): 1 - distinct / all.
    """
    runs = _runs(_words_of(output), 4)
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def bleu_counts(output: str, reference: str) -> tuple[float, ...]:
    """What an item adds to a corpus's BLEU: words of output and reference, then runs of 1 to 4 that match, and all.

    Tokens are sacrebleu's 13a.
    """
    found = _bleu().sentence_score(output, [reference])
    return (found.sys_len, found.ref_len, *found.counts, *found.totals)


@cache
def _bleu() -> BLEU:
    return BLEU(effective_order=True)  # changes the sentence's score alone, which is not read, and spares a warning


def _words_of(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _runs(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[start:] for start in range(n)), strict=False))


Value = tuple[float, ...]


@dataclass(frozen=True)
class Metric:
    """What an answer contributes, None if it has no part in it, and the statistic over those columns."""

    name: str
    value: Callable[[Answer], Value | None]
    statistic: Callable[..., Statistic]
    higher_is_better: bool | None = True
    rate: bool = False  # 0 or 1 for each item: there are exact methods


def has_failed(answer: Answer) -> bool:
    return bool(answer.failed) or (answer.output is None and answer.logprob is None)


def output_of(answer: Answer) -> str | None:
    return None if has_failed(answer) else answer.output


def _accuracy(answer: Answer) -> Value:
    return (output_of(answer) == answer.reference,)


def _base_accuracy(answer: Answer) -> Value | None:
    return None if answer.base_output is None else (answer.base_output == answer.reference,)


def _classes(answer: Answer) -> Value:
    output = output_of(answer)
    predicted = answer.labels.index(output) if output in answer.labels else -1
    return answer.labels.index(answer.reference), predicted, len(answer.labels)


def _f1(average: Literal["macro", "weighted"]) -> Callable[..., Statistic]:
    return lambda truth, predicted, classes: f1(truth, predicted, classes[0], average)


def _overlap(measure: Callable[[str, str], float]) -> Callable[[Answer], Value]:
    return lambda answer: (measure(output_of(answer) or "", answer.reference),)


def _stopped(answer: Answer) -> Value | None:
    return None if answer.stopped is None or has_failed(answer) else (answer.stopped,)


def _words(answer: Answer) -> Value | None:
    output = output_of(answer)
    return None if output is None else (len(output.split()),)


def _repeated(answer: Answer) -> Value | None:
    output = output_of(answer)
    return None if output is None else (repetition(output),)


def _translated(answer: Answer) -> Value:
    return bleu_counts(output_of(answer) or "", answer.reference)


def _passed(answer: Answer) -> Value | None:
    return None if answer.passed is None else (answer.passed,)


def _timed_out(answer: Answer) -> Value | None:
    return None if answer.passed is None else (answer.error == TIMED_OUT,)


def loss_of(answer: Answer) -> Value | None:
    return None if answer.logprob is None else _per_token(answer, -answer.logprob)


def base_loss_of(answer: Answer) -> Value | None:
    return None if answer.base_logprob is None else _per_token(answer, -answer.base_logprob)


def _kl(answer: Answer) -> Value | None:
    return None if answer.kl is None else _per_token(answer, answer.kl)


def _margin(answer: Answer) -> Value | None:
    """By how much likelier the liked reply is than the other, in nats."""
    if not answer.label_logprobs:
        return None
    liked = answer.labels.index(answer.reference)
    return (answer.label_logprobs[liked] - answer.label_logprobs[1 - liked],)


def _rated(answer: Answer) -> Value | None:
    """How likely a reply is by its tokens, and whether people liked it."""
    per_token = loss_of(answer)
    return None if per_token is None else (-per_token[0] / per_token[1], bool(answer.liked))


def _per_token(answer: Answer, nats: float) -> Value | None:
    return None if has_failed(answer) or not answer.tokens else (nats, answer.tokens)


_CHRF = Metric("chrf", _overlap(chrf), mean)
_ROUGE_L = Metric("rouge_l", _overlap(rouge_l), mean)
_GENERATED = (  # whatever an open answer is for
    Metric("loss", loss_of, ratio, higher_is_better=False),
    Metric("stop_rate", _stopped, mean, rate=True),
    Metric("repetition", _repeated, mean, higher_is_better=False),
    Metric("length", _words, mean, higher_is_better=None),
)

OPEN: dict[Task, tuple[Metric, ...]] = {  # the primary one first
    "support": (_CHRF, _ROUGE_L, *_GENERATED),
    "summary": (
        _ROUGE_L,
        Metric("rouge_1", _overlap(partial(rouge_n, n=1)), mean),
        Metric("rouge_2", _overlap(partial(rouge_n, n=2)), mean),
        *_GENERATED,
    ),
    "translation": (_CHRF, Metric("bleu", _translated, bleu), *_GENERATED),
    "code": (  # by chrF where no tests were run
        Metric("pass_rate", _passed, mean, rate=True),
        _CHRF,
        Metric("timeout_rate", _timed_out, mean, higher_is_better=False),
        *_GENERATED,
    ),
}

METRICS: dict[Kind, tuple[Metric, ...]] = {  # the primary one first
    "label": (
        Metric("accuracy", _accuracy, mean, rate=True),
        Metric("macro_f1", _classes, _f1("macro")),
        Metric("weighted_f1", _classes, _f1("weighted")),
    ),
    "open": OPEN["support"],
    "choice": (Metric("accuracy", _accuracy, mean, rate=True),),
    "preference": (
        Metric("margin", _margin, mean),
        Metric("accuracy", _accuracy, mean, rate=True),
        Metric("loss", loss_of, ratio, higher_is_better=False),
    ),
    "rated": (Metric("auc", _rated, auc),),
    "passage": (Metric("loss", loss_of, ratio, higher_is_better=False),),
    "text": (
        Metric("loss", loss_of, ratio, higher_is_better=False),
        Metric("base_loss", base_loss_of, ratio, higher_is_better=None),
        Metric("kl", _kl, ratio, higher_is_better=False),
    ),
    "general": (
        Metric("accuracy", _accuracy, mean, rate=True),
        Metric("base_accuracy", _base_accuracy, mean, higher_is_better=None),
        Metric("kl", _kl, ratio, higher_is_better=False),
    ),
}


def metrics_of(answers: Sequence[Answer], own: Own | None = None) -> tuple[Metric, ...]:
    """Of one domain's answers, by their kind, and if open by their task; then whoever brings their own has them too."""
    if answers[0].kind != "open":
        return METRICS[answers[0].kind]
    brought = (own or {}).items()
    return (
        *OPEN[answers[0].task],
        *(Metric(name, _overlap(checked(name, measure)), mean) for name, measure in brought),
    )
