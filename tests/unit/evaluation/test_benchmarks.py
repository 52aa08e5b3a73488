from __future__ import annotations

import json
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.registry import get_model
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from typer.testing import CliRunner

from metier.cli import main as cli
from metier.errors import MetierError, RunError
from metier.evaluation import benchmarks, harness
from metier.evaluation.lm import MetierLM
from metier.evaluation.tasks import Asking, Tasks, find_tasks, identity
from metier.events import silent
from metier.figures import decimal
from metier.run import Run
from tests.unit import local_tasks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for shape in local_tasks.SHAPES:
        local_tasks.write(tmp_path, shape, local_tasks.invented(shape))
    return tmp_path


def evaluated(run: Run, *arguments: str) -> Any:
    result = CliRunner().invoke(cli.app, ["eval", str(run.directory), *arguments, "--json", "--offline"])
    if result.exception:
        raise result.exception
    return json.loads(result.stdout)


def no_socket(*_: Any, **__: Any) -> None:
    raise AssertionError("a socket was opened")


@pytest.mark.long
def test_a_run_stands_beside_its_base_on_every_shape(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a socket; each value is lm-eval's own, recomputed from the items that are kept."""
    monkeypatch.setattr(socket.socket, "connect", no_socket)
    monkeypatch.setattr(socket, "getaddrinfo", no_socket)
    found = evaluated(run, "--tasks", str(folder), "--limit", "7")
    assert Path(found["base"]) == benchmarks.untuned(run).directory  # type: ignore[union-attr]
    records = {}
    for path in (run.directory / "benchmarks").glob("*.json"):
        record = json.loads(path.read_text())
        assert list(record)[:2] == ["format", "status"]
        assert len(record["samples"]) == 7
        records[record["task"]] = record
    assert records.keys() == {f"local_{shape}" for shape in local_tasks.SHAPES}
    assert {line["metric"] for line in found["lines"]} >= {"acc,none", "perplexity,none", "bits_per_byte,none"}
    for line in found["lines"]:
        assert line["tuned"]["value"] == pytest.approx(records[line["task"]]["metrics"][line["metric"]]["value"])
        assert line["tuned"]["low"] <= line["tuned"]["value"] <= line["tuned"]["high"]
        assert line["difference"]["value"] == pytest.approx(line["tuned"]["value"] - line["base"]["value"])
    (kept,) = run.benchmarks
    assert kept["lines"] == found["lines"]
    for told in (run.report.read_text(), "\n".join(map(str, run.parts()))):
        assert "the first 7 items of each task" in told
        for line in found["lines"]:
            assert line["task"] in told
            value = line["difference"]["value"]
            assert decimal(value, 3 if abs(value) < 100 else 0, signed=True) in told
    evaluated(run, "--tasks", str(folder), "--limit", "7")
    assert len(run.benchmarks) == 1, "the same again stands in its place"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's own use of it
@pytest.mark.long
def test_a_tuned_run_answers_as_base_and_adapter_under_the_hf_backend(run: Run, tmp_path: Path) -> None:
    """And its base as the base alone."""
    path = local_tasks.write(tmp_path, "arc", local_tasks.invented("arc"))
    found, base = find_tasks([str(path)], Asking()), benchmarks.untuned(run)
    assert base
    common = {"pretrained": str(run.directory.parent.parent / "base"), "dtype": "float32", "device": "cpu"}
    values = []
    for side, more in ((run, {"peft": str(run.adapter)}), (base, {})):
        (ours,) = benchmarks.measure(side, found, Asking(), silent).values()
        theirs = evaluate(HFLM(**common, **more), {"tasks": dict(found.tasks)}, bootstrap_iters=0)
        for one, two in zip(ours["samples"], theirs["samples"]["local_arc"], strict=True):
            values.append([value for value, _ in one["answers"]])
            assert values[-1] == pytest.approx([value for value, _ in two["filtered_resps"]], abs=1e-3)
    assert any(
        tuned != pytest.approx(untuned, abs=1e-3) for tuned, untuned in zip(values[:12], values[12:], strict=True)
    )


@pytest.mark.long
def test_what_is_stored_is_not_asked_again_and_what_changed_is(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    opened = benchmarks.open_run
    monkeypatch.setattr(benchmarks, "open_run", lambda run, **how: asked.append(run.directory) or opened(run, **how))
    rows = local_tasks.invented("arc", 5)  # a number that no other test asks
    task = str(local_tasks.write(tmp_path, "arc", rows))
    before = evaluated(run, "--tasks", task)
    assert len(asked) == 2
    assert evaluated(run, "--tasks", task) == before
    assert len(asked) == 2
    evaluated(run, "--tasks", task, "--num-fewshot", "1")
    assert len(asked) == 4
    rows[3]["query"] = "another question"
    local_tasks.write(tmp_path, "arc", rows)
    evaluated(run, "--tasks", task)
    assert len(asked) == 6


def test_the_table_says_no_more_than_the_test_allows(run: Run, tmp_path: Path) -> None:
    task = str(local_tasks.write(tmp_path, "boolq", local_tasks.invented("boolq")))
    result = CliRunner().invoke(cli.app, ["eval", str(run.directory), "--tasks", task, "--offline"])
    assert result.exit_code == 0
    assert "no difference shown" in result.stderr
    assert not result.stdout


def test_the_base_alone_has_one_column(run: Run, tmp_path: Path) -> None:
    task = str(local_tasks.write(tmp_path, "piqa", local_tasks.invented("piqa")))
    base = benchmarks.untuned(run)
    assert base
    found = evaluated(base, "--tasks", task)
    assert found["base"] is None
    assert {line["difference"] for line in found["lines"]} == {None}


def record(task: str, values: Sequence[Any], aggregation: str = "mean", higher: bool | None = True) -> dict[str, Any]:
    metrics = {"m,none": {"value": 0.5, "aggregation": aggregation, "higher_is_better": higher}}
    samples = [{"id": place, "filter": "none", "metrics": {"m": value}} for place, value in enumerate(values)]
    return {"task": task, "metrics": metrics, "samples": samples}


def compared(ours: dict[str, Any], base: dict[str, Any], groups: dict[str, list[str]] | None = None) -> list[Any]:
    return benchmarks.compare({ours["task"]: ours}, {base["task"]: base}, Tasks({}, groups or {}))


def test_better_and_worse_are_said_only_where_the_paired_test_allows() -> None:
    verdicts = {
        wins: compared(record("t", [1] * wins + [0] * 20), record("t", [0] * (wins + 20)))[0].difference.verdict
        for wins in (0, 4, 12)
    }
    assert verdicts == {0: "no difference shown", 4: "no difference shown", 12: "better"}
    low = compared(record("t", [-1.0, -1.1] * 20, "perplexity", False), record("t", [-2.0] * 40, "perplexity", False))
    assert low[0].difference.verdict == "better"
    assert low[0].tuned.value == pytest.approx(2.718281828**1.05)
    assert low[0].difference.test == "paired bootstrap"


@pytest.mark.parametrize(
    "sides",
    [
        (record("t", [[1, 1]] * 9, "f1"), record("t", [[0, 1]] * 9, "f1")),
        (record("t", ["a"] * 9), record("t", ["b"] * 9)),
        (record("t", [1.0] * 9, "mean", None), record("t", [0.0] * 9, "mean", None)),
    ],
)
def test_a_metric_without_a_test_gets_no_verdict(sides: tuple[dict[str, Any], dict[str, Any]]) -> None:
    assert compared(*sides)[0].difference is None


def test_a_group_pools_the_items_of_its_tasks_and_holm_covers_all_lines() -> None:
    ours = {name: record(name, [1] * 9 + [0] * 9) for name in ("one", "two")}
    base = {name: record(name, [0] * 18) for name in ("one", "two")}
    one, _, both = benchmarks.compare(ours, base, Tasks({}, {"both": ["one", "two"]}))
    assert (one.n, both.task, both.n, both.tuned.value) == (18, "both", 36, 0.5)
    assert one.difference
    assert both.difference
    assert both.difference.p == pytest.approx(2 / 2**18)
    assert both.difference.p_adjusted == pytest.approx(3 * both.difference.p)
    assert one.difference.p_adjusted == pytest.approx(2 * one.difference.p)


def test_broken_weights_leave_no_record(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="finite"):
        benchmarks._write(tmp_path / "benchmarks" / "t.json", record("t", [float("nan")]))
    assert not list((tmp_path / "benchmarks").iterdir())


def test_a_folder_brings_its_groups_and_the_tasks_beside_them(folder: Path) -> None:
    (folder / "group.yaml").write_text("group: reading\ntask: [local_arc, local_boolq]\n")
    (folder / "broken.txt").write_text("{")
    found = find_tasks([str(folder)], Asking())
    assert found.tasks.keys() == {f"local_{shape}" for shape in local_tasks.SHAPES}
    assert {name: sorted(each) for name, each in found.groups.items()} == {"reading": ["local_arc", "local_boolq"]}


def test_a_task_is_known_by_what_it_asks_not_by_where_it_lies(tmp_path: Path) -> None:
    keys = set()
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        path = local_tasks.write(tmp_path / place, "arc", local_tasks.invented("arc"))
        (task,) = find_tasks([str(path)], Asking()).tasks.values()
        keys.add(identity(task, Asking()))
    assert len(keys) == 1
    assert identity(task, Asking(limit=3)) not in keys
    assert identity(task, Asking(apply_chat_template=True)) not in keys


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ("[x", "ParserError"),
        ("only text", "Expected YAML dict"),
        ({"doc_to_tarjet": "x"}, r"doc_to_tarjet: is no key of a task; did you mean `doc_to_target`\?"),
        ({"doc_to_text": "{{questoin}}"}, "'questoin' is undefined"),
        ({"dataset_kwargs": {"data_files": {"test": "nowhere.jsonl"}}}, "nowhere.jsonl"),
        ({"dataset_path": "someone/something", "dataset_kwargs": {}}, "not on this machine, and --offline was given"),
        (
            {"metric_list": [{"metric": "acc", "aggregation": "meen"}]},
            "acc has an aggregation that lm-eval does not know",
        ),
        ({"metric_list": [{"metric": "acccc"}]}, "acccc: is no metric of lm-eval's; did you mean `acc`"),
        ({"unsafe_code": True}, "runs code"),
    ],
)
def test_a_file_that_is_no_task_is_told_in_one_line(tmp_path: Path, changes: Any, said: str) -> None:
    path = local_tasks.write(
        tmp_path, "arc", local_tasks.invented("arc"), **(changes if isinstance(changes, dict) else {})
    )
    if isinstance(changes, str):
        path.write_text(changes)
    with pytest.raises(MetierError, match=said) as error:
        find_tasks([str(path)], Asking(), offline=True)
    assert len(str(error.value).splitlines()) == 1
    assert "arc" in str(error.value)


def test_a_name_that_is_near_one_is_named(tmp_path: Path) -> None:
    local_tasks.write(tmp_path, "arc", local_tasks.invented("arc"))
    with pytest.raises(MetierError, match=r"did you mean `arc\.yaml`"):
        find_tasks([str(tmp_path / "ark.yaml")], Asking())
    with pytest.raises(MetierError, match="names no task"):
        find_tasks([], Asking())
    (tmp_path / "empty").mkdir()
    with pytest.raises(MetierError, match="no YAML file with a task"):
        find_tasks([str(tmp_path / "empty")], Asking())
    with pytest.raises(MetierError, match="there already"):
        find_tasks([str(tmp_path), str(tmp_path / "arc.yaml")], Asking())


@pytest.mark.slow
def test_the_tasks_of_lm_eval_are_known_by_name() -> None:
    """Its own index takes eight seconds."""
    with pytest.raises(MetierError, match="did you mean `arc_easy`"):
        find_tasks(["arc_eazy"], Asking(), offline=True)
    with pytest.raises(MetierError, match="not on this machine"):
        find_tasks(["arc_easy"], Asking(), offline=True)


def test_flags_of_benchmarks_alone_and_runs_that_cannot_be_asked(run: Run) -> None:
    (classical,) = run.directory.parent.glob("classical-*")
    for arguments, said in [
        ((str(run.directory), "--limit", "3"), "belong to --tasks"),
        ((str(classical), "--tasks", "x.yaml"), "no language model"),
        (("recipe.toml", "--tasks", "x.yaml"), "benchmarks need a run"),
    ]:
        assert said in str(CliRunner().invoke(cli.app, ["eval", *arguments]).exception)


def test_without_lm_eval_one_line_tells_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "find_spec", lambda _: None)
    error = CliRunner().invoke(cli.app, ["eval", str(run.directory), "--tasks", "x.yaml"]).exception
    assert isinstance(error, MetierError)
    assert 'pip install "lm-eval' in error.hint


@pytest.mark.slow
def test_lm_evals_own_command_knows_metier(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It reads lm-eval's index, too, which takes eight seconds."""
    monkeypatch.setattr("metier.download.barrier", lambda: "no network in tests")
    local_tasks.write(tmp_path, "arc", local_tasks.invented("arc"))
    command = ["--model", "metier", "--tasks", str(tmp_path), "--limit", "5", "--model_args"]
    monkeypatch.setattr(sys, "argv", ["harness", *command, f"pretrained={run.directory}"])
    harness.main()
    assert "local_arc" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["harness", *command, f"pretrained={run.directory},max_lenght=3"])
    with pytest.raises(SystemExit) as ended:
        harness.main()
    assert ended.value.code == 2
    assert "did you mean `max_length`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("pretrained={run},max_lenght=3", r"max_lenght: is no argument of the model; did you mean `max_length`\?"),
        ("pretrained={run},dtype=float32", "keeps the number format"),
        ("pretrained=nowhere", "does not exist"),
        ("dtype=float32", "pretrained: field required"),
    ],
)
def test_arguments_of_the_model_that_cannot_be(run: Run, arguments: str, said: str) -> None:
    harness.register()
    model = get_model("metier")
    assert model is MetierLM
    with pytest.raises(MetierError, match=said):
        model.create_from_arg_string(arguments.format(run=run.directory), {"batch_size": 1, "device": "cuda:0"})


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"do_sample": True, "temperature": 0.7}, "do_sample"),
        ({"num_beams": 4}, "num_beams"),
        ({"max_gen_toks": 4000}, "reads 512"),
    ],
)
def test_what_greedy_decoding_cannot_do_is_refused(run: Run, how: dict[str, Any], said: str) -> None:
    lm = MetierLM.create_from_arg_obj({"pretrained": str(run.directory)})
    with pytest.raises(MetierError, match=said):
        lm._asked("x", {"until": ["\n"], **how})


def test_the_chat_template_is_the_runs_own(run: Run, tmp_path: Path) -> None:
    lm = MetierLM.create_from_arg_obj({"pretrained": str(run.directory)})
    asked = [{"role": "user", "content": "Hm?"}]
    assert lm.apply_chat_template(asked) == "<|user|>\nHm?<|end|>\n<|assistant|>\n"
    begun = [*asked, {"role": "assistant", "content": "It is"}]
    assert lm.apply_chat_template(begun, add_generation_prompt=False) == "<|user|>\nHm?<|end|>\n<|assistant|>\nIt is"
    path = str(local_tasks.write(tmp_path, "arc", local_tasks.invented("arc")))
    found = find_tasks([path], Asking(apply_chat_template=True))
    (kept,) = benchmarks.measure(run, found, Asking(apply_chat_template=True), silent).values()
    assert kept["settings"]["apply_chat_template"] is True
