"""What is typed → an item, made as the rows of its domain's file were."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from metier.data.conversations import read_conversations
from metier.data.items import Item, Message
from metier.data.replies import Replies, Unreadable, read_replies
from metier.data.sources import Row
from metier.data.templates import PLACEHOLDER, closed_set, prompt_template, shared_system, system_template
from metier.domain import Domain
from metier.errors import Fault, MetierError

_PLACE = "what was typed"
_UNTYPED = ("history", "tools", "rejected", "rating", "id", "group")  # of a mapping: what no question is made of
OPEN = Replies("open", ("",))


def asked_columns(domain: Domain, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns out of which a row's question is made; none where the file holds whole messages or plain text."""
    if not domain.prompt or domain.messages or domain.conversation or domain.text:
        return ()
    names = [name for name in prompt_template(domain, columns).columns if not (domain.choices and name == "choices")]
    if domain.choices:
        names += [domain.choices] if isinstance(domain.choices, str) else domain.choices
    if shared_system(domain):  # what a column alone says is a matter of each row
        names += system_template(domain, columns).columns
    return tuple(dict.fromkeys(names))


def ask(domain: Domain, cells: Mapping[str, object]) -> Item:
    """The question of a row with these cells, and its replies where they are a closed set.

    Raises `MetierError` where the cells make no question.
    """
    row = Row(_PLACE, 0, dict(cells))
    kept = domain.system if shared_system(domain) or system_column(domain) in cells else None
    untyped = {**dict.fromkeys(_UNTYPED), "answer": "…", "system": kept}
    found = next(iter(read_conversations(domain.model_copy(update=untyped), [row], lambda _: None)))
    if isinstance(found, Fault):
        raise MetierError(f"{found.place}: {found.problem}", found.fix)
    *asked, _ = found.turns
    return typed(domain.name, [Message(each.role, each.content) for each in asked], _replies(domain, row))


def typed(domain: str, messages: Sequence[Message], replies: Replies = OPEN) -> Item:
    """What somebody says as an item of a domain, or of none (""); no answer to it is known."""
    return Item("", domain, "", _PLACE, 0, tuple(messages), replies.texts, kind=replies.kind)


def system_column(domain: Domain) -> str:
    """The column that alone holds a row's system prompt, or ""."""
    return "" if shared_system(domain) or not domain.system else domain.system[1:-1]


def _replies(domain: Domain, row: Row) -> Replies:
    """The closed set of a domain, or a question's own choices."""
    if labels := closed_set(domain):
        return Replies("label", labels)
    if not domain.choices:
        return OPEN
    try:
        return read_replies(domain.model_copy(update={"label_map": None}), row, "A")
    except Unreadable as error:
        raise MetierError(f"{_PLACE}: {error.field}: {error.problem}", error.fix) from None


def read_back(domain: Domain, columns: Sequence[str], prompt: str) -> dict[str, str]:
    """The cells that a prompt was made of, whatever was said in front of it; {} where that cannot be seen."""
    template = prompt_template(domain, columns)
    pattern, groups = r"(?:\A|^user: )", dict[str, str]()
    for number, part in enumerate(PLACEHOLDER.split(template.text.strip("\n"))):
        if number % 2 == 0:
            pattern += re.escape(part)
        elif part not in template.columns:
            pattern += re.escape(f"{{{part}}}")
        else:
            pattern += f"(?P={groups[part]})" if part in groups else f"(?P<c{number}>.*?)"
            groups.setdefault(part, f"c{number}")
    found = re.search(rf"{pattern}\Z", prompt, re.DOTALL | re.MULTILINE)
    return {name: found[group] for name, group in groups.items()} if found else {}


def turns_typed(domain: Domain, columns: Sequence[str], item: Item) -> list[str]:
    """What a user typed, turn by turn: the cells where a template was put around them, which would give it away."""
    turns = [message.content for message in item.messages if message.role == "user"]
    cells = (read_back(domain, columns, turn) if columns else {} for turn in turns)
    return ["\n".join(found.values()) or turn for turn, found in zip(turns, cells, strict=True)]
