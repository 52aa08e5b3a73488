"""A domain's mapping with some of its items, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from metier.data.dialects import TIED
from metier.data.items import Item
from metier.data.templates import answer_template, closed_set, prompt_template, system_template
from metier.domain import Domain

_WIDTH = 200  # characters of a text that people are shown


def explain(domain: Domain, items: Sequence[Item]) -> str:
    """The mapping and three items, for people."""
    keys = (
        "system",
        "messages",
        "history",
        "conversation",
        "role",
        "content",
        "time",
        "text",
        "prompt",
        "answer",
        "choices",
        "rejected",
        "rating",
        "tools",
        "instruction",
        "group",
        "versions",
        "labelled_by",
        "id",
    )
    lines = [f"{key:<13}{short(str(value))}" for key in keys if (value := getattr(domain, key)) is not None]
    if labels := closed_set(domain):
        counts = Counter(item.reference for item in items)
        lines.append(f"{'labels':<13}{short(', '.join(f'{label} ({counts[label]})' for label in labels))}")
    for item in items[:3]:
        lines.append(item.place)
        asked = ((message.role, message.content) for message in item.messages)
        lines += [f"  {role:<11}{short(text)}" for role, text in (*asked, *_replied(item))]
    return "\n".join(lines)


def unused(domain: Domain, columns: Sequence[str]) -> list[str]:
    """The columns from which the mapping takes nothing."""
    templates = (prompt_template, answer_template, system_template)
    used = {name for template in templates for name in template(domain, columns).columns}
    for value in domain.model_dump(mode="json", exclude_none=True, exclude_defaults=True).values():
        used |= {each for each in (value if isinstance(value, list | dict) else [value]) if isinstance(each, str)}
    if domain.versions:
        used |= {domain.versions.attribute, domain.versions.group}
    return [name for name in columns if name not in used and name != TIED]


def told(columns: Sequence[str]) -> str:
    """A line on columns from which nothing is taken."""
    return f"{'not used':<13}{short(', '.join(columns))}"


def _replied(item: Item) -> list[tuple[str, str]]:
    """What is answered, and what else a row tells of it."""
    match item.kind:
        case "preference":
            return [("→ liked", item.reference), ("→ disliked", item.other)]
        case "rated":
            return [("→ liked" if item.liked else "→ disliked", item.reference)]
        case "passage":
            return [("text", item.reference)]
    return [("→ answer", item.reference)]


def short(text: str, width: int = _WIDTH) -> str:
    """A text on one line, cut where it is long."""
    line = text.replace("\r", "").replace("\n", "⏎")
    return line if len(line) <= width else f"{line[:width]}…"
