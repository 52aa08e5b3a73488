"""What people say of answers, and the conversations that wait for them."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field, model_validator

from metier.assistant.feedback import Feedback, Model
from metier.assistant.store import Turn
from metier.data.mappings import short
from metier.inference.voices import Voice
from metier.web import answers
from metier.web.answers import BUSY, told
from metier.web.callers import Admin, Asking
from metier.web.desk import AUTO, Desk, Target
from metier.web.failures import Refusal
from metier.web.schema import Body, Name, Talk, Text

_MOST = 200_000  # characters of a conversation that is kept: each of them is looked at for what has to be masked


class Thumb(Body):
    """An opinion of an answer; `messages` are the conversation up to it."""

    model: Name
    messages: Talk
    answer: Text
    liked: bool
    correction: Text = ""
    domain: Annotated[str, Field(max_length=100)] = ""

    @model_validator(mode="after")
    def _is_read_at_once(self) -> Thumb:
        texts = [*(each.message.content for each in self.messages), self.answer, self.correction]
        if sum(map(len, texts)) > _MOST:
            raise ValueError(f"messages: have more than {_MOST:,} characters; leave out earlier turns")
        return self


class Note(Body):
    """What was done about a ticket."""

    note: Annotated[str, Field(max_length=10_000)] = ""


def people_routes(desk: Desk) -> APIRouter:
    routes = APIRouter(prefix="/v1")
    care = desk.care

    if care.feedback is not None:
        feedback = care.feedback

        @routes.post("/feedback", responses=told(answers.Thanks) | BUSY)
        async def thumb(body: Thumb, caller: Asking) -> Any:
            """Keep what somebody thinks of an answer; `metier feedback` makes training rows of it."""
            voice, domain = await desk.aside(caller.name, _judged, desk, body)
            number = await asyncio.to_thread(_kept, feedback, body, voice, domain)  # a disk may keep others waiting
            return {"id": number, "object": "feedback"}

    if care.tickets is not None:
        tickets = care.tickets

        @routes.get("/tickets", responses=told(answers.TicketList) | BUSY)
        def listed(_: Admin, state: Literal["open", "taken", "closed"] | None = None) -> Any:
            """The conversations that were handed over, the oldest first."""
            return {"object": "list", "data": [asdict(each) for each in tickets.listed(state)]}

        @routes.post("/tickets/{number}/take", responses=told(answers.TicketAnswer) | BUSY)
        def take(number: int, caller: Admin) -> Any:
            """Take one for oneself."""
            return asdict(tickets.take(_known(number), caller.name))

        @routes.post("/tickets/{number}/close", responses=told(answers.TicketAnswer) | BUSY)
        def close(number: int, body: Note, _: Admin) -> Any:
            """Done with it."""
            return asdict(tickets.close(_known(number), body.note))

    return routes


def _kept(feedback: Feedback, body: Thumb, voice: Voice | None, domain: str) -> int:
    """Its number, filed under who answered."""
    turns = [Turn(each.message.role, each.message.content) for each in body.messages]
    model = Model(voice.name if voice and voice.run else "", voice.digest if voice else "")
    return feedback.add(turns, body.answer, domain, model, liked=body.liked, correction=body.correction)


def _judged(desk: Desk, body: Thumb) -> tuple[Voice | None, str]:
    """Who answered, None where `auto` asked back, and in which domain.

    Raises `Refusal` for a model or a domain that is not served, and a correction that the domain's closed set lacks.
    """
    target: Target | None
    if body.model == AUTO:
        said = [each.message.content for each in body.messages if each.message.role == "user"]
        target = desk.expert(body.domain) or (desk.send(said, desk.lessons.now)[0] if said else None)
    else:
        target = desk.target(body.model, talks=True)
    voice = target.voice if target else None
    domain = body.domain or (target.domain if target else "")
    alone = voice and voice.run and body.model != AUTO  # `auto`, and a base, are asked in the domains of all
    served = [voice] if voice and alone else desk.voices.all.values()
    if domain not in {"", *(name for each in served for name in each.questions.domains)}:
        problem = f"domain: {body.model} has no {domain!r}"
        raise Refusal(400, problem, "GET /v1/models tells its domains", param="domain")
    asked = next((each.questions for each in (voice, *served) if each and domain in each.questions.domains), None)
    labels = asked.labels(domain) if asked else ()
    if labels and body.correction.strip() not in {"", *labels}:
        problem = f"correction: {domain} has no such reply"
        raise Refusal(400, problem, f"choose from {short(', '.join(labels), 300)}", param="correction")
    return voice, domain


def _known(number: int) -> int:
    """Raises `Refusal` for what no database counts to."""
    if not 0 < number < 2**63:
        raise Refusal(404, f"there is no ticket {number}", param="number")
    return number
