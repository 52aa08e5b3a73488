"""From a data file to a plan on a base that the hub gives, through the command line."""

from __future__ import annotations

import socket
import tomllib
from datetime import date
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download

from metier import bases, download, experiment, hardware
from metier.bases import Base
from metier.cli.main import main
from metier.files import read_json
from metier.hardware import Hardware, Layer, Rates
from metier.recipe import Recipe
from tests.standin import StandIn
from tests.unit import tiny

NAME = "owner/tiny-instruct"
CSV = "prompt,answer\n" + "".join(f"question {n} about cards,answer {n} is here\n" for n in range(60))


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["metier", *arguments])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, standin: StandIn) -> Base:
    """A folder with data; a hub that holds one tiny base, which is all that metier knows of; a timed layer."""
    model = tiny.save(tmp_path / "model")
    standin.add(NAME, {path.name: path.read_bytes() for path in model.iterdir()}, card={"license": "mit"})
    base = Base(NAME, "mit", [], False, 2, 32, 48, 4, 2, 8, 400, 512, False, [], date(2026, 11, 21))
    monkeypatch.setattr(bases, "known", lambda: (base,))

    def measure(layer: Layer, threads: int) -> Rates:
        return Rates(1e-5, 1e-5, 1e-3, 1e-12, 1e-12)

    monkeypatch.setattr(hardware, "measure", measure)
    monkeypatch.setattr(experiment, "measure", measure)
    (tmp_path / "support.csv").write_text(CSV)
    monkeypatch.chdir(tmp_path)
    return base


@pytest.mark.long
def test_init_proposes_and_plan_fetches(
    listed: Base, standin: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "init", "support.csv") == 0
    said = capsys.readouterr().err
    assert f"model: {NAME}, 0.00 billion parameters, licence mit" in said
    assert "the largest of 1 that fits: lora, about" in said
    assert not any("/api/" in each.path for each in standin.requests), "a proposal asks the hub nothing"
    recipe = tomllib.loads(Path("recipe.toml").read_text())
    assert (recipe["model"], recipe["strategy"]["method"]) == (NAME, "lora")
    assert call(monkeypatch, "plan", "recipe.toml") == 0
    said = capsys.readouterr().err
    assert f"fetching {NAME} at" in said
    assert "licence mit" in said
    job = experiment.check(Recipe.load("recipe.toml"), offline=True)
    assert job.source.revision == next(iter(standin.repositories[f"models/{NAME}"].commits))


def weights_asked(standin: StandIn) -> bool:
    return any(each.path.endswith("model.safetensors") for each in standin.requests)


FEW = ("--set", "train.num_train_epochs=1", "--set", "eval.limit=4", "--set", "eval.max_new_tokens=4")


@pytest.mark.long
def test_weights_are_fetched_when_something_reads_them(
    listed: Base, standin: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Faults of the data, what does not fit and the plan are told before; the plan is that of the whole base."""
    assert call(monkeypatch, "init", "support.csv") == 0
    whole = Path("support.csv").read_text()
    Path("support.csv").write_text(whole + "only a prompt\n")
    for verb in ("check", "plan", "train"):
        assert call(monkeypatch, verb, "recipe.toml") == 2
        assert "support.csv:62" in capsys.readouterr().err
    Path("support.csv").write_text(whole)
    with monkeypatch.context() as small:
        small.setattr(experiment, "probe", lambda: Hardware("Linux", 2, 1 << 20, 1 << 20, ()))
        for verb in ("plan", "train"):
            assert call(monkeypatch, verb, "recipe.toml") == 2
            assert "needs 0." in capsys.readouterr().err
    for verb in ("check", "plan"):
        assert call(monkeypatch, verb, "recipe.toml") == 0
        said = capsys.readouterr().err
        assert "weights  about 0.1 MB, fetched when a run begins, licence mit; " in said
        assert "free on the disk" in said
    assert not weights_asked(standin)
    before = experiment.check(Recipe.load("recipe.toml"), offline=True)
    assert call(monkeypatch, "train", "recipe.toml", "--offline", *FEW) == 2
    assert "lies here without its weights, and --offline was given" in capsys.readouterr().err
    standin.cuts["model.safetensors"] = [5000, 20_000]
    assert call(monkeypatch, "train", "recipe.toml", *FEW) == 0
    assert weights_asked(standin)
    after = experiment.check(Recipe.load("recipe.toml"), offline=True)
    assert (after.shape, after.source.revision) == (before.shape, before.source.revision)
    assert "weights  about" not in "\n".join(after.lines())


@pytest.mark.slow
def test_weights_are_of_the_commit_that_was_checked(
    listed: Base, standin: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "init", "support.csv") == 0
    assert call(monkeypatch, "check", "recipe.toml") == 0
    repository = standin.repositories[f"models/{NAME}"]
    (commit, files), *_ = repository.commits.items()
    repository.commits["f" * 40] = {**files, "config.json": files["config.json"] + b" "}
    assert call(monkeypatch, "train", "recipe.toml", *FEW) == 0
    run = next(path for path in Path("runs").iterdir() if path.name.startswith("lora-"))
    assert read_json(run / "run.json")["revision"] == commit


def test_init_falls_back_to_nano(
    listed: Base, standin: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "init", "support.csv", "--offline", "--out", "a.toml") == 0
    assert "--offline was given" in capsys.readouterr().err
    assert not standin.requests
    monkeypatch.setattr(bases, "known", tuple)
    assert call(monkeypatch, "init", "support.csv", "--out", "b.toml") == 0
    assert "none of 0 known bases fits here within an hour" in capsys.readouterr().err
    standin.close()
    assert call(monkeypatch, "init", "support.csv", "--out", "c.toml") == 0
    assert "the hub cannot be reached" in capsys.readouterr().err
    assert {tomllib.loads(Path(f"{name}.toml").read_text())["model"] for name in "abc"} == {"nano"}


def test_a_named_model_needs_no_proposal(
    listed: Base, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "init", "support.csv", "--model", "other/one") == 0
    assert "timing this machine" not in capsys.readouterr().err
    assert tomllib.loads(Path("recipe.toml").read_text())["model"] == "other/one"


@pytest.mark.long
@pytest.mark.parametrize("trouble", ["gated", "missing", "broken"])
def test_a_refusal_is_exit_2_with_a_remedy(
    listed: Base,
    standin: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    trouble: str,
) -> None:
    assert call(monkeypatch, "init", "support.csv") == 0
    repository = standin.repositories[f"models/{NAME}"]
    if trouble == "gated":
        repository.gated = True
    elif trouble == "missing":
        standin.repositories.clear()
    else:
        standin.broken.add("model.safetensors")
    capsys.readouterr()
    assert call(monkeypatch, "train" if trouble == "broken" else "plan", "recipe.toml") == 2
    said = capsys.readouterr().err
    assert f"error: model: {NAME}" in said
    assert "hint: " in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_run_names_the_revision_it_was_resolved_to(
    listed: Base, standin: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And its adapter names the base as the hub does, without the revision that pins it."""
    commit = next(iter(standin.repositories[f"models/{NAME}"].commits))
    assert call(monkeypatch, "init", "support.csv", "--model", f"{NAME}@{commit}") == 0
    assert call(monkeypatch, "train", "recipe.toml", *FEW) == 0
    run = next(path for path in Path("runs").iterdir() if path.name.startswith("lora-"))
    assert read_json(run / "run.json")["revision"] == commit
    assert read_json(run / "adapter" / "adapter_config.json")["base_model_name_or_path"] == NAME


@pytest.mark.long
def test_the_command_line_opens_no_socket_offline(
    listed: Base, standin: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "init", "support.csv") == 0
    assert call(monkeypatch, "check", "recipe.toml") == 0

    def refuse(*args: object, **more: object) -> None:
        raise AssertionError("a socket was opened")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    assert call(monkeypatch, "init", "support.csv", "--offline", "--out", "other.toml") == 0
    for verb in ("check", "plan"):
        assert call(monkeypatch, verb, "recipe.toml", "--offline") == 0
    assert call(monkeypatch, "plan", "recipe.toml", "--offline", "--set", "model=owner/absent") == 2
    assert "owner/absent: is not on this machine, and --offline was given" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("only", ["config.json", pytest.param("tokenizer.json", marks=pytest.mark.slow)])
def test_what_another_tool_left_half_is_completed(
    listed: Base, standin: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], only: str
) -> None:
    assert call(monkeypatch, "init", "support.csv") == 0
    hf_hub_download(NAME, only, endpoint=standin.endpoint)
    capsys.readouterr()
    assert call(monkeypatch, "check", "recipe.toml", "--offline") == 2
    assert "lies here without its " in capsys.readouterr().err
    assert call(monkeypatch, "check", "recipe.toml") == 0
    assert call(monkeypatch, "train", "recipe.toml", *FEW) == 0


@pytest.mark.long
def test_nothing_is_written_before_a_base_that_cannot_be_had(
    listed: Base, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(monkeypatch, "init", "support.csv") == 0
    assert call(monkeypatch, "check", "recipe.toml") == 0
    before = {*Path(".").rglob("*")}
    assert call(monkeypatch, "train", "recipe.toml", "--offline", *FEW) == 2
    assert {*Path(".").rglob("*")} == before


def test_a_disk_that_is_too_small_is_told_at_the_door(
    listed: Base, standin: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "init", "support.csv") == 0
    monkeypatch.setattr(download, "room", lambda: 1000)
    assert call(monkeypatch, "plan", "recipe.toml") == 2
    assert "does not fit on the disk" in capsys.readouterr().err
