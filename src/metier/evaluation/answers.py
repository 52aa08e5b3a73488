"""Answers: what a run said to each held-out item. Scores are recomputed from these, never the reverse."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from metier.data.items import Version
from metier.domain import Task
from metier.errors import RunError

Kind = Literal["label", "choice", "open", "preference", "rated", "passage", "text", "general"]
GENERAL: tuple[Kind, ...] = ("text", "general")  # what shows forgetting


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One held-out item as one run answered it; log-probabilities and divergences are in nats.

    `prompt` is the conversation as people read it. `reference` is the right answer; for "passage", and for "text"
    (general text), what is read; for "rated" the reply, which people `liked` or not. `place` is where the item
    stands, as file:line. `logprob` sums over the `tokens` target tokens of the reference, `base_logprob` and `kl`
    (from the untuned base) likewise; None or () is what was not measured. Of "general", a question of general
    knowledge, `kl` sums over the `tokens` of the prompt, and `base_label_logprobs` are the untuned base's.
    `stopped` tells whether the model ended its turn by itself. `failed` says why there is no answer.
    `version` tells whom the text names, where there are others that name other people.
    `task` is what an open answer is for. Of code, `tests` are the row's own, `passed` tells whether the answer
    passed them, None where they were not run, and `error` why not.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    id: str
    domain: str
    group: str
    kind: Kind
    place: str
    prompt: str
    reference: str
    output: str | None = None
    labels: tuple[str, ...] = ()
    label_logprobs: tuple[float, ...] = ()
    logprob: float | None = None
    tokens: int | None = None
    new_tokens: int | None = None
    stopped: bool | None = None
    liked: bool | None = None
    failed: str = ""
    base_logprob: float | None = None
    base_label_logprobs: tuple[float, ...] = ()
    kl: float | None = None
    version: Version | None = None
    task: Task = "support"
    tests: str = ""
    passed: bool | None = None
    error: str = ""

    @property
    def of_domain(self) -> bool:
        """Whether it answers an item of the recipe's domains, and does not measure forgetting."""
        return self.kind not in GENERAL

    @property
    def base_output(self) -> str | None:
        """What the untuned base takes for the likeliest of the labels."""
        logprobs = self.base_label_logprobs
        return self.labels[max(range(len(logprobs)), key=logprobs.__getitem__)] if logprobs else None


def to_json(answer: Answer) -> str:
    """One line of JSON, without the keys that have no value. Raises ValueError for NaN or infinity."""
    kept = {field.name: value for field in fields(answer) if (value := getattr(answer, field.name)) != field.default}
    if answer.version:
        kept["version"] = asdict(answer.version)
    return json.dumps(kept, ensure_ascii=False, allow_nan=False)


def from_json(line: str | bytes) -> Answer:
    """The answer that `to_json` wrote, every float bit for bit. Raises ValueError where it is none."""
    return _adapter().validate_json(line)


def read_answers(path: Path) -> list[Answer]:
    """Every answer of a file; a last line without its end is one that a kill tore, and is left out.

    Raises RunError for any other line that is not an answer.
    """
    answers = []
    # Bytes: str.splitlines would also cut at separators that texts contain, such as U+2028.
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            answers.append(from_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "line"
            message = f"{path}:{number}: not an answer: {place}: {first['msg']}"
            raise RunError(message, hint="restore the file, or evaluate the run again") from error
    return answers


@cache
def _adapter() -> TypeAdapter[Answer]:
    return TypeAdapter(Answer)
