"""What ships to begin with: recipes, and comparisons that name one of them, by name."""

from __future__ import annotations

import tomllib
from itertools import takewhile
from pathlib import Path

from metier.cli.common import say
from metier.errors import Fault, MetierError, RecipeError
from metier.files import write_atomic

_ASSETS = Path(__file__).parent.parent / "assets"


def shipped(kind: str) -> dict[str, Path]:
    """Of `recipes` or of `comparisons`: name → file."""
    return {path.stem: path for path in sorted((_ASSETS / kind).glob("*.toml"))}


def names() -> str:
    """Of both kinds, for people."""
    return f"recipes {', '.join(shipped('recipes'))}; comparisons {', '.join(shipped('comparisons'))}"


def write_shipped(name: str, out: Path | None) -> None:
    """Write a recipe, or a comparison with its recipe beside it, and say what to type next; overwrite nothing."""
    recipes, comparisons = shipped("recipes"), shipped("comparisons")
    if name not in recipes | comparisons:
        raise MetierError(f"--recipe {name}: is not shipped", f"there are {names()}")
    if name in recipes:
        out = out or Path("recipe.toml")
        _write({out: recipes[name]}, out)
        say(f"next: metier check {out}, metier plan {out}, metier train {out}")
        return
    out = out or Path(f"{name}.toml")
    needed = recipes[Path(tomllib.loads(comparisons[name].read_text(encoding="utf-8"))["recipe"]).stem]
    _write({out: comparisons[name], out.parent / needed.name: needed}, out)
    say(f"next: metier check {out}, metier plan {out}, metier compare {out}")


def _write(files: dict[Path, Path], out: Path) -> None:
    """`files` are copied where nothing refuses; beside `out` there may be the same already."""
    texts = {path: source.read_text(encoding="utf-8") for path, source in files.items()}
    same = {path for path, text in texts.items() if path != out and path.is_file() and _read(path) == text}
    faults = [fault for path in texts if path not in same for fault in _in_the_way(path, out)]
    if faults:
        raise RecipeError(str(out), faults)
    say("\n".join(takewhile(lambda line: line.startswith("#"), texts[out].splitlines())))
    for path, text in texts.items():
        if path not in same:
            write_atomic(path, text)
        say(f"{path} is there already, as it ships" if path in same else f"wrote {path}")


def _in_the_way(path: Path, out: Path) -> list[Fault]:
    if path == out:
        return blocked(out)
    if path.exists():
        problem = f"exists already and is not the shipped recipe that {out.name} names"
        return [Fault(str(path), problem, "rename it, or write both into another folder with --out")]
    return []


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", errors="replace")


def blocked(out: Path) -> list[Fault]:
    """Why a file cannot be written anew."""
    if out.exists():
        return [Fault(str(out), "exists already", "remove it, or choose another with --out")]
    if not out.parent.is_dir():
        return [Fault(str(out), f"there is no folder {out.parent}", "make it, or choose another with --out")]
    return []
