"""Rows for a head that classifies: a prompt, and behind it the number of the right label as if it were a token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from metier.data.items import Item, Message
from metier.data.rendering import Renderer
from metier.trees import Example

# An encoder was never taught turns: it reads what is said, and nothing else.
_TEXT = "{% for message in messages %}{{ message['content'] }}{% if not loop.last %}{{ '\n' }}{% endif %}{% endfor %}"


@dataclass(frozen=True)
class Head:
    """The outputs of a head: those of each domain's labels in turn; whether it stands on an encoder."""

    labels: Mapping[str, tuple[str, ...]]
    encoder: bool

    @property
    def outputs(self) -> int:
        return sum(map(len, self.labels.values()))

    def output(self, domain: str, label: str) -> int:
        """The number of a domain's label among all outputs."""
        names = list(self.labels)
        before = sum(len(self.labels[name]) for name in names[: names.index(domain)])
        return before + self.labels[domain].index(label)


class HeadRenderer(Renderer):
    """The same prompts; a reply is one output of the head."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str | None, head: Head) -> None:
        super().__init__(tokenizer, template)
        self.head = head

    @property
    def plain(self) -> Renderer:
        """What the base without the head reads."""
        return Renderer(self.tokenizer, self.template)

    def reply_row(self, item: Item, text: str) -> Example:
        prompt = self.prompt_ids(item.asked)
        return Example((*prompt, self.head.output(item.domain, text)), (*[0.0] * len(prompt), 1.0))

    def label_rows(self, item: Item) -> list[Example]:
        return [self.reply_row(item, label) for label in item.replies]


class TextRenderer(HeadRenderer):
    """What an encoder reads: the messages' text, between the tokens that its own tokenizer puts around it."""

    def _default(self) -> str:
        return _TEXT

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        return self.raw_ids(self.text(messages))


def open_renderer(directory: Path, template: str | None, head: Head | None) -> Renderer:
    """The renderer of a base, with a head or without."""
    if head is None:
        return Renderer.load(directory, template)
    tokenizer = Renderer.read_tokenizer(directory)
    return (TextRenderer if head.encoder else HeadRenderer)(tokenizer, template, head)
