"""What is answered, as the OpenAPI description tells it; OpenAI's own forms, and what is metier's beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from metier.web.schema import Auto

Finish = Literal["stop", "length"]


class Answer(BaseModel):
    """Nothing but what is named."""

    model_config = ConfigDict(extra="forbid")


class Fault(Answer):
    """`param` is the key that is at fault, `code` a word for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class Failure(Answer):
    """OpenAI's error object."""

    error: Fault


class Health(Answer):
    status: Literal["ok"]


class Heldout(Answer):
    """What became of questions that were held out."""

    right: int
    wrong: int
    abstained: int


class Baseline(Answer):
    """The paired test's verdict against the classical baseline, and the same in words with the baseline's score."""

    verdict: Literal["better", "worse", "no difference shown"]
    said: str


class Standing(Answer):
    """A run's primary metric in one domain with its 95 % interval; verdict and difference are against its base.

    `baseline` is null where the run was not compared with the classical baseline.
    """

    domain: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    said: str
    verdict: str | None
    difference: str | None
    baseline: Baseline | None


class Model(Answer):
    """A name that may be asked, the run behind it, the base on which that stands, and what answers; not of `auto`."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["metier"]
    root: str
    parent: str | None
    domains: list[str]
    heldout: Heldout | None = None
    engine: str = ""
    as_measured: bool = True
    method: str = ""
    scores: list[Standing] = []
    untuned: bool = False


class Models(Answer):
    object: Literal["list"]
    data: list[Model]


class Deleted(Answer):
    id: str
    object: str
    deleted: Literal[True]


class Usage(Answer):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Likely(Answer):
    token: str
    logprob: float
    bytes: list[int]


class Place(Likely):
    """A token that was said, and what was likeliest in its place."""

    top_logprobs: list[Likely]


class Likelihoods(Answer):
    content: list[Place]
    refusal: None


class Words(Answer):
    """A fixed text is a refusal where JSON was asked for."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None


class ChatChoice(Answer):
    index: int
    message: Words
    logprobs: Likelihoods | None
    finish_reason: Finish


class Route(Answer):
    """What `auto` chose, None where it was not sure, and the likeliest domain's share.

    It `stays` with what was spoken of before, where it is not sure of what was said last.
    """

    domain: str | None
    share: float
    stays: bool


class Passage(Answer):
    """A text that stood in front of a question, and where it lies."""

    place: str
    text: str


class Notes(Answer):
    """Who answered, in which domain, what stood in front, and what was done to the answer."""

    route: Route | None = None
    domain: str = ""
    run: str = ""
    shares: dict[str, float] | None = None
    safety: dict[str, str] | None = None
    handover: dict[str, Any] | None = None
    examples: int = 0
    passages: list[Passage] = []
    withheld: int = 0
    notice: str = ""


class ChatAnswer(Answer):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    metier: Notes | None = None
    choices: list[ChatChoice]
    usage: Usage


class Weighed(Answer):
    """Four lists side by side."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class Text(Answer):
    index: int
    text: str
    logprobs: Weighed | None
    finish_reason: Finish


class CompletionAnswer(Answer):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[Text]
    usage: Usage


class Tokens(Answer):
    tokens: list[int]
    count: int
    max_model_len: int


class FileAnswer(Answer):
    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    object: Literal["file"]
    status: Literal["processed"]


class FileList(Answer):
    object: Literal["list"]
    data: list[FileAnswer]
    has_more: bool


class Settings(Answer):
    hyperparameters: dict[str, float | Auto]


class Way(Answer):
    """The settings stand under the name of the type."""

    type: Literal["supervised", "dpo"]
    supervised: Settings | None = None
    dpo: Settings | None = None


class JobFault(Answer):
    code: str
    message: str
    param: str | None


class JobAnswer(Answer):
    id: str
    object: Literal["fine_tuning.job"]
    created_at: int
    finished_at: int | None
    model: str
    fine_tuned_model: str | None
    organization_id: str
    result_files: list[str]
    training_file: str
    validation_file: str | None
    hyperparameters: dict[str, float | Auto]
    seed: int
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    error: JobFault | None
    trained_tokens: int | None
    user_provided_suffix: str | None
    metadata: dict[str, str] | None
    skip_faulty: bool
    method: Way


class DataFault(Answer):
    """One thing that is wrong with a file: where it stands, what it is, and how to mend it."""

    place: str
    problem: str
    fix: str


class DomainAnswer(Answer):
    """How many rows are used for what, what is strange about them, and how they were read."""

    name: str
    train: int
    validation: int
    heldout: int
    left_out: int
    warnings: list[str]
    read_as: str


class PlanAnswer(Answer):
    """What a tuning would take; with faults nothing but these, and where it does not fit `hint` says why."""

    object: Literal["plan"]
    faults: list[DataFault]
    skippable: bool
    hint: str
    domains: list[DomainAnswer] = []
    recipe: str = ""
    lines: list[str] = []
    left_out: list[DataFault] = []
    plan: dict[str, Any] | None = None


class ReportAnswer(Answer):
    """Where a browser finds a report without a key, for so many seconds."""

    object: Literal["report"]
    url: str
    seconds: int


class JobList(Answer):
    object: Literal["list"]
    data: list[JobAnswer]
    has_more: bool


class EventAnswer(Answer):
    id: str
    object: Literal["fine_tuning.job.event"]
    created_at: int
    level: Literal["info", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any]


class EventList(Answer):
    object: Literal["list"]
    data: list[EventAnswer]
    has_more: bool


class CheckpointAnswer(Answer):
    """What was measured on the validation rows at the step that was kept."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"]
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    step_number: int
    metrics: dict[str, float]


class CheckpointList(Answer):
    object: Literal["list"]
    data: list[CheckpointAnswer]
    has_more: bool


class TurnAnswer(Answer):
    role: str
    content: str


class TicketAnswer(Answer):
    """A conversation that waits for people; times are UTC, "" where it has not come to that."""

    id: int
    opened: str
    state: Literal["open", "taken", "closed"]
    domain: str
    mood: str
    why: str
    summary: str
    transcript: list[TurnAnswer]
    taken: str
    taken_by: str
    closed: str
    note: str
    code: str


class TicketList(Answer):
    object: Literal["list"]
    data: list[TicketAnswer]


class Thanks(Answer):
    id: int
    object: Literal["feedback"]


Told = dict[int | str, dict[str, Any]]
REFUSED: Told = {"4XX": {"model": Failure, "description": "refused, and why"}}
BUSY: Told = {
    503: {
        "model": Failure,
        "description": "queue or disk are full, `auto` is being learned, or the server is being stopped",
    }
}
ENDED: Told = {503: {"model": Failure, "description": "an engine has ended"}}
_STREAM: Mapping[str, Any] = {"content": {"text/event-stream": {}}}


def told(model: type[Answer], *, streams: bool = False) -> Told:
    """What a route answers, in the description alone: what is sent is not read again."""
    return {200: {"model": model, **(_STREAM if streams else {})}}
