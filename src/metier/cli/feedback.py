"""`metier feedback`: thumbs and corrected answers → rows to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metier.cli.common import Json, emit, say
from metier.errors import MetierError
from metier.tables import Table


def feedback(
    database: Annotated[Path, typer.Argument(metavar="DATABASE", help="assistant.db of a server")],
    run: Annotated[list[str] | None, typer.Option(help="only opinions on this run's answers; may be repeated")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder to write to")] = Path("feedback"),
    json: Json = False,
) -> None:
    """Turn thumbs and corrected answers into training rows.

    Of each domain, conversations with their corrected answers, and pairs of a preferred answer and another one, each
    with where it comes from. No file is overwritten.
    """
    from metier.assistant.feedback import Feedback

    if not database.is_file():
        hint = "name the assistant.db of the folder where `metier serve` was started"
        raise MetierError(f"{database}: does not exist", hint)
    opinions = Feedback(database)
    written = opinions.export(out, run)
    if json:
        emit({str(path): count for path, count in written.items()})
    elif not written:
        say("nothing to learn from yet: no corrected answer, and no question with a liked and a disliked one")
    else:
        print(Table(("file", "rows"), [(str(path), str(count)) for path, count in written.items()]))
        say("\nnext: metier init ONE-OF-THESE --model runs/…, with the run that answered, to go on from what it knows")
        say("personal data was blotted out as it was kept: look for [phone number] and the like, and write in yours")
    if lone := sum(not each.correction for each in opinions.listed(run)):
        thumbs = "thumb" if lone == 1 else "thumbs"
        say(f"{lone} {thumbs} without a correction: what teaches is a question with a liked and a disliked answer")
