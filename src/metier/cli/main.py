"""The command line's edge: verbs, exit codes, and the only place that catches everything."""

from __future__ import annotations

import errno
import sys
import traceback
from importlib import metadata
from typing import Annotated, NoReturn

import typer

from metier.cli import chat, check, compare, demo, evaluate, feedback, init, plan, runs, serve, train
from metier.errors import MetierError
from metier.hardware import spin

USER, OURS, GATE = 2, 1, 3

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Turn an open language model into an expert in your domains, and prove it.",
)


def _version(asked: bool) -> None:
    if asked:
        print(metadata.version("metier"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_version, help="print it")] = False,
) -> None:
    del version  # told by its callback


_VERBS = (demo.demo, init.init, check.check, plan.plan, train.train, evaluate.evaluate)
for verb in (*_VERBS, compare.compare, runs.runs, chat.chat, serve.serve, feedback.feedback):
    app.command(name="eval" if verb is evaluate.evaluate else None)(verb)


def main() -> None:
    """Run a verb: exit 0 when done, 2 for the user's mistake or the machine's refusal, 1 for ours, 3 for a gate."""
    spin()
    try:
        app()
    except MetierError as error:
        _say(f"error: {error}", error.hint)
        raise SystemExit(USER) from None
    except OSError as error:
        if error.errno not in _REFUSALS:
            _confess(error)
        _say(f"error: {error.filename or 'the machine'}: {_REFUSALS[error.errno]}", "")
        raise SystemExit(USER) from None
    except MemoryError:
        _say("error: out of memory", "`metier plan` shows what needs how much")
        raise SystemExit(USER) from None
    except Exception as error:
        _confess(error)


_REFUSALS = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EFBIG: "the file would exceed the size limit; raise it (ulimit -f) and run the same command again",
    errno.EACCES: "permission denied; change the permissions or work in another folder",
    errno.EPERM: "not permitted; change the permissions or work in another folder",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EROFS: "the file system is read-only; work in another folder",
}


def _confess(error: Exception) -> NoReturn:
    traceback.print_exc()
    _say(
        f"error: {type(error).__name__}: this is a fault of metier's, not yours",
        "please report it with the lines above",
    )
    raise SystemExit(OURS) from None


def _say(message: str, hint: str) -> None:
    print(message, file=sys.stderr)
    if hint:
        print(f"\nhint: {hint}", file=sys.stderr)


if __name__ == "__main__":
    main()
