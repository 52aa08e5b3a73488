"""What people type → what a run's domains were measured on: the same templates, instructions and closed sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from metier.data.asking import OPEN, ask, read_back, system_column, typed
from metier.data.items import Item, Message
from metier.data.mappings import short
from metier.data.replies import Replies
from metier.data.retrieval import read_shelves
from metier.data.shots import Shots
from metier.data.showing import Front
from metier.data.sources import text_of
from metier.data.templates import closed_set, prompt_template, shared_system
from metier.domain import Domain
from metier.errors import MetierError
from metier.run import Run

Said = str | Mapping[str, object]
"""A text, or the cells of a template's columns."""


def front_of(run: Run) -> Front:
    """What stood in front of its questions when it was measured: examples, passages."""
    shots = {domain: Shots.of_json(value) for domain, value in run.shots().items()}
    return Front(shots, read_shelves(run.passages()) if run.passages() else {})


@dataclass(frozen=True)
class Questions:
    """A run's domains, asked as they were measured; `columns` are by domain those that make a question."""

    domains: Mapping[str, Domain]
    columns: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, run: Run) -> Self:
        facts = run.facts
        chosen = facts.get("wordings", {})
        domains = {
            domain.name: domain.model_copy(update={"instruction": chosen.get(domain.name, domain.instruction)})
            for domain in run.recipe().domain
            if domain.name in facts["data"]
        }
        return cls(domains, {name: facts["data"][name].get("columns", ()) for name in domains})

    def chosen(self, domain: str | None) -> str:
        """The domain that is asked; "" where every one is asked by its messages alone.

        Raises `MetierError` for one that the run does not have, or where one has to be chosen.
        """
        if domain is not None and domain not in self.domains:
            raise MetierError(f"domain {domain}: the run has no such one", f"choose from {', '.join(self.domains)}")
        if domain is None and len(self.domains) > 1 and any(map(self._shaped, self.domains)):
            problem = "the run has several domains, each of which asks in its own way"
            raise MetierError(problem, f"choose one: --domain {' | '.join(self.domains)}")
        return domain or (next(iter(self.domains)) if len(self.domains) == 1 else "")

    def item(self, said: Said, domain: str, before: Sequence[Message] = ()) -> Item:
        """A turn of a conversation as the item that a held-out row would be.

        The first turn fills the domain's template. Behind what was said `before`, a turn is what was typed; of a
        closed set every turn is a question of its own. Raises `MetierError` where nothing is asked, or a column is
        missing.
        """
        if before and not self.closed(domain):
            return typed(domain, [*before, Message("user", _text(said))])
        if domain and self.columns[domain]:
            return ask(self.domains[domain], self._cells(said, domain))
        labels = self.labels(domain)
        asked = [*self._beginning(domain), Message("user", _text(said))]
        return typed(domain, asked, Replies("label", labels) if labels else OPEN)

    def as_they_are(self, messages: Sequence[Message], domain: str) -> Item:
        """Messages that bring all that is to be read; in a domain with a closed set that alone may be answered."""
        labels = self.labels(domain)
        return typed(domain, messages, Replies("label", labels) if labels else OPEN)

    def labels(self, domain: str) -> tuple[str, ...]:
        """The replies of a closed set that is the same for every question; none of any other domain, or of ""."""
        return closed_set(self.domains[domain]) if domain else ()

    def closed(self, domain: str) -> bool:
        """Whether one of several given replies is the answer."""
        found = self.domains.get(domain)
        return found is not None and bool(closed_set(found) or (found.choices and self.columns[domain]))

    def example(self, domain: str, prompt: str) -> str:
        """What somebody would have typed to be asked this prompt, on one line."""
        cells = read_back(self.domains[domain], self.columns[domain], prompt) if self.columns[domain] else {}
        if len(cells) < 2:
            return short(next(iter(cells.values()), prompt))
        return "; ".join(f"{name}: {short(cell)}" for name, cell in cells.items())

    def _shaped(self, domain: str) -> bool:
        """Whether a question is more than its text, or its answer less than any."""
        text = prompt_template(self.domains[domain], columns := self.columns[domain]).text
        return self.closed(domain) or (bool(columns) and text not in {f"{{{name}}}" for name in columns})

    def _cells(self, said: Said, domain: str) -> dict[str, object]:
        """What makes the question, and the system prompt where a row has its own; what else a row holds does not."""
        columns = self.columns[domain]
        if isinstance(said, str):
            if len(columns) > 1:
                raise MetierError(f"a question is made of {', '.join(columns)}", f"give all: {{{columns[0]!r}: …, …}}")
            said = {columns[0]: said}
        if missing := [name for name in columns if name not in said]:
            raise MetierError(f"{', '.join(missing)}: is missing", f"a question is made of {', '.join(columns)}")
        if not any(text_of(said[name]).strip() for name in columns):
            raise MetierError("nothing is asked", "type a text")
        own = system_column(self.domains[domain])
        return {name: said[name] for name in (*columns, own) if name in said}

    def _beginning(self, domain: str) -> list[Message]:
        """The system prompt of a domain, or that which all domains share."""
        shared = {shared_system(each) for name, each in self.domains.items() if domain in ("", name)}
        system = shared.pop() if len(shared) == 1 else None
        return [Message("system", system)] if system else []


def _text(said: Said) -> str:
    if not isinstance(said, str):
        raise MetierError("the domain has no template, whose columns could be filled", "give a text")
    if not said.strip():
        raise MetierError("nothing is asked", "type a text")
    return said
