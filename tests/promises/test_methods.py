"""Every method on a tiny model: trains, resumes bit for bit, saves, scores; docs/reference/methods.md says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from metier import experiment
from metier.data.asking import typed
from metier.data.items import Message
from metier.data.mixing import Unit
from metier.errors import RecipeError
from metier.events import Event
from metier.files import write_directory
from metier.hardware import Rates
from metier.inference.conversation import Conversation
from metier.inference.engine import Capacity, Engine, Request
from metier.model.adapters import Identity, attach, disabled, load, restore, save
from metier.model.forward import Forward
from metier.model.loading import Base, NumberFormat, read_config
from metier.model.loading import load as load_base
from metier.model.methods import check_keys
from metier.model.trials import tried
from metier.recipe import Recipe
from metier.run import Run
from metier.strategies import PEFT_METHODS, PeftStrategy, Strategy, Tuned
from metier.training.checkpoint import Progress, Store
from metier.training.loop import Hooks, Settings, Stopped
from metier.training.loop import train as train_loop
from metier.training.objectives import Likelihood
from metier.trees import Example, pack
from tests.unit import tiny

# What PEFT's own defaults do not fit, or what a method does not run without: widths of a tiny model.
KEYS: dict[str, dict[str, Any]] = {
    "adaption_prompt": {"adapter_len": 4, "adapter_layers": 1},
    "c3a": {"block_size": 16},
    "cartridge": {"num_virtual_tokens": 4},
    "cpt": {"cpt_token_ids": [7, 8, 9, 10], "opt_projection_epsilon": 9.0, "opt_projection_format_epsilon": 9.0},
    "fourierft": {"n_frequency": 16},
    "miss": {"r": 4},
    "multitask_prompt_tuning": {"num_virtual_tokens": 4},
    "p_tuning": {"num_virtual_tokens": 4, "encoder_hidden_size": 16},
    "prefix_tuning": {"num_virtual_tokens": 4},
    "prompt_tuning": {"num_virtual_tokens": 4},
    "psoft": {"r": 4},
    "road": {"group_size": 16},
    "shira": {"r": 4},
    "trainable_tokens": {"token_indices": [7, 8, 20, 21]},
    "vblora": {"vector_length": 16, "num_vectors": 8},
    "waveft": {"n_frequency": 16},
    "lora": {"r": 4, "lora_alpha": 8.0},
    "qlora": {"r": 4, "lora_alpha": 8.0},
}
LORA = {"r": 4, "lora_alpha": 8.0}
LORAS: dict[str, dict[str, Any]] = {
    "lora, rsLoRA": {**LORA, "use_rslora": True},
    "lora, DoRA": {**LORA, "use_dora": True},
    "lora, PiSSA": {**LORA, "init_lora_weights": "pissa"},
    "lora, PiSSA, rsLoRA": {**LORA, "init_lora_weights": "pissa_niter_16", "use_rslora": True},
    "lora, OLoRA": {**LORA, "init_lora_weights": "olora"},
    "lora, modules_to_save": {**LORA, "modules_to_save": ("lm_head",)},
}
NAMES = ["full", "last-n", "lora", *LORAS, "qlora", *PEFT_METHODS]
_IDENTITY = Identity("tiny", "b" * 64, "t" * 64, "c" * 64)
TABLE = Path(__file__).parents[2] / "docs" / "reference" / "methods.md"
_ROWS = [
    Example((7, 8, 9, 10, 11), (0, 1, 1, 1, 1)),
    Example((7, 8, 20, 21), (0, 0, 1, 1)),
    Example((7, 8, 9, 30), (0, 0, 1, 1)),
]
_UNITS = [Unit((each,)) for each in _ROWS]


def strategy(name: str) -> Tuned:
    """By a method's name, or that of a kind of LoRA."""
    method = "lora" if name in LORAS else name
    peft = LORAS.get(name) or KEYS.get(name, {})
    made: Tuned = TypeAdapter(Strategy).validate_python({"method": method, **({"peft": peft} if peft else {})})
    if isinstance(made, PeftStrategy):
        check_keys(made)
    return made


@dataclass(frozen=True)
class Case:
    """A method on a tiny base: how it runs, and what is used to see that it does."""

    directory: Path
    strategy: Tuned
    why_rows: str
    number_format: NumberFormat

    def base(self) -> Base:
        return load_base(self.directory, self.number_format, "cpu", why_rows=self.why_rows)

    def train(self, store: Store, steps: int, stop_at: int = 0) -> tuple[Forward, Progress, list[float]]:
        """Train the same rows in every step; the network with the best, and every step's loss."""
        base = self.base()
        adapted, _ = attach(base.network, self.strategy, 3)
        forward, losses = base.forward.over(adapted), list[float]()

        def listen(event: Event) -> None:
            if event.phase == "train":
                losses.append(float(event.values["loss"]))

        settings = Settings(2e-2, "constant", 0, 0.0, 1.0, 5, 100, None, 2, 2, 99)
        hooks = Hooks(lambda: {"score": float(len(losses))}, listen, lambda: bool(stop_at) and len(losses) >= stop_at)
        progress = train_loop(forward, [_UNITS] * steps, Likelihood(), settings, store, hooks)
        restore(adapted, progress.best)
        adapted.eval()
        return forward, progress, losses


@torch.no_grad()
def logprobs(forward: Forward) -> Tensor:
    return torch.cat([forward.logprobs(tree) for tree in pack(_ROWS, 100, fork=forward.forks)])


def trains(case: Case, folder: Path) -> None:
    _, _, losses = case.train(Store(folder / "trains"), 30)
    assert losses[-1] < losses[0] - 0.02, losses


def resumes(case: Case, folder: Path) -> None:
    _, calm, losses = case.train(Store(folder / "calm"), 6)
    with pytest.raises(Stopped):
        case.train(Store(folder / "rough"), 6, stop_at=3)
    _, rough, again = case.train(Store(folder / "rough"), 6)
    assert again == losses[3:]
    assert calm.best.keys() == rough.best.keys()
    assert all(torch.equal(calm.best[name], rough.best[name]) for name in calm.best)


def saves(case: Case, folder: Path) -> None:
    """What is loaded is what was measured; without it stands the base, bit for bit."""
    plain = logprobs(case.base().forward)
    forward, _, _ = case.train(Store(folder / "saves"), 4)
    moved = logprobs(forward)
    assert not torch.allclose(moved, plain, atol=1e-3)
    write_directory(folder / "adapter", lambda to: save(forward.network, _IDENTITY, tiny.TEMPLATE, to))  # type: ignore[arg-type]
    base = case.base()
    again = base.forward.over(load(base.network, folder / "adapter", _IDENTITY))
    assert torch.allclose(logprobs(again), moved, atol=1e-5)
    for each in (forward, again):
        with disabled(each.network):
            assert torch.equal(logprobs(each), plain)


def scores(case: Case, folder: Path) -> None:
    """The engine's log-probabilities, and a greedy answer that a forward of the whole confirms."""
    forward, _, _ = case.train(Store(folder / "scores"), 4)
    engine = Engine(forward, Capacity(100, 2), boundary=None)
    alone = [sum(logprobs_of(forward, row).tolist()) for row in _ROWS]
    assert engine.score(_ROWS) == pytest.approx(alone, abs=1e-4)
    ((_, tokens, _),) = engine.run([Request((7, 8, 9), 4, frozenset())])
    whole = (7, 8, 9, *tokens)
    (tree,) = pack([Example(whole, (0.0,) * 3 + (1.0,) * 4)], 100, fork=forward.forks)
    with torch.no_grad():
        assert forward.logits(tree, torch.arange(2, 6)).argmax(-1).tolist() == tokens


@torch.no_grad()
def logprobs_of(forward: Forward, row: Example) -> Tensor:
    (tree,) = pack([row], 100, fork=forward.forks)
    return forward.logprobs(tree) * torch.as_tensor(tree.weight)


CHECKS: dict[str, Callable[[Case, Path], None]] = {
    "trains": trains,
    "resumes": resumes,
    "saves": saves,
    "scores": scores,
}
# Of every way in which a method runs one, in the default suite too.
FEW = ("full", "lora, PiSSA", "prefix_tuning", "lily")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def row(name: str, folder: Path, family: str = "llama", compute: str = "float32") -> list[str]:
    """A method's line of the table: how its rows run, what it does, whether activations can be recomputed."""
    storage = "nf4" if name == "qlora" else compute
    wide = {"hidden_size": 64, "intermediate_size": 128} if storage == "nf4" else {}
    directory = tiny.save(folder / "base", family, **wide)
    try:
        made = strategy(name)
        trial = tried(read_config(directory), made)
    except RecipeError as error:
        return [f"refused: {error.faults[0].problem.removeprefix(f'{name}: ')}", *["–"] * (len(CHECKS) + 1)]
    case = Case(directory, made, trial.why_rows, NumberFormat(storage, compute))
    for check in CHECKS.values():
        check(case, folder)
    ways = "rows alone" if trial.why_rows else "trees"
    return [ways, *["yes"] * len(CHECKS), "no" if trial.why_kept else "yes"]


def table() -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in TABLE.read_text().splitlines() if line.startswith("| `")]
    return {line[0].strip("`"): line[1:] for line in lines}


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_a_method_does_what_the_table_says(tmp_path: Path, name: str) -> None:
    assert row(name, tmp_path) == table()[name]


_WHOLE = ("lora, PiSSA", "lora, modules_to_save", "ln_tuning", "p_tuning")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    ["full", *(pytest.param(each, marks=pytest.mark.slow) for each in _WHOLE)],
)
def test_weights_of_16_bits_move_by_masters_of_32(tmp_path: Path, name: str) -> None:
    assert row(name, tmp_path, "phi3", "bfloat16")[1:-1] == ["yes"] * len(CHECKS)


_RECIPE = """
model = "base"
[[domain]]
name = "mood"
data = "x.csv"
prompt = "{text}"
answer = "{label}"
labels = ["up", "down"]
[strategy]
method = "none"
[train]
num_train_epochs = 2
learning_rate = 5e-2
[eval]
max_new_tokens = 4
general_text = "general.csv"
general_choices = ""
"""


def home(folder: Path, made: Tuned) -> Recipe:
    """A recipe with its base and data."""
    tiny.save(folder / "base", "llama")
    labels = [("up", "rises"), ("down", "falls"), ("down", "sinks")]
    rows = [f"share {number} {labels[number % 3][1]},{labels[number % 3][0]}\n" for number in range(40)]
    (folder / "x.csv").write_text("text,label\n" + "".join(rows))
    (folder / "general.csv").write_text("text\nThe sea is calm today.\nTwo and two make four.\n")
    (folder / "recipe.toml").write_text(_RECIPE)
    strategy = made.model_dump(mode="json", exclude_none=True)
    return Recipe.load(folder / "recipe.toml", {"strategy": strategy})


def test_the_frozen_beginning_of_an_adapter_is_counted(tmp_path: Path) -> None:
    shape = experiment.check(home(tmp_path, strategy("lora, PiSSA")), offline=True).shape
    assert shape.frozen == shape.trainable > 0


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        "lora, PiSSA",
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("full", "prefix_tuning", "last-n", "ia3")),
    ],
)
def test_a_run_is_stopped_continued_measured_and_talked_with(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "measure", lambda *_: Rates(1e-6, 1e-6, 1e-6, 1e-6, 1e-12))
    (tmp_path / "calm").mkdir()
    (tmp_path / "rough").mkdir()
    calm = experiment.train(home(tmp_path / "calm", strategy(name)))
    recipe, seen = home(tmp_path / "rough", strategy(name)), list[Event]()
    with pytest.raises(Stopped):
        experiment.train(recipe, on_event=seen.append, stop=lambda: sum(each.phase == "train" for each in seen) >= 3)
    rough = experiment.train(recipe)
    for path in calm.adapter.iterdir():
        assert path.read_bytes() == (rough.adapter / path.name).read_bytes(), path.name
    assert rough.scores()["domains"] == calm.scores()["domains"]
    (base,) = (tmp_path / "calm" / "runs").glob("none-*")
    tuned, untuned = Conversation(calm), Conversation(Run.open(base))
    asked = typed("", [Message("user", "share 1 rises")])  # whose open answer tells finer than shares do
    assert "".join(tuned.reply(asked, base=True)) == "".join(untuned.reply(asked))
    assert "".join(tuned.reply(asked)) != "".join(untuned.reply(asked))
