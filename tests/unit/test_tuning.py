from __future__ import annotations

from metier.training.checkpoint import Progress
from metier.tuning import ending


def test_when_a_training_ended_and_what_it_keeps_is_said() -> None:
    early = Progress(step=20, best_step=5, best_score=0.4123, stopped_early=True)
    assert ending(early, 23) == "stopped early after step 20 of 23; keeps step 5 (validation score 0.412)"
    late = Progress(step=23, best_step=15, best_score=0.5, stopped_early=True)  # patience ended with the last step
    assert ending(late, 23).startswith("keeps step 15 of 23")
    whole = Progress(step=23, best_step=15, best_score=0.5)
    assert ending(whole, 23) == "keeps step 15 of 23, the best on validation (validation score 0.500)"
