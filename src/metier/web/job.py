"""One tuning that clients ask for, in OpenAI's words and in metier's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from metier.data.guessing import domain_name, propose
from metier.data.sources import SKIP, show
from metier.domain import DOMAIN_NAME, Domain
from metier.errors import Fault, FaultsError
from metier.recipe import Recipe
from metier.web.failures import Refusal
from metier.web.lessons import UNNAMED

Way = Literal["auto", "supervised", "dpo"]
"""How it is tuned; auto: as its file is."""
Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
_OWN = ("owner", "suffix", "base", "unloaded")  # is told to nobody, or by another name
_LONGEST = 64  # characters of a domain that clients name
_SKIP = 'to leave such rows out: "skip_faulty": true beside training_file, which OpenAI\'s client takes as extra_body'


@dataclass(frozen=True)
class Job:
    """One tuning of `base`, which clients call `model`; `fine_tuned_model` is the name by which its run is served,
    until it is `unloaded`. `trained_tokens` counts what was read to learn from, a beginning that rows share once.
    """

    id: str
    created_at: int
    owner: str
    model: str
    base: str
    training_file: str
    validation_file: str | None
    hyperparameters: Mapping[str, Any]
    suffix: str | None
    seed: int
    skip_faulty: bool = False
    method: Way = "supervised"
    status: Status = "queued"
    finished_at: int | None = None
    fine_tuned_model: str | None = None
    error: Mapping[str, Any] | None = None
    trained_tokens: int | None = None
    unloaded: bool = False
    metadata: Mapping[str, str] | None = None

    @property
    def domain(self) -> str:
        """What it is tuned for: what clients call it, as far as a domain may be called so."""
        suffix = self.suffix or ""
        return suffix if re.fullmatch(DOMAIN_NAME, suffix) else domain_name(suffix, UNNAMED)[:_LONGEST]

    def told(self) -> dict[str, Any]:
        """In OpenAI's words."""
        own = {key: value for key, value in asdict(self).items() if key not in _OWN}
        if self.status != "succeeded":
            own["fine_tuned_model"] = None  # it is about to be served
        own["user_provided_suffix"] = self.suffix
        own["method"] = {"type": self.method, self.method: {"hyperparameters": dict(self.hyperparameters)}}
        return {"object": "fine_tuning.job", "organization_id": "metier", "result_files": [], **own}


def recipe_of(job: Job, training: Path, validation: Path | None, path: Path) -> Recipe:
    """What a job means, to lie at `path`.

    Raises `FaultsError` where a file as a whole, or a setting, is at fault; whoever reads the rows finds what is
    wrong with single ones.
    """
    proposed = propose(training, [])
    _assert_fits(job.method, proposed)
    domain = proposed.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    domain |= {"name": job.domain, "data": str(training.resolve())}
    domain |= {"skip_faulty": True} if job.skip_faulty else {}
    if validation:
        domain["validation"] = str(validation.resolve())
    given = {"num_train_epochs": "n_epochs", "batch_size": "batch_size"}
    train = {ours: job.hyperparameters.get(theirs, "auto") for ours, theirs in given.items()}
    beta = job.hyperparameters.get("beta", "auto")
    strategy = {"method": "lora", **({} if beta == "auto" else {"beta": beta})}
    values = {"model": job.base, "domain": [domain], "strategy": strategy}
    return Recipe.of({**values, "train": {**train, "seed": job.seed}}, path)


def as_sent(error: FaultsError, *files: Path | None) -> Refusal:
    """The same to whoever sent these files, and knows nothing of where they lie here."""

    def placed(fault: Fault) -> Fault:
        place = fault.place
        for file in filter(None, files):
            place = place.replace(str(file.resolve()), file.name).replace(show(file), file.name)
        return replace(fault, place=place)

    faults = FaultsError("the data", [*map(placed, error.faults)])
    hint = _SKIP if error.hint == SKIP else error.hint
    return Refusal(400, str(faults), hint, param="training_file", code="invalid_training_file")


def _assert_fits(method: Way, domain: Domain) -> None:
    """Raises `Refusal` where a file holds something else than is to be learned from."""
    pairs = "pairs of answers" if domain.rejected else "ratings of answers" if domain.rating else ""
    if method == "dpo" and not domain.rejected:
        problem = "method: dpo learns from pairs of answers, and the file has none"
        fix = "send rows with input, preferred_output and non_preferred_output, or with prompt, chosen and rejected"
        raise Refusal(400, problem, fix, param="method")
    if method == "supervised" and pairs:
        fix = 'leave method out, and it is tuned as the file is; of pairs also "type": "dpo" says so'
        raise Refusal(
            400, f"method: the file holds {pairs}, which supervised tuning does not learn", fix, param="method"
        )
