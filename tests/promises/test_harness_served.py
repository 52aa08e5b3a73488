"""lm-evaluation-harness through the server, as it would ask OpenAI's, equals its own backend item by item."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lm_eval.models.openai_completions import LocalCompletionsAPI
from transformers import AutoTokenizer

from metier import experiment
from metier.hub import EMBEDDED
from metier.inference.voices import Voices
from metier.run import Run
from metier.web.desk import Desk
from tests.promises import serving
from tests.promises.test_harness import assert_same, public
from tests.unit import local_tasks

SHAPES = ("arc", "mmlu", "lambada", "wikitext", "gsm8k")  # of choices, continuations, rolling texts and open answers


@contextmanager
def asked_through(run: Run, folder: Path, **how: Any) -> Iterator[LocalCompletionsAPI]:
    """lm-eval's own client of a server over the run's untuned base."""
    voices = Voices(offline=True)
    ground = voices.add(run).ground
    settings: dict[str, Any] = {"tokenizer_backend": "huggingface", "max_length": ground.context, **how}
    with serving.served(Desk(voices), folder) as url:
        yield LocalCompletionsAPI(
            f"{url}/v1/completions", model=ground.model, tokenizer=str(_base(run)), max_retries=1, **settings
        )


def _base(run: Run) -> Path:
    recipe = run.recipe()
    return EMBEDDED.get(recipe.model, recipe.directory / recipe.model)


@pytest.mark.long
@pytest.mark.parametrize("how", [{"batch_size": 4}, {"num_concurrent": 4}])
def test_every_shape_through_the_server_equals_the_hf_backend(
    served_runs: dict[str, Run], tmp_path: Path, how: dict[str, Any]
) -> None:
    run = served_runs["shown"]
    tasks = [local_tasks.write(tmp_path, shape, local_tasks.invented(shape)) for shape in SHAPES]
    with asked_through(run, tmp_path, **how) as client:
        seen = assert_same(_base(run), tasks, client)
    assert seen == {f"local_{shape}": 12 for shape in SHAPES}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("base", "shapes", "how"),
    [
        ("nano", SHAPES, {}),
        # The client does not look whether a tokenizer puts a BOS in front, as the backend does; and the backend's
        # open answers lack the space that they begin with, for it reads them without their question.
        ("TinyStories-656K", SHAPES[:-1], {"add_bos_token": True}),
    ],
)
def test_fifty_public_items_a_shape_through_the_server(
    tmp_path: Path, shared: Path, base: str, shapes: Sequence[str], how: dict[str, Any]
) -> None:
    model = EMBEDDED.get(base, shared / "models" / base)
    if not model.is_dir():
        pytest.skip(f"{model} is not there")
    items = public(shared, AutoTokenizer.from_pretrained(model))
    tasks = [local_tasks.write(tmp_path, shape, items[shape]) for shape in shapes]
    name = base if base in EMBEDDED else str(model)
    recipe = serving.write(tmp_path).override(model=name, strategy={"method": "none"})
    run = experiment.train(recipe, overrides={"compute": "float32"})
    with asked_through(run, tmp_path, batch_size=8, **how) as client:
        # The client keeps a place for the token that it takes for granted, and one for what stands in front.
        same = assert_same(model, tasks, client, max_length=client.max_length - 1)
    assert same == {f"local_{shape}": 50 for shape in shapes}
