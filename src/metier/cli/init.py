"""`metier init`: a commented recipe that trains without an edit."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tomlkit
import typer

from metier import hub
from metier.cli.common import Offline, say
from metier.cli.shipped import blocked, names, write_shipped
from metier.domain import Domain, Strict
from metier.errors import DataError, Fault, MetierError, RecipeError
from metier.figures import duration, size
from metier.files import write_atomic
from metier.recipe import Eval, Recipe, Train
from metier.strategies import OWN_METHODS, PEFT_METHODS, LastN, Lora, LoraStrategy

if TYPE_CHECKING:
    from tomlkit.items import Table

    from metier.proposal import Proposal


_SIDES = {"train", "training", "test", "testing", "dev", "val", "valid", "validation", "eval", "heldout", "held-out"}


def init(  # noqa: PLR0913, PLR0917 (a parameter is a flag)
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE...", help="your data: csv, tsv, json, jsonl or parquet; a domain each"),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="a hub name, a path, or nano (embedded); without it one is proposed")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME", help=f"a shipped recipe or comparison instead: {names()}")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="where to write; recipe.toml without it, a comparison under its own name"),
    ] = None,
    skip_faulty: Annotated[
        bool, typer.Option("--skip-faulty", help="leave out rows that have a fault of their own")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="print every field with its default")] = False,
    offline: Offline = False,
) -> None:
    """Write a recipe for data files, with a base that fits here.

    With --recipe one that ships is written as it is, or a comparison and, beside it, the recipe that it names.
    Without --model the largest known base is proposed that is tuned here within an hour.
    """
    if show:
        print(tomlkit.dumps(_every_field()))
        return
    if bool(files) == (recipe is not None):
        raise MetierError("give either data files, or --recipe with a shipped one", "metier init support.csv")
    if recipe is not None:
        write_shipped(recipe, out)
        return
    out = out or Path("recipe.toml")
    if faults := blocked(out):
        raise RecipeError(str(out), faults)
    domains = _guessed(files or [], skip_faulty)
    write_atomic(out, _for_domains(domains, model, out, offline))
    say(f"wrote {out}; next: metier check {out}, metier plan {out}, metier train {out}")


def _guessed(files: Sequence[Path], skip_faulty: bool) -> list[Domain]:
    """A domain of each file. Raises `MetierError` for files that are no domains of their own, before any is read."""
    from metier.data.guessing import domain_name

    found: dict[str, Path] = {}
    for file in files:
        name = domain_name(file.stem)
        if name in _SIDES and len(files) > 1:
            problem = f"{file}: seems to be a part of a data set, and would be a domain of its own"
            raise MetierError(
                problem, f"metier init the training rows, and write heldout = {file.name!r} under [[domain]]"
            )
        if name in found:
            raise MetierError(f"{file}: would be the domain {name!r}, as {found[name]} is", "rename one of the files")
        found[name] = file
    domains, faulty = list[Domain](), list[DataError]()
    for file in files:
        try:
            domains.append(_shown(file, skip_faulty))
        except DataError as error:
            faulty.append(error)
        if file != files[-1]:
            say("")
    if len(faulty) > 1:
        raise DataError("the data", [fault for each in faulty for fault in each.faults], faulty[0].hint)
    if faulty:
        raise faulty[0]
    return domains


def _shown(file: Path, skip_faulty: bool) -> Domain:
    """What a file seems to hold, shown on three rows."""
    from metier.data.checks import warnings
    from metier.data.guessing import propose
    from metier.data.items import make_items
    from metier.data.mappings import explain, told, unused
    from metier.data.sources import columns_of, read_rows

    domain = propose(file, []).model_copy(update={"skip_faulty": skip_faulty})
    unread: list[Fault] = []
    rows = read_rows(domain, file, unread)
    items = make_items(domain, rows, lambda fault: say(f"note  {fault}"), unread)
    say(explain(domain, items))
    if left := unused(domain, columns_of(rows)):
        say(told(left))
    for warning in warnings(domain, items):
        say(f"warning  {warning}")
    return domain


def _for_domains(domains: Iterable[Domain], model: str | None, out: Path, offline: bool) -> str:
    """The recipe's text."""
    values = [domain.model_dump(mode="json", exclude_none=True, exclude_defaults=True) for domain in domains]
    for each in values:
        each["data"] = _relative(Path(each["data"]), out.parent)
    if model:
        method = "lora"
        hub.assert_named(model, out.parent)
    else:
        model, method = _proposed(_document("nano", "lora", values).unwrap(), out, offline)
    return tomlkit.dumps(_document(model, method, values)) + "\n"


def _proposed(on_nano: dict[str, Any], out: Path, offline: bool) -> tuple[str, str]:
    """A base and the method that it fits with, said with its reasons; nano where none can be had."""
    from metier import bases, download, hardware, proposal
    from metier.job import prepare

    nano = "nano, the embedded base, for a first look at the whole way; --model takes a better one"
    if barrier := "--offline was given" if offline else download.barrier():
        say(f"model: {nano} ({barrier})")
        return "nano", "lora"
    say("model: timing this machine to find the largest base that it tunes within an hour; --model skips this")
    try:
        job = prepare(Recipe.of(on_nano, out), offline=True)
    except MetierError as error:
        say(f"model: {nano}; none is proposed before the data can be read: {error}")
        return "nano", "lora"
    machine = hardware.probe()
    rates = hardware.measure(proposal.layer(machine), machine.cores)
    choice = proposal.eligible(bases.known(), token=download.has_token(), room=download.room())
    found = proposal.propose(job.recipe, job.shape, choice, machine, rates)
    if found is None:
        say(f"model: {nano}; none of {len(choice)} known bases fits here within an hour")
        return "nano", "lora"
    _explain(found, len(choice))
    return found.base.pinned, found.method


def _explain(found: Proposal, choice: int) -> None:
    base = found.base
    gated = f", gated: accept it on {base.page}" if base.gated else ""
    say(f"model: {base.name}, {base.parameters / 1e9:.2f} billion parameters, licence {base.licence}{gated}")
    say(f"       {base.bytes / 1e9:.1f} GB are fetched when it is first used; {base.page}")
    say(
        f"       the largest of {choice} that fits: {found.method}, about {duration(found.seconds)} and "
        f"{size(found.plan.peak)} of memory (estimated: nano's tokens, one timed layer); see `metier plan`"
    )


def _relative(file: Path, directory: Path) -> str:
    try:
        return file.resolve().relative_to(directory.resolve()).as_posix()
    except ValueError:
        return file.resolve().as_posix()


def _document(model: str, method: str, values: Iterable[dict[str, Any]]) -> tomlkit.TOMLDocument:
    document = tomlkit.document()
    document.add(
        tomlkit.comment("Every key is explained by `metier init --show`; what is not written has its default.")
    )
    document.add("model", tomlkit.item(model))
    domains = tomlkit.aot()
    for each in values:
        domains.append(_table(Domain, {**each, "heldout": each.get("heldout", 0.2), "validation": 0.1}))
    document.add("domain", domains)
    strategy = _table(None, {"method": method}, {"method": " | ".join(OWN_METHODS)})
    strategy.add("peft", _table(Lora, {"r": "auto", "target_modules": "all-linear"}))
    document.add("strategy", strategy)
    document.add(
        "train",
        _table(
            Train,
            {"num_train_epochs": "auto", "learning_rate": "auto", "batch_size": "auto", "max_length": 1024, "seed": 17},
        ),
    )
    document.add("eval", _table(Eval, {"max_new_tokens": 256}))
    return document


def _table(model: type[Strict] | None, values: dict[str, Any], comments: dict[str, str] | None = None) -> Table:
    table = tomlkit.table()
    for key, value in values.items():
        item = tomlkit.item(value)
        note = (comments or {}).get(key) or (model.model_fields[key].description if model else None)
        table.add(key, item.comment(note) if note and not isinstance(value, dict) else item)
    return table


def _every_field() -> tomlkit.TOMLDocument:
    document = tomlkit.document()
    document.add("model", tomlkit.item("nano"))
    domains = tomlkit.aot()
    domains.append(_defaults(Domain, {"name": "support", "data": "support.csv"}))
    document.add("domain", domains)
    document.add("strategy", _strategy())
    document.add("train", _defaults(Train))
    document.add("eval", _defaults(Eval))
    return document


def _strategy() -> Table:
    strategy = _defaults(LoraStrategy, {"method": "lora"})
    layers = LastN.model_fields["layers"]
    strategy.add(tomlkit.comment(f'layers = {layers.default}  # {layers.description}; method = "last-n" only'))
    strategy.add(
        tomlkit.comment(f"method: {' | '.join(OWN_METHODS)}, or by its name one of PEFT's, with its own keys:")
    )
    for line in textwrap.wrap(", ".join(PEFT_METHODS), 110):
        strategy.add(tomlkit.comment(line))
    strategy.add("peft", _defaults(Lora))
    return strategy


def _defaults(model: type[Strict], given: dict[str, Any] | None = None) -> Table:
    """Every field: with its default, or as a comment where it has none."""
    table = tomlkit.table()
    for name, field in model.model_fields.items():
        value = (given or {}).get(name, field.get_default(call_default_factory=True))
        note = field.description or ""
        if isinstance(value, Strict):
            continue  # a table of its own
        if value is None or value == {}:
            table.add(tomlkit.comment(f"{name} = …  # {note}"))
        else:
            item = tomlkit.item(value)
            table.add(name, item.comment(note) if note else item)
    return table
