from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from metier.inference.voices import Voices
from metier.web.chat import Turn, streamed, usage
from metier.web.desk import Desk
from metier.web.meters import Meters


async def said() -> AsyncGenerator[dict[str, Any]]:
    yield {"choices": [{"text": "so"}]}
    yield {"choices": [], "usage": usage(7, 3)}


async def all_of(chunks: AsyncGenerator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [chunk async for chunk in chunks]


@pytest.mark.parametrize("tells_usage", [True, False])
def test_what_is_streamed_is_counted_asked_for_or_not(tells_usage: bool) -> None:
    meters = Meters(Desk(Voices(offline=True)))
    chunks = asyncio.run(all_of(meters.timed("desk", said(), 0.0, tells_usage=tells_usage)))
    assert len(chunks) == 1 + tells_usage
    told = meters.text().decode()
    assert 'metier_tokens_total{kind="prompt",model="desk"} 7.0' in told
    assert 'metier_tokens_total{kind="completion",model="desk"} 3.0' in told


def test_a_stream_ends_with_what_was_used_though_nobody_asked() -> None:
    turn = Turn("chatcmpl-1", "desk", 1, prompt_tokens=7, ready="Which of these is it about?")
    *_, last = asyncio.run(all_of(streamed(turn, tells_usage=False)))
    assert (last["choices"], last["usage"]) == ([], usage(7, 0))
