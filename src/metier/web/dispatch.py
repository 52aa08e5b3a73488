"""`model: "auto"`: which of the served domains a question belongs to, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metier.assistant.phrases import ends, latest
from metier.data.dataset import DomainData
from metier.errors import MetierError, ModelError
from metier.events import Listener, silent
from metier.files import digest
from metier.job import Job, prepare, typed_last
from metier.routing import Confusion, Router, confusion
from metier.run import Run

Typed = Mapping[str, Mapping[str, list[str]]]
"""Questions by side (train, validation, heldout) and domain."""


@dataclass(frozen=True)
class Routed:
    """Where a question is sent, None where the router abstains, with the share of the likeliest domain.

    Where the router abstains from what was said last, and `stays`, it is the domain of what was said before.
    """

    domain: str | None
    share: float
    stays: bool = False


@dataclass(frozen=True)
class Dispatch:
    """A router over the domains of served runs, with what became of the questions that were held out."""

    router: Router
    heldout: Confusion

    def send(self, said: Sequence[str]) -> Routed:
        """Where the last of what somebody said belongs: a question that says too little, or thanks, belongs to the
        talk."""
        *before, (domain, share) = self.router.route([*map(ends, latest(said))])
        if domain is None and (known := next((name for name, _ in reversed(before) if name), None)):
            return Routed(known, share, stays=True)
        return Routed(domain, share)


def open_dispatch(sides: Typed, routers: Path) -> Dispatch:
    """Fit on training questions, threshold on validation questions; kept below `routers`.

    Raises `MetierError` where there is nothing to choose between.
    """
    if len(sides["train"]) < 2:
        known = next((f"the domain {name} alone" for name in sides["train"]), "no domain")
        raise MetierError(f"the served runs know {known}; there is nothing to choose between")
    folder = routers / digest([sides["train"], sides["validation"]])[:10]
    try:
        router = Router.load(folder)
    except ModelError:
        router = Router.fit(sides["train"]).cautious(sides["validation"])
        router.save(folder)
    held = [(domain, text) for domain, texts in sides["heldout"].items() for text in texts]
    routes = router.route([text for _, text in held])
    return Dispatch(router, confusion(routes, [[domain] for domain, _ in held], [*sides["train"]]))


def typed(
    runs: Sequence[Run], lost: list[str] | None = None, *, offline: bool = False, listen: Listener = silent
) -> Typed:
    """What users typed last in the data of runs; a domain that several have is the first one's.

    Raises `MetierError` where the data is not there any more; with a list of what is `lost`, such a run is left out.
    """
    sides: dict[str, dict[str, list[str]]] = {"train": {}, "validation": {}, "heldout": {}}
    for run in runs:
        try:
            job = prepare(run.recipe(), offline=offline, on_event=listen)
        except (MetierError, OSError) as error:
            if lost is None:
                raise
            lost.append(f"{run.name}: {error}")
            continue
        for each in _known(job):
            for side, found in sides.items():
                found.setdefault(each.domain.name, typed_last(each, side))
    return sides


def distinct(sides: Typed) -> tuple[Typed, dict[str, str]]:
    """Without domains that repeat an earlier one's rows, and whose rows each of those repeats.

    As where a file was tuned again, corrected, under another name: whoever chooses between two of which half the texts
    are the same is sure of neither.
    """
    kept, repeats = dict[str, set[str]](), dict[str, str]()
    for name, texts in sides["train"].items():
        own = {*texts}
        first = next((other for other, theirs in kept.items() if own and 2 * len(own & theirs) >= len(own)), None)
        if first is None:
            kept[name] = own
        else:
            repeats[name] = first
    return {side: {name: texts[name] for name in kept} for side, texts in sides.items()}, repeats


def _known(job: Job) -> list[DomainData]:
    """Domains that the run was tuned on, or is asked in where it tunes nothing."""
    return [each for each in job.data.domains if each.domain.trained and each.heldout[0].kind != "passage"]
