"""What people say of answers, and the conversations that wait for them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field

from metier.assistant.feedback import Model
from metier.assistant.store import Turn
from metier.inference.voices import Voice
from metier.web import answers
from metier.web.answers import told
from metier.web.callers import Admin, Asking
from metier.web.desk import AUTO, Desk
from metier.web.failures import Refusal
from metier.web.schema import Body, Name, Said, Text


class Thumb(Body):
    """An opinion of an answer; `messages` are the conversation up to it."""

    model: Name
    messages: Annotated[list[Said], Field(min_length=1, max_length=1000)]
    answer: Text
    liked: bool
    correction: Text = ""
    domain: Annotated[str, Field(max_length=100)] = ""


class Note(Body):
    """What was done about a ticket."""

    note: Annotated[str, Field(max_length=10_000)] = ""


def people_routes(desk: Desk) -> APIRouter:
    routes = APIRouter(prefix="/v1")
    care = desk.care

    if care.feedback is not None:
        feedback = care.feedback

        @routes.post("/feedback", responses=told(answers.Thanks))
        def thumb(body: Thumb, _: Asking) -> Any:
            """Keep what somebody thinks of an answer; `metier feedback` makes training rows of it."""
            voice = _judged(desk, body.model, body.domain)
            turns = [Turn(each.message.role, each.message.content) for each in body.messages]
            model = Model(voice.name if voice and voice.run else "", voice.digest if voice else "")
            number = feedback.add(turns, body.answer, body.domain, model, liked=body.liked, correction=body.correction)
            return {"id": number, "object": "feedback"}

    if care.tickets is not None:
        tickets = care.tickets

        @routes.get("/tickets", responses=told(answers.TicketList))
        def listed(_: Admin, state: Literal["open", "taken", "closed"] | None = None) -> Any:
            """The conversations that were handed over, the oldest first."""
            return {"object": "list", "data": [asdict(each) for each in tickets.listed(state)]}

        @routes.post("/tickets/{number}/take", responses=told(answers.TicketAnswer))
        def take(number: int, caller: Admin) -> Any:
            """Take one for oneself."""
            return asdict(tickets.take(_known(number), caller.name))

        @routes.post("/tickets/{number}/close", responses=told(answers.TicketAnswer))
        def close(number: int, body: Note, _: Admin) -> Any:
            """Done with it."""
            return asdict(tickets.close(_known(number), body.note))

    return routes


def _judged(desk: Desk, model: str, domain: str) -> Voice | None:
    """Who answered; None where `auto` asked back. Raises `Refusal` for a model or a domain that is not served."""
    voice = None if model == AUTO and desk.dispatch else desk.target(model).voice
    served = [voice] if voice and voice.run else desk.voices.all.values()  # a base is asked in the domains of all
    if domain not in {"", *(name for each in served for name in each.questions.domains)}:
        raise Refusal(400, f"domain: {model} has no {domain!r}", "GET /v1/models tells its domains", param="domain")
    return voice


def _known(number: int) -> int:
    """Raises `Refusal` for what no database counts to."""
    if not 0 < number < 2**63:
        raise Refusal(404, f"there is no ticket {number}", param="number")
    return number
