from __future__ import annotations

from typing import Any, cast

from metier.inference.voices import Voices
from metier.web.desk import Desk
from metier.web.dispatch import Dispatch, Routed


class Sure:
    """Sends everything to one domain."""

    class router:
        domains = ("help", "mood")

    def send(self, _: str) -> Routed:
        return Routed("help", 0.9)


def test_a_domain_that_nobody_knows_any_more_is_asked_back_for() -> None:
    desk = Desk(Voices(offline=True), cast(Dispatch, cast(Any, Sure())))
    assert desk.send("how do I open it?") == (None, Routed("help", 0.9))
