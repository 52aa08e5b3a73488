"""A server that speaks as llama-server or vLLM does, as far as metier asks them; started under their names.

Its model: behind a token comes the one `STEP` further, or one more for each adapter's place; what is further away is
less likely. What it was asked, and whose ears left, it writes to the file that the environment names in STAND_IN.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

V, STEP = 512, 7
SLOW = V - 1  # a prompt that ends with it is answered slowly
BAD = V - 2  # with this one not at all
DEADLY = V - 3  # and this one is its end
STRANGE = V - 4  # and this one is answered in a form that nobody knows


def likely(prompt: Sequence[int], place: int) -> list[float]:
    """The log-probability of each token behind a prompt, through the adapter at a place, -1 for none."""
    wanted = (prompt[-1] + STEP + place + 1) % V
    scores = [-min((token - wanted) % V, (wanted - token) % V) / 2 for token in range(V)]
    total = math.log(sum(map(math.exp, scores)))
    return [score - total for score in scores]


def best(logprobs: Sequence[float], count: int) -> list[tuple[int, float]]:
    return sorted(enumerate(logprobs), key=lambda each: -each[1])[:count]


def note(what: Any) -> None:
    with Path(os.environ["STAND_IN"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(what) + "\n")


def said(prompt: Sequence[int], place: int, most: int, ends: Sequence[int], bias: Mapping[int, float]) -> Iterator[Any]:
    """Each token with what was likely there, up to one that ends it."""
    tokens = list(prompt)
    while len(tokens) < len(prompt) + most:
        logprobs = likely(tokens, place)
        token = max(range(V), key=lambda each: logprobs[each] + bias.get(each, 0))
        tokens.append(token)
        yield token, logprobs
        if token in ends:
            return


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._whole(200, {"status": "ok"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        note(body)
        if self.headers["Authorization"] != f"Bearer {SECRET}":
            self._whole(401, {"error": {"message": "Invalid API Key"}})
        elif body["prompt"][-1] == BAD:
            self._whole(400, {"error": {"message": "the prompt is bad"}})
        elif body["prompt"][-1] == DEADLY:
            os._exit(3)
        elif body["prompt"][-1] == STRANGE:
            self._stream([{"hello": "you"}], slow=False)
        elif NAME == "vllm":
            self._vllm(body)
        else:
            self._llama(body)

    def _llama(self, body: Mapping[str, Any]) -> None:
        place = next((each["id"] for each in body["lora"] if each["scale"]), -1)
        probabilities, count = body.get("n_probs", 0), 0
        events = []
        for token, logprobs in said(body["prompt"], place, body["n_predict"], (0,), dict(body["logit_bias"])):
            top = [{"id": each, "logprob": value} for each, value in best(logprobs, probabilities)]
            told = [{"id": token, "logprob": logprobs[token], "top_logprobs": top}] if probabilities else []
            count += 1
            if token == 0:
                break
            events.append({"tokens": [token], "content": "", "stop": False, "tokens_predicted": count})
            events[-1] |= {"completion_probabilities": told}
        kind = "eos" if count < body["n_predict"] else "limit"
        last = {"tokens": [], "content": "", "stop": True, "stop_type": kind, "tokens_predicted": count}
        if body.get("stream"):
            self._stream([*events, last], slow=body["prompt"][-1] == SLOW)
        else:
            self._whole(200, {**last, "completion_probabilities": events[0]["completion_probabilities"]})

    def _vllm(self, body: Mapping[str, Any]) -> None:
        prompt, place = body["prompt"], -1 if body["model"] == "metier:base" else MODELS.index(body["model"])
        if "prompt_logprobs" in body:
            known: list[Any] = [None]
            for end in range(1, len(prompt)):
                logprobs = likely(prompt[:end], place)
                told = {*best(logprobs, body["prompt_logprobs"]), (prompt[end], logprobs[prompt[end]])}
                known.append({str(token): {"logprob": value} for token, value in told})
            self._whole(200, {"choices": [{"prompt_logprobs": known}]})
            return
        events = []
        bias = {int(token): more for token, more in body["logit_bias"].items()}
        for token, logprobs in said(prompt, place, body["max_tokens"], body["stop_token_ids"], bias):
            choice: dict[str, Any] = {"index": 0, "token_ids": [token], "logprobs": None, "finish_reason": None}
            if body.get("logprobs") is not None:
                top = {f"token_id:{each}": value for each, value in best(logprobs, body["logprobs"])}
                choice["logprobs"] = {"token_logprobs": [logprobs[token]], "top_logprobs": [top]}
            events.append({"choices": [choice]})
        ended = events[-1]["choices"][0]
        ended["finish_reason"] = "stop" if ended["token_ids"][0] in body["stop_token_ids"] else "length"
        self._stream(events, slow=prompt[-1] == SLOW)

    def _whole(self, status: int, body: Mapping[str, Any]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def _stream(self, events: Sequence[Mapping[str, Any]], *, slow: bool) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            for event in events:
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
                self.wfile.flush()
                time.sleep(0.05 if slow else 0)
        except OSError:
            note("left")

    def log_message(self, *_: Any) -> None:
        """Nothing."""


if __name__ == "__main__":
    NAME, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    note(arguments)
    if "broken" in os.environ.get("STAND_IN_IS", ""):
        sys.exit("no room for so large a model")
    SECRET = os.environ["VLLM_API_KEY" if NAME == "vllm" else "LLAMA_API_KEY"]
    MODELS = [each.partition("=")[0] for each in arguments if "=" in each]
    ThreadingHTTPServer(("127.0.0.1", int(arguments[arguments.index("--port") + 1])), Handler).serve_forever()
