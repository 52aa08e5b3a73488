"""What clients of OpenAI's API send and get, as far as it is answered here; keys that are not named are ignored."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from metier.data.items import Message
from metier.inference.sampling import Sampling

Auto = Literal["auto"]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Share = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Text = Annotated[str, Field(max_length=1_000_000)]
End = Annotated[str, Field(max_length=1000)]
_BIASED = 1024  # tokens of logit_bias
_GO_ON = 16  # tokens that a text is gone on with, as OpenAI has it
_TEXT = AliasChoices("prompt", "content", "text")  # vLLM's word, which is the one told; llama.cpp's; the plain one
Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=100_000, fail_fast=True)]
Stop = End | Annotated[list[End], Field(max_length=16)] | None


def _few(given: Any) -> Any:
    """A list fails at its first fault; of an object every fault would be gathered, however many there are."""
    if isinstance(given, dict) and len(given) > _BIASED:
        raise ValueError(f"has {len(given):,} tokens, and may have {_BIASED:,}")
    return given


Bias = Annotated[
    dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], Annotated[float, Field(ge=-100, le=100)]],
    Field(max_length=_BIASED),
    BeforeValidator(_few),
]


class Body(BaseModel):
    """Numbers that are none, or without end, or written as a text, are faults."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, strict=True)


class TextPart(Body):
    """A piece of a message's content."""

    type: Literal["text"]
    text: Text

    @property
    def said(self) -> str:
        return self.text


class RefusalPart(Body):
    """An assistant's, where that is what it said."""

    type: Literal["refusal"]
    refusal: Text

    @property
    def said(self) -> str:
        return self.refusal


Part = Annotated[TextPart | RefusalPart, Field(discriminator="type")]


class Said(Body):
    """One message; what developers say counts as the system's."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[Part], Field(max_length=1000, fail_fast=True)] | None = None
    refusal: Text | None = Field(None, description="of an assistant, where that is all it said")

    @property
    def message(self) -> Message:
        refused = self.refusal if self.role == "assistant" else None
        said = (refused or "") if self.content is None else self.content
        text = said if isinstance(said, str) else "".join(part.said for part in said)
        return Message("system" if self.role == "developer" else self.role, text)


def _asked_last(said: list[Said]) -> list[Said]:
    """What the system says behind a question stands in front of it, as what it says otherwise does."""
    end = next((end for end in range(len(said), 0, -1) if said[end - 1].role not in ("system", "developer")), 0)
    return [*said[: end - 1], *said[end:], said[end - 1]] if end and said[end - 1].role == "user" else said


Talk = Annotated[list[Said], Field(min_length=1, max_length=1000, fail_fast=True), AfterValidator(_asked_last)]


class JsonSchema(Body):
    """A schema that the answer follows."""

    name: Annotated[str, Field(max_length=64)] = "answer"
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class AsText(Body):
    """As it comes."""

    type: Literal["text"]


class AsObject(Body):
    """Any JSON object."""

    type: Literal["json_object"]


class AsSchema(Body):
    """JSON of this schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[AsText | AsObject | AsSchema, Field(discriminator="type")]


class StreamOptions(Body):
    """What a stream says besides its text."""

    include_usage: bool = False


class Rules(Body):
    """How an answer is chosen: as it was measured, the likeliest token by token, unless a rule is given."""

    model: Name
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Field(ge=-1, description="0 or -1: any token")] | None = None
    min_p: Share | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=10)] | None = None
    logit_bias: Bias | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop = None
    ignore_eos: bool | None = Field(False, description="go on to max_tokens; llama.cpp does not")
    n: Annotated[int, Field(ge=1, le=16)] | None = 1
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    user: Annotated[str, Field(max_length=200)] | None = None

    @property
    def sampling(self) -> Sampling:
        given = {
            name: value
            for name in Sampling.__dataclass_fields__
            if name != "bias" and (value := getattr(self, name)) is not None
        }
        if given.get("top_k") == -1:  # vLLM's word for none
            del given["top_k"]
        return Sampling(**given, bias={int(token): more for token, more in (self.logit_bias or {}).items()})

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else [*(self.stop or ())]

    @property
    def tells_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatBody(Rules):
    """A conversation to be answered."""

    messages: Talk
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    domain: Annotated[str, Field(max_length=100)] | None = Field(None, description="of a model that has several")
    untuned: bool | None = Field(False, description="by the model's base, asked as the model is")

    @model_validator(mode="after")
    def _can_be_answered(self) -> ChatBody:
        if (self.tools and self.tool_choice != "none") or self.functions:
            raise ValueError("tools: calls of tools are not answered here; leave tools out")
        if self.messages[-1].role != "user":
            raise ValueError(f"messages: the last one is the {self.messages[-1].role}'s own; end with a user's")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs: needs logprobs = true; set it, or leave top_logprobs out")
        return self

    @property
    def turns(self) -> list[Message]:
        return [each.message for each in self.messages]

    @property
    def most(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def likeliest(self) -> int | None:
        """Of how many tokens it is told how likely they were, besides those that are said; None where of none."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def wants_json(self) -> bool:
        return not isinstance(self.response_format, AsText | None)

    @property
    def goes_on(self) -> bool:
        """Also behind what ends a turn."""
        return bool(self.ignore_eos) and not self.wants_json


class CompletionBody(Rules):
    """A text, or tokens, to be gone on with; several are answered one by one."""

    prompt: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=256, fail_fast=True)]
        | Ids
        | Annotated[list[Ids], Field(min_length=1, max_length=256, fail_fast=True)]
    )
    max_tokens: Annotated[int, Field(ge=0)] | None = _GO_ON
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = False
    suffix: str | None = None
    response_format: ResponseFormat | None = None
    best_of: Annotated[int, Field(ge=1, le=16)] | None = None

    @model_validator(mode="after")
    def _can_be_answered(self) -> CompletionBody:
        if self.suffix:
            raise ValueError("suffix: nothing is filled in between here; leave it out")
        if not isinstance(self.response_format, AsText | None):
            raise ValueError("response_format: a text is gone on with as it comes; ask /v1/chat/completions for JSON")
        if self.best_of and self.best_of != (self.n or 1):
            raise ValueError("best_of: all answers are given; leave it out, or set it to n")
        return self

    @property
    def most(self) -> int:
        """0 where the prompt alone is told."""
        return _GO_ON if self.max_tokens is None else self.max_tokens

    @property
    def likeliest(self) -> int | None:
        """Of how many tokens it is told how likely they were, besides those that are said; None where of none."""
        return self.logprobs

    @property
    def goes_on(self) -> bool:
        """Also behind what ends a turn: whoever wants likelihoods counts tokens."""
        return bool(self.ignore_eos) or self.logprobs is not None


class TokenizeBody(Body):
    """A text, or a conversation, as a model reads it."""

    model: Name
    prompt: Annotated[Text | None, Field(validation_alias=_TEXT, description="also as content, or text")] = None
    messages: Talk | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> TokenizeBody:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("prompt: give either prompt or messages")
        return self


class LoadBody(Body):
    """A run to be served from now on."""

    run: Annotated[Name, Field(validation_alias=AliasChoices("run", "lora_path"), description="also as lora_path")]
    name: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
            validation_alias=AliasChoices("name", "lora_name"),
            description="also as lora_name",
        ),
    ] = None


class UnloadBody(Body):
    """A run that is served no more."""

    name: Annotated[Name, Field(validation_alias=AliasChoices("name", "lora_name"), description="also as lora_name")]
