"""A run's answers, and those of its opponents → scores.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from metier.evaluation.answers import GENERAL, Answer, read_answers
from metier.evaluation.counterfactuals import as_dict, compare_versions
from metier.evaluation.forgotten import changed_choices, forgetting, losses
from metier.evaluation.metrics import compare, domain_scores, to_dict
from metier.evaluation.own import Own
from metier.evaluation.verdict import sentence
from metier.run import Run


def write_scores(run: Run, opponents: Mapping[str, Run], own: Own | None = None) -> None:
    """Everything in scores.json follows from the answers of this run and of its opponents."""
    answers = read_answers(run.directory / "answers.jsonl")
    asked = [each for each in answers if each.of_domain]
    against = {role: compare(asked, _asked(opponent), own) for role, opponent in opponents.items()}
    named = {run.opponents[role]: records for role, records in against.items()}
    forgot = forgetting(answers) if any(each.kind == "text" for each in answers) else None
    scores = domain_scores(answers, own)
    by_model = [each.name for each in run.recipe().domain if each.labelled_by == "model"]
    run.write_scores(
        {
            "verdict": sentence(named, forgot, [each for each in scores if each.kind not in GENERAL], by_model),
            "counterfactuals": [as_dict(each) for each in compare_versions(answers)],
            "domains": [to_dict(each) for each in scores],
            "against": {
                role: {"run": opponents[role].name, "domains": [to_dict(each) for each in records]}
                for role, records in against.items()
            },
            **losses(forgot, changed_choices(answers), run.recipe().eval.guard),
            "tradeoff": run.tradeoff,
        }
    )


def _asked(run: Run) -> Sequence[Answer]:
    return [each for each in read_answers(run.directory / "answers.jsonl") if each.of_domain]
