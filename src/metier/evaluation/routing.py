"""The untuned base as a router: the domains' names as a closed set, scored as any label is."""

from __future__ import annotations

from collections.abc import Sequence

from metier.data.asking import typed
from metier.data.items import Message
from metier.data.rendering import Renderer
from metier.data.replies import Replies
from metier.evaluation.answering import Limits, answer
from metier.events import Listener, silent
from metier.inference.conversation import softmax
from metier.inference.engine import Engine
from metier.routing import Route

# What all texts share stands in front, where it is read once.
WORDING = "Which topic is this message about? Please choose an answer from {{{names}}}.\nMessage: {text}\nTopic:"


def by_base(
    engine: Engine,
    renderer: Renderer,
    texts: Sequence[str],
    domains: Sequence[str],
    limits: Limits,
    listen: Listener = silent,
) -> list[Route]:
    """The likeliest of the domains' names for each text, with its share among them.

    It has no threshold; (None, 0.0) is a text longer than `limits.max_length`.
    """
    asked = [[Message("user", WORDING.format(text=text, names="/".join(domains)))] for text in texts]
    items = [typed("", each, Replies("label", tuple(domains))) for each in asked]
    answers = answer(engine, renderer, items, limits, listen, "routing")
    return [(each.output, max(softmax(each.label_logprobs))) if each.output else (None, 0.0) for each in answers]
