"""What stands around every model: safety in front and behind, and people to whom a conversation is handed over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from metier.assistant.feedback import Feedback
from metier.assistant.mood import Moods
from metier.assistant.safety import Safety
from metier.assistant.scope import Scope
from metier.assistant.store import Turn
from metier.assistant.tickets import Tickets, told_in
from metier.assistant.watch import Watch
from metier.data.items import Message
from metier.web.webhook import Webhook


@dataclass(frozen=True)
class Said:
    """What is answered instead of a model, and what a client is told of why."""

    text: str
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Care:
    """None of each is none of it; with none of all a model is heard as it is."""

    safety: Safety | None = None
    moods: Moods | None = None
    tickets: Tickets | None = None
    feedback: Feedback | None = None
    webhook: Webhook | None = None

    @property
    def asks_back(self) -> bool:
        """Whether nobody untuned answers where `auto` is not sure."""
        return self.safety is not None and self.safety.rules.unsure == "ask"

    def first(
        self, messages: Sequence[Message], domains: Sequence[str], among: Sequence[str] = (), *, talks: bool = True
    ) -> Said | None:
        """What comes before any model that answers in any of these domains: an emergency, a secret that must not be
        sent, also not where it was chosen `among` others, and where somebody `talks` a person who is wanted.
        """
        turns = [each.content for each in messages if each.role == "user"]
        waiting = _unanswered(messages)
        if not waiting:
            return None
        (*others, said), before = waiting, turns[: -len(waiting)]
        answered = before[-1] if before else ""
        how: dict[str, Any] = {"among": among, "unanswered": others, "answered": answered}
        found = self.safety.before(said, *domains, **how) if self.safety else None
        if found is None:
            return self._handed(messages, domains) if talks else None
        why = {"safety": {"kind": found.kind, "rule": found.rule, "because": found.because}}
        # Whoever sends a secret may want a person all the same.
        handed = self._handed(messages, domains) if talks and found.kind == "refusal" else None
        return Said(f"{found.text}\n\n{handed.text}", {**why, **handed.notes}) if handed else Said(found.text, why)

    def _handed(self, messages: Sequence[Message], domains: Sequence[str]) -> Said | None:
        """What is said where the mood calls for a person, who finds a ticket."""
        turns = [each.content for each in messages if each.role == "user"]
        heard = self.safety is None or self.safety.covers(turns[-1])
        mood = self.moods.of(turns) if self.moods and heard else None
        if mood is None or self.tickets is None:
            return None
        transcript = [Turn(each.role, each.content) for each in messages if each.role != "system"]
        told = told_in(transcript)
        ticket = self.tickets.open(transcript, domains[0] if len(domains) == 1 else "", mood, told)
        if self.webhook and not (told and ticket.id == told.id):
            self.webhook.post(ticket)
        return Said(ticket.handed, {"handover": {"ticket": ticket.id, "mood": mood.kind, "why": mood.why}})

    def declined(
        self, messages: Sequence[Message], domains: Sequence[str], scope: Scope | None, *, chosen: bool
    ) -> Said | None:
        """What is said to a question that is outside of a scope: in medicine, and where nobody chose who is asked.

        Nothing where it may be meant for a domain of which the scope learned nothing.
        """
        if scope is None or self.safety is None or not {*domains} <= {*scope.domains}:
            return None
        if chosen and not self.safety.is_medical(*domains):
            return None
        if scope.covers([each.content for each in messages if each.role == "user"]):
            return None
        return Said(self.safety.declined(scope.domains), {"safety": {"kind": "declined", "rule": "scope"}})

    def behind(self, domains: Sequence[str]) -> Watch:
        """Through which an answer passes that may belong to any of these."""
        return self.safety.behind(*domains) if self.safety else Watch()


def _unanswered(messages: Sequence[Message]) -> list[str]:
    """What users said since the last answer, oldest first."""
    since = takewhile(lambda each: each.role != "assistant", reversed(messages))
    return [each.content for each in since if each.role == "user"][::-1]
