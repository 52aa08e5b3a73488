from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from metier.errors import RecipeError
from metier.grid import Comparison, Entry, is_comparison
from metier.strategies import LoraStrategy, Untuned

_RECIPE = """
model = "base"
[[domain]]
name = "bank"
data = "bank.csv"
[[domain]]
name = "shop"
data = "shop.csv"
[strategy]
method = "lora"
peft.r = 4
[train]
learning_rate = 1e-4
"""


def entries(tmp_path: Path, text: str, changes: dict[str, Any] | None = None) -> list[Entry]:
    (tmp_path / "recipe.toml").write_text(_RECIPE)
    path = tmp_path / "comparison.toml"
    path.write_text(f'recipe = "recipe.toml"\n{text}')
    return Comparison.load(path, changes).entries()


def names(found: list[Entry]) -> list[str]:
    return [entry.name for entry in found]


def test_base_and_baseline_are_always_there(tmp_path: Path) -> None:
    found = entries(tmp_path, '[[strategy]]\nname = "LoRA"\n')
    assert names(found) == ["LoRA", "untuned base", "classical baseline"]
    assert found[1].recipe.strategy == Untuned(method="none")


def test_a_strategy_that_is_the_base_stands_for_it(tmp_path: Path) -> None:
    found = entries(tmp_path, '[[strategy]]\nname = "bare"\nmethod = "none"\n')
    assert names(found) == ["bare", "classical baseline"]


def test_a_difference_keeps_what_it_does_not_name(tmp_path: Path) -> None:
    (found, *_) = entries(tmp_path, '[[strategy]]\nname = "a"\npeft.lora_alpha = 9.0\ntrain.num_train_epochs = 2\n')
    strategy, train = found.recipe.strategy, found.recipe.train
    assert isinstance(strategy, LoraStrategy)
    assert (strategy.peft.r, strategy.peft.lora_alpha) == (4, 9.0)
    assert (train.learning_rate, train.num_train_epochs) == (1e-4, 2)


def test_another_method_leaves_nothing_of_the_recipe_s(tmp_path: Path) -> None:
    (found, *_) = entries(tmp_path, '[[strategy]]\nname = "a"\nmethod = "full"\n')
    assert found.recipe.strategy.model_dump()["method"] == "full"


def test_a_domain_is_changed_by_its_name(tmp_path: Path) -> None:
    (found, *_) = entries(tmp_path, '[[strategy]]\nname = "a"\ndomain.shop.weight = 3.0\n')
    assert [domain.weight for domain in found.recipe.domain] == [1.0, 3.0]


def test_axes_multiply_what_they_have_an_effect_on(tmp_path: Path) -> None:
    text = 'seeds = [1, 2]\nrows = [10, 1.0]\nmodels = ["base", "other/one"]\n[[strategy]]\nname = "LoRA"\n'
    found = entries(tmp_path, text)
    lora = [entry for entry in found if entry.arm == "LoRA"]
    assert [(entry.model, entry.rows) for entry in lora] == [
        ("base", 10),
        ("base", 1.0),
        ("other/one", 10),
        ("other/one", 1.0),
    ]
    assert [cell.seed for cell in lora[0].cells] == [1, 2]
    assert lora[0].recipe.train.rows == 10
    bases = [entry for entry in found if entry.arm == "untuned base"]
    assert [(entry.name, len(entry.cells)) for entry in bases] == [
        ("untuned base · base", 1),
        ("untuned base · one", 1),
    ]
    assert sum(entry.arm == "classical baseline" for entry in found) == 2  # one for each number of rows


def test_an_axis_may_be_a_strategy_s_own(tmp_path: Path) -> None:
    found = entries(tmp_path, 'seeds = [1, 2]\n[[strategy]]\nname = "a"\nseeds = [3]\n')
    assert [cell.seed for cell in found[0].cells] == [3]


def test_a_sweep_goes_into_the_recipe(tmp_path: Path) -> None:
    found = entries(tmp_path, 'sweep = [0.5, 1.0]\n[[strategy]]\nname = "a"\n')
    assert found[0].recipe.train.sweep == (0.5, 1.0)


def test_changes_reach_every_strategy(tmp_path: Path) -> None:
    found = entries(tmp_path, '[[strategy]]\nname = "a"\n', {"eval.limit": 5})
    assert {entry.recipe.eval.limit for entry in found} == {5}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "strategy: is missing; add it"),
        ("strategy = []", "there is none; add a \\[\\[strategy\\]\\] table"),
        ('[[strategy]]\nname = "a"\n[[strategy]]\nname = "a"\n', "the name 'a' is used twice"),
        ('seed = [1]\n[[strategy]]\nname = "a"\n', "seed: is not a key of a comparison; did you mean `seeds`"),
        ('margin = 2\n[[strategy]]\nname = "a"\n', "margin: is 2; it should be less than 1"),
        ('[[strategy]]\nname = "a"\nmethod = "lara"\n', "strategy 'a': strategy.method: 'lara' is not a method"),
        ('[[strategy]]\nname = "a"\nranks = 3\n', "strategy 'a': strategy.ranks: is not a field"),
        ('rows = [2]\n[[strategy]]\nname = "a"\n', "rows 1: is 2; write a count from 4 on"),
        ('[[strategy]]\nname = "a"\n[[strategy]]\nname = "b"\nrows = [2]\n', "strategy 2.rows 1: is 2; write a count"),
        (
            'price-per-hour = 2\n[[strategy]]\nname = "a"\n',
            "price-per-hour: is not a key of a comparison",
        ),
        ('[[strategy]]\nname = "a"\ndomain.job-ads = 3\n', "strategy 1.domain.job-ads: is 3; it should be a valid"),
        (f"margin = {'9' * 5000}\n", "is not TOML"),
        (
            'rows = "all"\n[[strategy]]\nname = "a"\n',
            "rows 1: is 'all'; it should be a valid integer or be a valid number",
        ),
        ('[[strategy]]\nname = "a"\n[[strategy]]\nmethod = "none"\n', "strategy 2.name: is missing; add it"),
        ('[[strategy]\nname = "a"', "comparison.toml:2: is not TOML"),
    ],
)
def test_faults_say_where_and_how_to_mend(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        entries(tmp_path, text)


def test_faults_of_all_strategies_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        entries(tmp_path, '[[strategy]]\nname = "a"\nmethod = "x"\n[[strategy]]\nname = "b"\ntrain.lr = 1\n')
    assert len(caught.value.faults) == 2


def test_what_names_a_recipe_is_meant_as_a_comparison(tmp_path: Path) -> None:
    (tmp_path / "comparison.toml").write_text('recipe = "recipe.toml"\n')
    assert is_comparison(tmp_path / "comparison.toml")
    (tmp_path / "recipe.toml").write_text(_RECIPE)
    assert not is_comparison(tmp_path / "recipe.toml")


def test_what_a_comparison_wrote_is_told_from_the_comparison(tmp_path: Path) -> None:
    (tmp_path / "ways").mkdir()
    (tmp_path / "ways" / "comparison.json").write_text("{}")
    with pytest.raises(RecipeError, match="metier compare --check"):
        Comparison.load(tmp_path / "ways")


def test_a_recipe_that_is_not_there_is_told_by_its_key(tmp_path: Path) -> None:
    (tmp_path / "ways.toml").write_text('recipe = "gone.toml"\n[[strategy]]\nname = "a"\n')
    with pytest.raises(RecipeError, match=r"recipe: gone\.toml does not exist"):
        Comparison.load(tmp_path / "ways.toml").entries()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="does not exist; `metier init --recipe strategies` writes one"):
        Comparison.load(tmp_path / "none.toml")


def test_an_arm_s_own_number_of_rows_stays(tmp_path: Path) -> None:
    (found, *others) = entries(tmp_path, '[[strategy]]\nname = "a"\ntrain.rows = 50\n')
    assert (found.rows, found.recipe.train.rows) == (50, 50)
    assert others[0].recipe.train.rows == 1.0
    assert entries(tmp_path, '[[strategy]]\nname = "a"\n', {"train.rows": 50})[0].recipe.train.rows == 50
    with pytest.raises(RecipeError, match=r"train\.rows: does not go with rows"):
        entries(tmp_path, 'rows = [10]\n[[strategy]]\nname = "a"\ntrain.rows = 50\n')


def test_models_of_one_name_are_told_apart(tmp_path: Path) -> None:
    found = entries(tmp_path, 'models = ["a/base", "b/base"]\n[[strategy]]\nname = "A"\n')
    assert names(found)[:2] == ["A · a/base", "A · b/base"]
    assert [entry.model for entry in found if entry.base] == ["a/base", "b/base"]


def test_an_expert_of_what_is_measured_only_is_refused(tmp_path: Path) -> None:
    sea = '[[domain]]\nname = "sea"\ndata = "sea.csv"\ntrained = false\n'
    (tmp_path / "recipe.toml").write_text(_RECIPE + sea)
    (tmp_path / "ways.toml").write_text('recipe = "recipe.toml"\nlayout = "per-domain"\n[[strategy]]\nname = "a"\n')
    with pytest.raises(RecipeError, match="per-domain has an expert for every domain, and sea is measured only"):
        Comparison.load(tmp_path / "ways.toml").entries()


def test_a_value_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    found = entries(tmp_path, 'models = ["base", "base"]\nseeds = 3\nrows = [50, 50]\n[[strategy]]\nname = "A"\n')
    assert sum(entry.arm == "A" for entry in found) == 1
    assert [cell.seed for cell in found[0].cells] == [3]


def test_every_model_in_use_has_its_own_base(tmp_path: Path) -> None:
    text = '[[strategy]]\nname = "A"\n[[strategy]]\nname = "B"\nmodel = "other/one"\n'
    assert [entry.model for entry in entries(tmp_path, text) if entry.base] == ["base", "other/one"]


def test_experts_are_alike_in_rank_and_only_of_what_is_trained(tmp_path: Path) -> None:
    text = 'layout = "per-domain"\n[[strategy]]\nname = "A"\nmethod = "qlora"\n'
    (experts, *_) = entries(tmp_path, text)
    assert {cell.recipe.strategy.model_dump()["peft"]["r"] for cell in experts.cells} == {16}
    shop = '[[strategy]]\nname = "A"\nlayout = "per-domain"\ndomain.shop.trained = false\n'
    assert [entry.layout for entry in entries(tmp_path, shop)][:1] == ["shared"]


def test_lines_of_one_name_are_refused(tmp_path: Path) -> None:
    text = '[[strategy]]\nname = "A"\nlayout = "per-domain"\n[[strategy]]\nname = "A, per domain"\n'
    with pytest.raises(RecipeError, match="has a line that is called 'A, per domain' as another is"):
        entries(tmp_path, text)


@pytest.mark.parametrize("table", ["train = 3", "peft = 3", 'domain = "x"', "eval = [1]"])
def test_a_table_that_is_none_is_a_fault(tmp_path: Path, table: str) -> None:
    with pytest.raises(RecipeError, match=table.partition(" ")[0]):
        entries(tmp_path, f'[[strategy]]\nname = "a"\n{table}\n')


def test_an_endpoint_s_model_is_its_own(tmp_path: Path) -> None:
    text = '[[strategy]]\nname = "paid"\nmethod = "endpoint"\nurl = "http://127.0.0.1:9/v1"\nmodel = "gpt-paid"\n'
    (found, *_) = entries(tmp_path, 'models = ["base"]\n' + text)
    assert found.recipe.model == found.model == "base"
    assert found.recipe.strategy.model_dump()["model"] == "gpt-paid"
