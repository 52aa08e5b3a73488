from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from metier.errors import RecipeError, nearest
from metier.keys import parse_override
from metier.recipe import Recipe

GOOD: dict[str, Any] = {
    "model": "nano",
    "domain": [
        {"name": "banking", "data": "banking.jsonl"},
        {"name": "mood", "data": "m.csv", "labels": ["bad", "good"], "label_map": {"0": "bad", "1": "good"}},
    ],
    "strategy": {"method": "qlora", "peft": {"r": 8}},
}


def recipe(**changes: Any) -> Recipe:
    return Recipe.of(GOOD, Path("recipe.toml")).override(**changes)


def faults(raw: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(RecipeError) as caught:
        Recipe.of(raw, Path("recipe.toml"))
    return {fault.place: f"{fault.problem}; {fault.fix}" for fault in caught.value.faults}


def test_what_is_written_is_read_back() -> None:
    made = recipe()
    assert Recipe.of(tomllib.loads(made.to_toml()), made.path) == made


def test_every_fault_is_listed_at_once_with_the_nearest_name() -> None:
    found = faults(
        {
            **GOOD,
            "seeed": 1,
            "train": {"max_lenght": 3, "learning_rate": "fast"},
            "domain": [{"name": "A b", "data": "x", "heldout": 1.5, "wieght": 2}],
        }
    )
    assert set(found) == {
        "seeed",
        "train.max_lenght",
        "train.learning_rate",
        "domain.0.name",
        "domain.0.heldout",
        "domain.0.wieght",
    }
    assert "did you mean `max_length`?" in found["train.max_lenght"]
    assert "did you mean `weight`?" in found["domain.0.wieght"]
    assert "is 'fast'" in found["train.learning_rate"]


def test_letters_that_changed_places_are_told_first() -> None:
    assert "did you mean `lora`?" in faults({**GOOD, "strategy": {"method": "lroa"}})["strategy.method"]
    assert nearest("nona", ["nano"]) == "; did you mean `nano`?"


@pytest.mark.parametrize(
    ("raw", "place", "says"),
    [
        ({**GOOD, "strategy": {"method": "none", "peft": {"r": 4}}}, "strategy.peft", "has no meaning"),
        ({**GOOD, "strategy": {"method": "qlra"}}, "strategy.method", "did you mean `qlora`?"),
        ({**GOOD, "strategy": {}}, "strategy.method", "is missing"),
        ({**GOOD, "domain": []}, "domain", "there is none"),
        ({"domain": GOOD["domain"]}, "model", "is missing"),
        ({**GOOD, "domain": [GOOD["domain"][0]] * 2}, "domain", "used twice"),
        ({**GOOD, "train": {"warmup_steps": 0.4}}, "train.warmup_steps", "explicit count"),
        ({**GOOD, "strategy": {"method": "lora", "peft": {"rank": 4}}}, "strategy.peft.rank", "did you mean `r`?"),
        ({**GOOD, "strategy": {"method": "full", "layers": 2}}, "strategy.layers", 'set strategy.method = "last-n"'),
        ({**GOOD, "strategy": {"method": "last-n", "layers": 0}}, "strategy.layers", "greater than 0"),
        ({**GOOD, "strategy": {"method": "none", "objective": "sft"}}, "strategy.objective", "that trains nothing"),
        ({**GOOD, "train": {"num_train_epochs": 1e7}}, "train.num_train_epochs", "less than or equal to 1000"),
        ({**GOOD, "train": {"epochs": 3}}, "train.epochs", "did you mean `num_train_epochs`?"),
        ({**GOOD, "eval": {"guard": 0.1}}, "eval.guard", "should be a table"),
        ({**GOOD, "domain": [{**GOOD["domain"][0], "name": "Tickets EU"}]}, "domain.0.name", "lower case letters"),
        ({**GOOD, "strategy": {"method": "dora"}}, "strategy.method", "use_dora = true"),
        ({**GOOD, "strategy": {"method": "dpo"}}, "strategy.method", 'strategy.objective = "dpo"'),
        ({**GOOD, "strategy": {"method": "ia4"}}, "strategy.method", "did you mean `ia3`?"),
        (
            {**GOOD, "strategy": {"method": "lora", "peft": {"init_lora_weights": "pisa"}}},
            "strategy.peft.init_lora_weights",
            "'pissa'",
        ),
        (
            {**GOOD, "strategy": {"method": "lora", "peft": {"init_lora_weights": "pissa", "use_dora": True}}},
            "strategy.peft.init_lora_weights",
            "does not go with use_dora",
        ),
        (
            {**GOOD, "strategy": {"method": "qlora", "peft": {"init_lora_weights": "pissa"}}},
            "strategy.peft.init_lora_weights",
            "needs weights of 16 or 32 bits",
        ),
    ],
)
def test_a_fault_names_its_key(raw: dict[str, Any], place: str, says: str) -> None:
    assert says in faults(raw)[place]


def test_a_method_of_pefts_keeps_its_keys_as_they_stand() -> None:
    peft = {"target_modules": ["q_proj"], "n_frequency_pattern": {"q_proj": 8}}
    made = Recipe.of({**GOOD, "strategy": {"method": "waveft", "peft": peft, "num_fewshot": 1}}, Path("recipe.toml"))
    assert made.values()["strategy"]["peft"] == peft
    assert Recipe.of(tomllib.loads(made.to_toml()), made.path) == made
    assert made.override(**{"strategy.peft.scaling": 2.0}).values()["strategy"]["peft"] == {**peft, "scaling": 2.0}


def test_labels_must_be_a_set_that_the_map_stays_in() -> None:
    domain = {"name": "a", "data": "x"}
    assert "two different" in faults({**GOOD, "domain": [{**domain, "labels": ["x", "x"]}]})["domain.0.labels"]
    outside = {**domain, "labels": ["x", "y"], "label_map": {"0": "z"}}
    assert "['z']" in faults({**GOOD, "domain": [outside]})["domain.0.label_map"]


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        recipe().train.seed = 3  # type: ignore[misc]


def test_overrides_name_domains_and_create_tables() -> None:
    changed = recipe(**{"domain.mood.weight": 2.0, "domain.0.heldout": 0.5, "train.seed": 3, "eval.limit": 5})
    assert [domain.weight for domain in changed.domain] == [1.0, 2.0]
    assert changed.domain[0].heldout == 0.5
    assert (changed.train.seed, changed.eval.limit) == (3, 5)
    with pytest.raises(RecipeError, match="choose from banking, mood"):
        recipe(**{"domain.nobody.weight": 1})
    with pytest.raises(RecipeError, match=r"model\.name"):
        recipe(**{"model.name": 1})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.seed=3", ("train.seed", 3)),
        ("train.learning_rate=1e-4", ("train.learning_rate", 1e-4)),
        ("model=some/name", ("model", "some/name")),
        ('strategy.peft.target_modules=["a", "b"]', ("strategy.peft.target_modules", ["a", "b"])),
        ("a=b=c", ("a", "b=c")),
    ],
)
def test_an_override_is_toml_where_it_can_be(text: str, expected: tuple[str, Any]) -> None:
    assert parse_override(text) == expected


def test_an_override_without_a_value_is_a_fault() -> None:
    with pytest.raises(RecipeError, match="key=value"):
        parse_override("train.seed")


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="does not exist"):
        Recipe.load(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_text("model = \n")
    with pytest.raises(RecipeError, match=r"bad\.toml:1: is not TOML"):
        Recipe.load(tmp_path / "bad.toml")


def test_paths_follow_the_recipe_and_its_data_root(tmp_path: Path) -> None:
    made = Recipe.of({**GOOD, "data_root": "sets"}, tmp_path / "recipe.toml")
    assert made.data_path("a.csv") == tmp_path / "sets" / "a.csv"
    assert made.data_path("sample:telecom").is_file()


def test_a_key_of_a_table_or_a_domain_is_shown_the_way() -> None:
    whole = {"model": "nano", "domain": [{"name": "faq", "data": "x.csv"}]}
    with pytest.raises(RecipeError, match=r"did you mean `train\.learning_rate`"):
        Recipe.of({**whole, "learning_rate": 1e-4}, Path("r.toml"))
    with pytest.raises(RecipeError, match=r"write domain\.faq\.heldout"):
        Recipe.of(whole, Path("r.toml")).override(**{"domain.heldout": 0.3})
    with pytest.raises(RecipeError, match="be a table or be less than 1"):
        Recipe.of(whole, Path("r.toml")).override(**{"domain.faq.heldout": 1.5})


@pytest.mark.parametrize("key", ["train.learning_rate", "train.num_train_epochs", "domain.mood.weight"])
def test_a_number_without_end_is_a_fault(key: str) -> None:
    with pytest.raises(RecipeError, match="finite"):
        recipe(**{key: float("inf")})


def test_a_key_with_white_space_is_shown_in_quotes() -> None:
    assert list(faults({**GOOD, " train": {}})) == ['" train"']


def test_a_huge_value_is_not_repeated() -> None:
    assert len(faults({**GOOD, "train": {"seed": "x" * 100_000}})["train.seed"]) < 200


@pytest.mark.parametrize("name", ["", "x" * 5000])
def test_a_name_that_no_file_has_is_a_fault(name: str) -> None:
    assert "character" in faults({**GOOD, "model": name})["model"]


def test_a_recipe_in_another_encoding_is_told_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes('model = "nano"\n# für'.encode("latin-1"))
    with pytest.raises(RecipeError, match=r"recipe.toml:2: byte 0xfc is not utf-8; save it as UTF-8"):
        Recipe.load(path)
