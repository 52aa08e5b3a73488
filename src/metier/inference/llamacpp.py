"""llama.cpp's server as the engine: a base and its low-rank adapters as GGUF, each request with its own.

It computes in its own kernels and its own way, so what is served is near what was measured, not equal to it.
Of its API: https://github.com/ggml-org/llama.cpp/tree/master/tools/server.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from metier.artifacts.gguf import GGUF, reach, write_adapter, write_base
from metier.data.rendering import Renderer
from metier.errors import MetierError
from metier.events import Event, Listener
from metier.files import MANIFEST, digest, file_digest, write_directory
from metier.hardware import probe
from metier.inference.elsewhere import Ask, Child, Elsewhere, Json, Said
from metier.inference.engine import Request
from metier.inference.foundation import Foundation, open_foundation
from metier.inference.grammars import JsonGrammar
from metier.inference.logprobs import Read
from metier.inference.sampling import Sampling
from metier.inference.voices import Ground, Limits
from metier.inference.worker import Worker
from metier.model.loading import read_config
from metier.model.outline import cache_width
from metier.run import Run
from metier.trees import Example

NAME = "llamacpp"

_SERVER = "llama-server"
_CONTEXT = 4096  # tokens of one conversation, where the base reads as many
_CACHE = 0.3  # of the memory that is free, for keys and values
_FORCED = 1e9  # a bias that no logit outweighs
_ORDER = ("penalties", "temperature", "top_k", "top_p", "min_p")  # as metier's own sampling goes


def open_llamacpp(runs: Mapping[str, Run], limits: Limits, offline: bool, listen: Listener) -> Ground:
    """Runs of one base behind a llama-server of their own.

    Raises `MetierError` where there is none, or where GGUF has no form for a base or an adapter.
    """
    server = shutil.which(_SERVER)
    if server is None:
        problem = f"engine = {NAME} needs {_SERVER}, which is not on the path"
        raise MetierError(problem, "install llama.cpp, or leave the engine to metier")
    base = open_foundation(runs, NAME, offline=offline, listen=listen)
    config = read_config(base.source.directory)
    context = min(reach(config), _CONTEXT)
    width = int(config.num_hidden_layers) * cache_width(config) * 2  # bytes of a position, in float16
    sequences = max(1, min(limits.sequences, int(_CACHE * probe().room("cpu")) // (width * context)))
    listen(Event("note", values={"text": f"{_SERVER} reads {base.model} with {len(base.adapters)} adapters"}))
    model, adapters = _files(base, next(iter(runs.values())).directory.parent / "gguf")

    def command(port: int) -> list[str]:
        how = ["--host", "127.0.0.1", "--port", str(port), "-m", str(model)]
        how += ["-np", str(sequences), "-c", str(sequences * context), "--cache-ram", "0", "--no-webui", "--no-slots"]
        loras = ["--lora", ",".join(map(str, adapters)), "--lora-init-without-apply"] if adapters else []
        return [server, *how, *loras]

    child = Child(command, "LLAMA_API_KEY", {})
    engine = Elsewhere(child, LlamaCpp(base.renderer, [*base.adapters], context), sequences)
    worker = Worker(engine, sequences=sequences, capacity=limits.waiting)
    known = (base.model, base.home, base.renderer, int(config.vocab_size), context, worker)
    return Ground(*known, engine=NAME, close=child.stop)


def _files(base: Foundation, folder: Path) -> tuple[Path, list[Path]]:
    """The GGUF of a base and of its adapters, written where they are not there yet."""
    what = digest([GGUF, base.source.weights_digest, base.renderer.tokenizer_digest, base.renderer.template_digest])
    model = folder / f"base-{what[:10]}"
    if not model.is_dir():
        write_directory(model, lambda to: write_base(base.source.directory, base.renderer, to / "model.gguf"))
    adapters = []
    for adapter in base.adapters.values():
        to = folder / f"adapter-{digest([GGUF, file_digest(adapter / MANIFEST)])[:10]}"
        if not to.is_dir():
            write_directory(to, partial(_write_adapter, adapter, base.source.directory))
        adapters.append(to / "adapter.gguf")
    return model / "model.gguf", adapters


def _write_adapter(adapter: Path, base: Path, to: Path) -> None:
    write_adapter(adapter, base, to / "adapter.gguf")


class LlamaCpp:
    """How llama-server is asked. Its caches are left unused, for they would be shared between tenants.

    Its penalties count the prompt's tokens too, and it draws in its own way: a seed gives the same again, not the same
    as elsewhere. Bytes that make no character end what it tells of an answer.
    """

    path = "/completion"

    def __init__(self, renderer: Renderer, adapters: Sequence[str], context: int) -> None:
        self._renderer = renderer
        self._adapters = adapters
        self._context = context

    def body(self, request: Request) -> Json:
        asked = {**self._asked(request.prompt, request.adapter), **_rules(request.sampling), "stream": True}
        asked |= {"n_predict": request.max_new_tokens, "repeat_last_n": self._context}
        if request.logprobs is not None:
            asked["n_probs"] = max(1, request.logprobs)
        if isinstance(request.grammar, JsonGrammar):
            asked["json_schema"] = request.grammar.schema
        return asked

    def told(self, event: Json, said: int) -> Iterator[Said]:
        if event["stop"]:
            yield Said(None, "length" if event["stop_type"] == "limit" else "stop")
            return
        for token in event["tokens"]:
            if event["tokens_predicted"] > said + 1:  # it tells no token that ends within a character
                yield from (Said(each) for each in self._within(event["content"]))
            else:
                probabilities = event.get("completion_probabilities")
                yield _likely(token, probabilities[0]) if probabilities else Said(token)

    def weigh(self, row: Example, adapter: str, ask: Ask) -> float:
        """Token by token, each forced: what is told of it is the model's own, before any rule."""
        places = [place for place, weight in enumerate(row.weights) if weight]
        told = [self._forced(row.tokens, place, 1, adapter, ask).logprob or 0.0 for place in places]
        return sum(row.weights[place] * each for place, each in zip(places, told, strict=True))

    def read(self, row: Sequence[int], top: int, adapter: str, ask: Ask, begin: int) -> list[Read]:
        if begin:
            return [self._forced(row, place, top, adapter, ask) for place in range(begin, len(row))]
        problem = f"engine = {NAME}: it does not tell how likely a prompt's own tokens are"
        raise MetierError(problem, "leave echo out, or serve with metier's own engine")

    def _forced(self, tokens: Sequence[int], place: int, top: int, adapter: str, ask: Ask) -> Read:
        wanted = {"n_predict": 1, "n_probs": max(1, top), "temperature": 0, "logit_bias": [[tokens[place], _FORCED]]}
        found = ask({**self._asked(tokens[:place], adapter), **wanted})["completion_probabilities"][0]
        assert found["id"] == tokens[place], "nothing outweighs the bias"
        likely = _likely(tokens[place], found)
        return Read(tokens[place], likely.logprob, likely.top[:top])

    def _asked(self, prompt: Sequence[int], adapter: str) -> Json:
        scales = [{"id": place, "scale": float(name == adapter)} for place, name in enumerate(self._adapters)]
        return {"prompt": [*prompt], "lora": scales, "cache_prompt": False, "return_tokens": True}

    def _within(self, text: str) -> list[int]:
        """Tokens that say a text of which it told the last one alone: as it is written, or byte by byte."""
        known = self._renderer.tokenizer.get_vocab()
        if "<0x00>" not in known:
            return self._renderer.encode(text)
        return [known[f"<0x{each:02X}>"] for each in text.encode()]


def _likely(token: int, told: Json) -> Said:
    top = tuple((each["id"], each["logprob"]) for each in told["top_logprobs"])
    return Said(token, "", told["logprob"], top)


def _rules(sampling: Sampling) -> Json:
    """Its seed has 32 bits, of which the last number is none."""
    return {
        "samplers": [*_ORDER],
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repetition_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "logit_bias": [[token, more] for token, more in sampling.bias.items()],
        "seed": -1 if sampling.seed is None else sampling.seed % (2**32 - 1),
    }
