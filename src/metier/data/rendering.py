"""Conversations → token ids, by the tokenizer's own chat template; the one renderer for every use.

What a user types never becomes a control token. Text without such strings gives exactly the ids of
`apply_chat_template`; text with them is encoded by a twin tokenizer in which the control tokens bear
names that nobody can type, and only those of the template are renamed with it.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from metier.data.items import Item, Message
from metier.data.pieces import Pieces
from metier.errors import ModelError
from metier.files import digest
from metier.trees import Example

# For a base without a template of its own; an answer ends with the end token, and nothing else does.
DEFAULT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


# Templates that tell the date (Llama 3.1's and later) get this one, the constant that Llama's own falls back to
# (docs/decisions/0008): a run's rows must be the same tomorrow.
_CODES = ("d", "-d", "m", "-m", "y", "Y", "b", "B", "a", "A", "j", "H", "M", "S")
_TODAY = "".join(f" | replace('%{code}', '{date(2024, 7, 26).strftime(f'%{code}')}')" for code in _CODES)
_CLOCK = f"{{% macro strftime_now(format) %}}{{{{ format{_TODAY} }}}}{{% endmacro %}}"


@dataclass(frozen=True)
class Ending:
    """What a template puts around an answer: text between the generation prompt and it, and the end of turn."""

    lead: str
    end: str


@dataclass(frozen=True)
class _Reply:
    """The ids behind a prompt: the template's lead, the answer from `first` up to `last`, what ends the turn."""

    ids: tuple[int, ...]
    first: int
    last: int

    @property
    def weights(self) -> tuple[float, ...]:
        """1 on the answer and on the end-of-turn token, which comes last; 0 on what the template puts between."""
        inside = range(self.first, self.last)
        return tuple(float(place in inside or place == len(self.ids) - 1) for place in range(len(self.ids)))


class Renderer:
    """A tokenizer with its template. Every method raises `ModelError` where the template cannot do it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.template: str = template or tokenizer.chat_template or self._default()
        self._backend: Tokenizer = tokenizer.backend_tokenizer
        self._backend.no_truncation()  # some tokenizers are saved so that they cut
        self._backend.no_padding()
        self.written = Pieces(self._backend)
        added = {token.content for token in tokenizer.added_tokens_decoder.values()}
        # phi-2 adds runs of spaces: what people write by chance controls nothing, unless, as ChatGLM's sop, the
        # template writes it too.
        controls = (each for each in added if each.strip() and (not each.isalnum() or each in self.template))
        self._controls = sorted(controls, key=len, reverse=True)
        self._labels: dict[tuple[tuple[str, ...], tuple[int, ...]], list[_Reply]] = {}
        self._control_pattern = _any_of(self._controls)
        self._normal_pattern = _any_of([self._normal(each) for each in self._controls])

    @classmethod
    def load(cls, directory: Path, template: str | None = None) -> Renderer:
        return cls(cls.read_tokenizer(directory), template)

    @staticmethod
    def read_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
        """The family's own class, or the generic one, which reads a tokenizer.json as it is."""
        return _tokenizer(directory)

    def _default(self) -> str:
        if not self.tokenizer.eos_token:
            raise ModelError(f"{self.tokenizer.name_or_path}: has neither a chat template nor an end token")
        begins = self.tokenizer("x").input_ids[:1] == [self.tokenizer.bos_token_id]
        return ("{{ bos_token }}" if begins else "") + DEFAULT_TEMPLATE

    @property
    def template_digest(self) -> str:
        return digest(self.template)

    @cached_property
    def tokenizer_digest(self) -> str:
        return digest(self._backend.to_str())

    @cached_property
    def longest(self) -> int:
        """Characters of the longest token as it is written, more than which no token reads of what is typed."""
        return max(map(len, self.tokenizer.get_vocab()))

    @cached_property
    def ending(self) -> Ending:
        """Found by rendering a probe, so that no template needs editing."""
        question, answer = {"role": "user", "content": "ping"}, "pong" * 3
        prompt = self._text([question], open_turn=True)
        whole = self._text([question, {"role": "assistant", "content": answer}])
        found = whole.rfind(answer)
        if found < 0 or not whole.startswith(prompt):
            raise ModelError("the chat template's generation prompt is not what an answer follows; mend the template")
        tail = whole[found + len(answer) :]
        control = self._control_pattern.search(tail)
        if control is None:
            raise ModelError("the chat template ends no assistant turn with a control token; the model could not stop")
        return Ending(whole[len(prompt) : found], tail[: control.end()])

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a turn: the template's, and the tokenizer's end token."""
        ids = {self.encode(self.ending.end.strip())[-1]}
        return frozenset(ids | {each for each in [self.tokenizer.eos_token_id] if each is not None})

    @cached_property
    def forgeable(self) -> tuple[str, ...]:
        """What begins an answer, or ends the system's words, where the template writes it as plain text: whoever types
        it can forge a turn. Control tokens cannot be typed."""
        question = {"role": "user", "content": "ping"}
        seams = [self._text([question], open_turn=True).rpartition("ping")[2]]
        with suppress(ModelError):  # some templates know no system prompt
            whole = self._text([{"role": "system", "content": "pang"}, question])
            seams += [whole.partition("pang")[2].partition("ping")[0]]
        return tuple(each.strip() for each in seams if each.strip() and not self._control_pattern.search(each))

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The ids behind which the assistant's next answer is generated."""
        return self._ids(messages, open_turn=True)

    def conversation_ids(self, messages: Sequence[Message]) -> list[int]:
        """The ids of a whole conversation."""
        return self._ids(messages, open_turn=False)

    def text(self, messages: Sequence[Message], *, open_turn: bool = True) -> str:
        """A conversation as the template writes it, for vendors that tokenise text themselves.

        Without `open_turn` its last message is the beginning of an answer.
        """
        if not open_turn:
            return self.text(messages[:-1]) + self.ending.lead + messages[-1].content
        return self._text([{"role": each.role, "content": each.content} for each in messages], open_turn=True)

    def example(self, item: Item) -> Example:
        """The row of one item and its right reply.

        Exactly the assistant's text and its end-of-turn token have weight. The row is the generation
        prompt's ids and what follows them, so that training reads what inference writes.
        """
        return self.reply_row(item, item.reference)

    def reply_row(self, item: Item, text: str) -> Example:
        """Likewise with any text as the reply."""
        prompt = self.prompt_ids(item.asked)
        reply = self._follow(item.asked, text, prompt)
        return Example((*prompt, *reply.ids), (*[0.0] * len(prompt), *reply.weights))

    def rows(self, item: Item, max_length: int) -> list[Example]:
        """All that scoring an item reads: a row for each of its replies, or the windows of a plain text."""
        match item.kind:
            case "passage":
                return self.windows(item.reference, max_length)
            case "label" | "choice":
                return self.label_rows(item)
            case _:
                return [self.reply_row(item, reply) for reply in item.replies]

    def label_rows(self, item: Item) -> list[Example]:
        """A row for each reply of a closed set, its score being the sum over the reply's tokens.

        The end-of-turn token counts only if one reply is a prefix of another, which it then tells apart.
        """
        prompt = self.prompt_ids(item.asked)
        # The seam needs only the prompt's last tokens: the same for all items, so each label is encoded once.
        known = self._labels.setdefault((item.replies, tuple(prompt[-8:])), [])
        if not known:
            known += _told_apart([self._follow(item.asked, reply, prompt) for reply in item.replies])
        return [Example((*prompt, *each.ids), (*[0.0] * len(prompt), *each.weights)) for each in known]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, without control tokens and the template's lead."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=True)
        return text.removeprefix(self.ending.lead) if self.ending.lead.strip() else text.strip()

    def spelled(self, ids: Sequence[int]) -> list[str]:
        """Each token as people write it; a character made of several stands with its last one."""
        if "ByteLevel" not in str(self._backend.decoder):
            return [str(self._backend.id_to_token(each)).replace("▁", " ") for each in ids]
        found: list[str] = []
        begun: list[int] = []
        for each in ids:
            begun.append(each)
            text: str = self._backend.decode(begun, skip_special_tokens=False)
            whole = "\ufffd" not in text or len(begun) == 4  # bytes of the longest character
            found.append(text if whole else "")
            begun = [] if whole else begun
        return found

    def passage(self, text: str) -> Example:
        """Raw text as a row: every token counts but the first, which nothing precedes."""
        bos = [self.tokenizer.bos_token_id] if self._begins else [self.tokenizer.eos_token_id]
        ids = [*(each for each in bos if each is not None), *self.encode(text)]
        return Example(tuple(ids), (0.0, *[1.0] * (len(ids) - 1)))

    def windows(self, text: str, max_length: int) -> list[Example]:
        """A raw text in rows of at most `max_length` tokens, in which every token but the first is predicted once."""
        ids, step = self.passage(text).tokens, max_length - 1
        return [
            Example(part, (0.0, *[1.0] * (len(part) - 1)))
            for start in range(0, max(1, len(ids) - 1), step)
            if len(part := ids[start : start + max_length]) > 1
        ]

    def encode(self, text: str) -> list[int]:
        """Ids of template text, control tokens included and nothing put in front."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def raw_ids(self, text: str) -> list[int]:
        """Ids of text that stands in no template, as the tokenizer begins one; no text becomes a control token."""
        # Not by `split_special_tokens`: that leaves the tokenizer so for whoever uses it next.
        encoder = self._twin[0] if self._forged(text) else self._backend
        ids: list[int] = self._backend.post_process(encoder.encode(text, add_special_tokens=False)).ids
        return ids

    def spoken(self, ids: Sequence[int], *, shown: bool = True) -> str:
        """Text of any ids as it stands, control tokens `shown` as they are written or left out."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=not shown)
        return text

    @cached_property
    def _begins(self) -> bool:
        """Whether the tokenizer itself puts a BOS in front of raw text."""
        ids: list[int] = self.tokenizer("x").input_ids
        return self.tokenizer.bos_token_id is not None and ids[0] == self.tokenizer.bos_token_id

    def _follow(self, messages: Sequence[Message], answer: str, prompt: list[int]) -> _Reply:
        """Answer and end of turn behind the prompt's ids, tokenised in one piece where that is seamless."""
        lead, end = self.ending.lead, self.ending.end
        encoder, (before, said, after) = self._pieces(messages, open_turn=True, answer=answer)
        whole = encoder.encode(before + lead + said + after, add_special_tokens=False)
        if whole.ids[: len(prompt)] == prompt:
            begin = len(before) + len(lead)
            spans = whole.offsets[len(prompt) :]
            first = next((place for place, span in enumerate(spans) if span[1] > begin), 0)
            last = next((place for place, span in enumerate(spans) if span[0] >= begin + len(said)), len(spans))
            return _Reply(tuple(whole.ids[len(prompt) :]), first, last)
        ids = self._alone(lead + answer)
        return _Reply((*ids, *self.encode(end.strip())), 0, len(ids))

    def _ids(self, messages: Sequence[Message], *, open_turn: bool) -> list[int]:
        encoder, (text, *_) = self._pieces(messages, open_turn=open_turn)
        ids: list[int] = encoder.encode(text, add_special_tokens=False).ids
        self._assert_begin(ids)
        return ids

    def _pieces(
        self, messages: Sequence[Message], *, open_turn: bool, answer: str = ""
    ) -> tuple[Tokenizer, tuple[str, str, str]]:
        """What encodes, and in its spelling: the conversation, the answer (a user's text), the template's end."""
        plain = [{"role": message.role, "content": message.content} for message in messages]
        end = self.ending.end if answer else ""
        if not any(self._forged(text) for text in (*(each.content for each in messages), answer)):
            return self._backend, (self._text(plain, open_turn=open_turn), answer, end)
        # With the twin: typed control strings hide while the template's own are renamed.
        twin, names = self._twin
        hidden = {control: f"{names[control]}typed" for control in self._controls}

        def hide(text: str) -> str:
            return self._control_pattern.sub(lambda match: hidden[match.group()], text)

        def rename(text: str) -> str:
            text = self._control_pattern.sub(lambda match: names[match.group()], text)
            for control, mask in hidden.items():
                text = text.replace(mask, control)
            return text

        masked = [{**message, "content": hide(message["content"])} for message in plain]
        return twin, (rename(self._text(masked, open_turn=open_turn)), answer, rename(end))

    def _alone(self, text: str) -> list[int]:
        """Ids of a user's text by itself, free of control tokens."""
        if not self._forged(text):
            return self.encode(text)
        ids: list[int] = self._twin[0].encode(text, add_special_tokens=False).ids
        return ids

    def _forged(self, text: str) -> bool:
        """Whether a user's text would be read as a control token, as it is typed or once it is normalised."""
        return bool(self._control_pattern.search(text) or self._normal_pattern.search(self._normal(text)))

    def _normal(self, text: str) -> str:
        normalizer = self._backend.normalizer
        return normalizer.normalize_str(text) if normalizer else text

    @cached_property
    def _twin(self) -> tuple[Tokenizer, dict[str, str]]:
        """The same tokenizer with its control tokens under secret names, and those names."""
        nonce = secrets.token_hex(8)
        names = {control: f"\ue000{nonce}{index}\ue001" for index, control in enumerate(self._controls)}
        state: dict[str, Any] = json.loads(self._backend.to_str())
        for token in state["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        state["model"] = _rename(state["model"], names)
        state["post_processor"] = None
        twin = Tokenizer.from_str(json.dumps(state))
        for control in self._controls:
            if twin.token_to_id(names[control]) != self._backend.token_to_id(control):
                raise ModelError(f"the tokenizer's control token {control!r} cannot be told from typed text")
        return twin, names

    def _text(self, messages: list[dict[str, str]], *, open_turn: bool = False) -> str:
        from jinja2.exceptions import TemplateError

        try:
            text = self.tokenizer.apply_chat_template(
                messages,
                chat_template=(_CLOCK if "strftime_now" in self.template else "") + self.template,
                tokenize=False,
                add_generation_prompt=open_turn,
            )
        except TemplateError as error:
            roles = ", ".join(message["role"] for message in messages)
            raise ModelError(f"the chat template refuses a conversation of {roles}: {error}") from None
        return str(text)

    def _assert_begin(self, ids: list[int]) -> None:
        """Two BOS in front are a known way to ruin a model."""
        bos = self.tokenizer.bos_token_id
        if bos is not None and any(one == two == bos for one, two in pairwise(ids[:4])):
            raise ModelError("the chat template and the tokenizer both put a BOS in front; mend the template")


def _told_apart(replies: list[_Reply]) -> list[_Reply]:
    """Without what ends the turn, unless one reply begins another."""
    bare = [_Reply(each.ids[: each.last], each.first, each.last) for each in replies]
    nested = any(one.ids != two.ids and two.ids[: one.last] == one.ids for one in bare for two in bare)
    return replies if nested else bare


def _any_of(texts: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(each) for each in texts if each) or r"(?!)")


def _tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """The family's own class, or the generic one, which reads a tokenizer.json as it is."""
    problem = ""
    for family in (AutoTokenizer, PreTrainedTokenizerFast):
        try:
            tokenizer: PreTrainedTokenizerBase = family.from_pretrained(directory, trust_remote_code=False)
        except Exception as error:  # the Rust library raises nothing narrower for a broken file
            problem = problem or str(error).strip().splitlines()[0]
            continue
        if hasattr(tokenizer, "backend_tokenizer"):
            return tokenizer
        problem = problem or "it has only a slow tokenizer"
    raise ModelError(
        f"{directory}: has no tokenizer that can be loaded: {problem}; save a tokenizer.json beside the model"
    )


def _rename(model: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """A tokenizer model whose vocabulary knows control tokens only by their secret names."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        renamed: Any = {names.get(piece, piece): index for piece, index in vocabulary.items()}
    else:
        renamed = [[names.get(piece, piece), score] for piece, score in vocabulary]
    return {**model, "vocab": renamed, "unk_token": names.get(model.get("unk_token") or "", model.get("unk_token"))}
