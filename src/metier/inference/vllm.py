"""vLLM as the engine, for those with a GPU and many users: a base with its adapters, each request with its own.

It computes in its own kernels and its own way, so what is served is near what was measured, not equal to it. Of its
API: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html. It is never installed by metier.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from metier.errors import MetierError
from metier.events import Event, Listener
from metier.files import read_json
from metier.inference.elsewhere import Ask, Child, Elsewhere, Json, Said
from metier.inference.engine import Request
from metier.inference.foundation import Foundation, open_foundation
from metier.inference.grammars import JsonGrammar
from metier.inference.logprobs import Read
from metier.inference.voices import Ground, Limits
from metier.inference.worker import Worker
from metier.model.loading import context, read_config
from metier.run import Run
from metier.trees import Example

NAME = "vllm"

_BASE = "metier:base"  # no run is called so
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that --max-lora-rank knows
_CONTEXT = 16_384  # tokens of one conversation, where the base reads as many
_QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
_TOP = 20  # likeliest tokens that OpenAI's API may ask for


def open_vllm(runs: Mapping[str, Run], limits: Limits, offline: bool, listen: Listener) -> Ground:
    """Runs of one base behind a vLLM of their own. Raises `MetierError` where there is none, or it does not start."""
    server = shutil.which("vllm")
    if server is None:
        raise MetierError(f"engine = {NAME} needs vllm, which is not on the path", "pip install vllm")
    base = open_foundation(runs, NAME, offline=offline, listen=listen)
    config = read_config(base.source.directory)
    length = min(context(config), _CONTEXT)
    listen(Event("note", values={"text": f"vllm reads {base.model} with {len(base.adapters)} adapters"}))

    def command(port: int) -> list[str]:
        how = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", _BASE, "--max-logprobs", str(_TOP)]
        how += ["--max-model-len", str(length), "--max-num-seqs", str(limits.sequences), "--generation-config", "vllm"]
        return [server, "serve", str(base.source.directory), *how, *_loras(base)]

    child = Child(command, "VLLM_API_KEY", _QUIET)
    worker = Worker(Elsewhere(child, Vllm(), limits.sequences), sequences=limits.sequences, capacity=limits.waiting)
    known = (base.model, base.home, base.renderer, int(config.vocab_size), length, worker)
    return Ground(*known, engine=NAME, close=child.stop)


def _loras(base: Foundation) -> list[str]:
    if not base.adapters:
        return []
    highest = max(_rank(read_json(each / "adapter_config.json")) for each in base.adapters.values())
    rank = next((each for each in _RANKS if each >= highest), None)
    if rank is None:
        raise MetierError(f"engine = {NAME}: an adapter has rank {highest}, more than {_RANKS[-1]}", "leave it out")
    modules = [f"{name}={path}" for name, path in base.adapters.items()]
    how = ["--enable-lora", "--max-loras", str(len(modules)), "--max-lora-rank", str(rank)]
    return [*how, "--lora-modules", *modules]


def _rank(config: Mapping[str, Any]) -> int:
    return int(max([config["r"], *(config.get("rank_pattern") or {}).values()]))


class Vllm:
    """How vLLM is asked. What a tenant reads is salted with its name, so that no other finds it in the cache."""

    path = "/v1/completions"

    def body(self, request: Request) -> Json:
        rules = request.sampling
        asked: Json = {
            **_asked(request.prompt, request.adapter, request.tenant),
            "max_tokens": request.max_new_tokens,
            "stop_token_ids": sorted(request.stop),
            "ignore_eos": True,  # which of them end a turn is said above
            "stream": True,
            "return_token_ids": True,
            "temperature": rules.temperature,
            "top_p": rules.top_p,
            "top_k": rules.top_k,
            "min_p": rules.min_p,
            "frequency_penalty": rules.frequency_penalty,
            "presence_penalty": rules.presence_penalty,
            "repetition_penalty": rules.repetition_penalty,
            "logit_bias": {str(token): more for token, more in rules.bias.items()},
            "seed": rules.seed,
        }
        if request.logprobs is not None:
            asked |= {"logprobs": request.logprobs, "return_tokens_as_token_ids": True}
        if isinstance(request.grammar, JsonGrammar):
            asked["structured_outputs"] = {"json": request.grammar.schema}
        return asked

    def told(self, event: Json, said: int) -> Iterator[Said]:
        for choice in event["choices"]:
            tokens, likely = choice.get("token_ids") or [], choice.get("logprobs")
            for place, token in enumerate(tokens):
                yield _likely(token, likely, place) if likely else Said(token)
            if choice.get("finish_reason"):
                yield Said(None, "length" if choice["finish_reason"] == "length" else "stop")

    def weigh(self, row: Example, adapter: str, ask: Ask) -> float:
        read = self.read(row.tokens, 0, adapter, ask, 0)
        return sum(weight * (each.logprob or 0.0) for weight, each in zip(row.weights, read, strict=True) if weight)

    def read(self, row: Sequence[int], top: int, adapter: str, ask: Ask, begin: int) -> list[Read]:
        answer = ask({**_asked(row, adapter, ""), "max_tokens": 1, "temperature": 0, "prompt_logprobs": top})
        first, *behind = answer["choices"][0]["prompt_logprobs"]
        assert first is None, "nothing stands in front of the first token"
        reads = [Read(row[0], None), *(_read(token, told, top) for token, told in zip(row[1:], behind, strict=True))]
        return reads[begin:]


def _asked(prompt: Sequence[int], adapter: str, tenant: str) -> Json:
    salt = {"cache_salt": tenant} if tenant else {}
    return {"model": adapter or _BASE, "prompt": [*prompt], "add_special_tokens": False, **salt}


def _read(token: int, told: Mapping[str, Json], top: int) -> Read:
    likeliest = sorted(((int(each), known["logprob"]) for each, known in told.items()), key=lambda each: -each[1])
    return Read(token, told[str(token)]["logprob"], tuple(likeliest[:top]))


def _likely(token: int, told: Json, place: int) -> Said:
    """Tokens are told as token_id:12."""
    known = told["top_logprobs"][place] or {}
    top = sorted(((int(name.partition(":")[2]), value) for name, value in known.items()), key=lambda each: -each[1])
    return Said(token, "", told["token_logprobs"][place], tuple(top))
