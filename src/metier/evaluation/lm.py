"""A model as lm-evaluation-harness sees it: log-likelihoods through token trees, answers through the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    has_bos_prefix,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window, simple_parse_args_string
from pydantic import BaseModel, ConfigDict, ValidationError

from metier.data.items import Message
from metier.errors import MetierError, RunError, nearest
from metier.events import Event, Listener, silent
from metier.inference.continuations import Continuation, Likelihood, likelihoods
from metier.inference.engine import Request
from metier.inference.loaded import Loaded, open_base, open_run
from metier.model.loading import NumberFormat
from metier.run import Run

_MAX_GEN_TOKS = 256  # where a task does not say; as lm-eval's own models
# Of a task's generation_kwargs: what is obeyed, and what means nothing to greedy decoding.
_OBEYED = {"until", "max_gen_toks", "do_sample", "temperature"}
_IDLE = {"top_p", "top_k", "seed"}

Tokens = tuple[tuple[str, str], list[int], list[int]]
"""What lm-eval asks: the texts, the context's ids, the continuation's ids."""


class Arguments(BaseModel):
    """`--model_args`, and what lm-eval's command always adds."""

    model_config = ConfigDict(extra="forbid")

    pretrained: str  # a run's folder or name, a base's directory or name
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    device: str | None = None
    max_length: int | None = None
    add_bos_token: bool | None = None
    # Trees are cut by tokens: how many rows one forward reads follows from their lengths.
    batch_size: int | str | None = None
    max_batch_size: int | None = None


@dataclass
class _Answering:
    """A request on its way: what has been said, and what would end it."""

    place: int
    until: Sequence[str]
    tokens: list[int] = field(default_factory=list)


class MetierLM(TemplateLM):  # type: ignore[misc]
    """A run or a base behind lm-eval's interface; the same numbers as its `hf` backend gives."""

    def __init__(
        self,
        loaded: Loaded,
        *,
        max_length: int | None = None,
        add_bos_token: bool | None = None,
        listen: Listener = silent,
    ) -> None:
        super().__init__()
        self._loaded = loaded
        self._max_length = min(max_length or loaded.context, loaded.context)
        self._add_bos_token = add_bos_token
        self._listen = listen
        self._device = loaded.forward.device
        self.tokenizer = loaded.renderer.tokenizer
        self.shortened = 0  # contexts that lost their beginning

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> MetierLM:
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: Mapping[str, Any], additional_config: Mapping[str, Any] | None = None
    ) -> MetierLM:
        """From `--model_args pretrained=runs/X`. Raises `MetierError` for an argument that there is not."""
        more = {key: value for key, value in (additional_config or {}).items() if value is not None}
        arguments = _arguments({**arg_dict, **more})
        return cls(_open(arguments), max_length=arguments.max_length, add_bos_token=arguments.add_bos_token)

    @property
    def eot_token_id(self) -> int | None:
        eos: int | None = self.tokenizer.eos_token_id
        return eos

    @property
    def prefix_token_id(self) -> int:
        """What stands in front of a continuation without a context. Raises `MetierError` where there is none."""
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        raise MetierError(f"{self.tokenizer.name_or_path}: has neither BOS nor end token to put in front of a text")

    @property
    def max_length(self) -> int:
        return self._max_length

    @property
    def max_gen_toks(self) -> int:
        return _MAX_GEN_TOKS

    @property
    def tokenizer_name(self) -> str:
        """Under which lm-eval caches requests: another template makes other requests."""
        digest = self._loaded.renderer.template_digest[:10]
        return f"{self.tokenizer.name_or_path}-{digest}".replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self._loaded.renderer.template if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        messages = [Message(each["role"], each["content"]) for each in chat_history]
        return self._loaded.renderer.text(messages, open_turn=add_generation_prompt)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Ids as lm-eval's `hf` makes them: the tokenizer's own, a BOS that the text brings not doubled."""
        if add_special_tokens is None:
            begun = has_bos_prefix(string, self.tokenizer.decode(self.prefix_token_id))
            add_special_tokens = False if begun else self._add_bos_token
        how = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        ids: list[int] = self.tokenizer.encode(string, **how)
        return ids

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        return found

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Of whole texts, each token predicted once; the windows of all texts are read together."""
        windows: list[Tokens] = []
        owners: list[int] = []
        for owner, (text,) in enumerate(request.args for request in requests):
            cut = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, 1)
            for context, tokens in map(make_disjoint_window, cut):
                windows.append((("", ""), context, tokens))
                owners.append(owner)
        sums = [0.0] * len(requests)
        for owner, (logprob, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            sums[owner] += logprob
        return sums

    def _loglikelihood_tokens(self, requests: Sequence[Tokens], **_: Any) -> list[tuple[float, bool]]:
        asked = [self._continuation(*request) for request in requests]
        found: dict[int, Likelihood] = {}
        for some in likelihoods(self._loaded, asked, self.max_length):
            found.update(some)
            self._listen(Event("benchmarks", len(found), len(asked)))
        return [(found[place].logprob, found[place].greedy) for place in range(len(asked))]

    def _continuation(self, texts: tuple[str, str], context: list[int], tokens: list[int]) -> Continuation:
        if not 0 < len(tokens) <= self.max_length:
            shown = texts[1] if len(texts[1]) < 40 else f"{texts[1][:40]}…"
            problem = f"the continuation {shown!r} has {len(tokens)} tokens; the model reads 1 to {self.max_length}"
            raise RunError(problem, "leave the item out of the task")
        self.shortened += len(context) + len(tokens) > self.max_length + 1
        return Continuation(tuple(context), tuple(tokens))

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Greedy answers, each up to the first of its stop texts; all decode together."""
        engine, answers = self._loaded.engine(), [""] * len(requests)
        active: dict[int, _Answering] = {}
        for place, request in enumerate(requests):
            asked, until = self._asked(*request.args)
            active[engine.submit(asked)] = _Answering(place, until)
        while active:
            for delta in engine.step():
                one = active[delta.handle]
                if delta.token is not None:
                    one.tokens.append(delta.token)
                if delta.finish or self._ended(one):
                    engine.cancel(delta.handle)
                    answers[active.pop(delta.handle).place] = self._text(one)
                    self._listen(Event("benchmarks", len(requests) - len(active), len(requests)))
        return answers

    def _asked(self, context: str, how: Mapping[str, Any]) -> tuple[Request, list[str]]:
        """The request and its stop texts. Raises `MetierError` for what greedy decoding cannot do."""
        keywords = normalize_gen_kwargs(dict(how), self.max_gen_toks)
        strange = [name for name in keywords if name not in _OBEYED | _IDLE]
        if strange or keywords["do_sample"]:
            what = ", ".join(strange) or "do_sample"
            raise MetierError(f"the task's generation_kwargs ask for {what}; metier decodes greedily", "remove it")
        new = keywords["max_gen_toks"]
        if new >= self.max_length:
            problem = f"the task wants {new} new tokens; the model reads {self.max_length} altogether"
            raise MetierError(problem, "lower max_gen_toks in the task's generation_kwargs")
        ids = self.tok_encode(context) or [self.prefix_token_id]
        self.shortened += len(ids) > self.max_length - new
        eos = self.tokenizer.decode(self.eot_token_id) if self.eot_token_id is not None else None
        until = handle_stop_sequences(keywords["until"], eos=eos)
        return Request(tuple(ids[new - self.max_length :]), new, self._stop_ids()), until

    def _stop_ids(self) -> frozenset[int]:
        """The template's end of turn, which tuned models write, and all that the base's own generation stops at."""
        own = getattr(getattr(self._loaded.forward.network, "generation_config", None), "eos_token_id", None)
        return self._loaded.renderer.stop_ids | set([own] if isinstance(own, int) else own or [])

    def _ended(self, one: _Answering) -> bool:
        """Whether a stop text is there; only the last tokens can have brought it."""
        longest = max((len(text.encode()) for text in one.until), default=0)
        tail = self.tokenizer.decode(one.tokens[-longest - 4 :], skip_special_tokens=True)
        return any(text and text in tail for text in one.until)

    def _text(self, one: _Answering) -> str:
        text = self.tokenizer.decode(one.tokens, skip_special_tokens=True)
        return str(postprocess_generated_text(text, list(one.until), None))


def _arguments(given: Mapping[str, Any]) -> Arguments:
    try:
        return Arguments.model_validate(given)
    except ValidationError as error:
        raise MetierError(f"--model_args: {'; '.join(map(_complaint, error.errors()))}") from None


def _complaint(error: Mapping[str, Any]) -> str:
    name = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"{name}: is no argument of the model{nearest(name, Arguments.model_fields)}"
    return f"{name}: {str(error['msg']).lower()}"


def _open(arguments: Arguments) -> Loaded:
    name = arguments.pretrained
    if not any((folder / "run.json").is_file() for folder in (Path(name), Path("runs") / name)):
        compute = arguments.dtype or "float32"
        return open_base(name, NumberFormat(compute, compute), _device(arguments.device))
    run = Run.open(name)
    if arguments.dtype:
        raise MetierError(f"{name}: a run keeps the number format that it was measured in", "leave dtype out")
    if run.why_shut:
        raise MetierError(f"{name}: {run.why_shut}", "choose another run")
    return open_run(run)


def _device(asked: str | None) -> str:
    """lm-eval's command says cuda:0 unless it is told otherwise, on machines without one too."""
    return "cpu" if asked is None or (asked.startswith("cuda") and not torch.cuda.is_available()) else asked
