from __future__ import annotations

import asyncio
import threading
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


def test_keys_take_turns_in_front_of_the_engine() -> None:
    """One key with many long prompts delays another's by one of them; what nobody waits for is not done."""
    desk, gate, done = Desk(Voices(offline=True)), threading.Event(), list[str]()

    async def asked() -> None:
        many = [asyncio.ensure_future(desk.aside("many", gate.wait, 20))]
        many += [asyncio.ensure_future(desk.aside("many", done.append, f"many {number}")) for number in range(6)]
        await asyncio.sleep(0)  # they are queued
        one = [asyncio.ensure_future(desk.aside("one", done.append, "one")) for _ in range(2)]
        await asyncio.sleep(0)
        many.pop(3).cancel()
        gate.set()
        await asyncio.gather(*many, *one)

    asyncio.run(asked())
    assert done == ["many 0", "one", "many 1", "one", "many 3", "many 4", "many 5"]
