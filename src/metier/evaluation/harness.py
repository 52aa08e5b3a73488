"""lm-evaluation-harness with metier in it: its own command, `python -m metier.evaluation.harness …`."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from importlib.util import find_spec

from metier import download
from metier.errors import MetierError
from metier.events import Event, Listener, silent


def require() -> None:
    """Raises `MetierError` where the optional package is missing."""
    if find_spec("lm_eval") is None:
        raise MetierError("lm-evaluation-harness is not installed", 'pip install "lm-eval>=0.4.13,<0.5" "datasets>=4"')


def register() -> None:
    """Make the model `metier` known to lm-eval, which knows no plug-ins; twice is harmless."""
    require()
    import lm_eval.models  # noqa: F401 (fills the registry)
    from lm_eval.api.registry import model_registry

    if "metier" not in model_registry:
        model_registry.register("metier", target="metier.evaluation.lm:MetierLM")


@contextmanager
def quiet(listen: Listener = silent) -> Iterator[Listener]:
    """Hold back what lm-eval and datasets print for people who run them by themselves: bars and remarks on stderr.

    Gives a listener that is heard all the same.
    """
    stderr = sys.stderr

    def heard(event: Event) -> None:
        with redirect_stderr(stderr):
            listen(event)

    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield heard
    finally:
        logging.disable(level)


def main() -> None:
    """lm-eval's own command line; a user's mistake ends with one line and exit code 2."""
    try:
        register()
        from lm_eval.__main__ import cli_evaluate

        with (
            download.closed() if download.barrier() else nullcontext()
        ):  # without a network nothing is asked for six times
            cli_evaluate()
    except MetierError as error:
        print(f"error: {error}" + (f"\n\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
