"""The application: routes over runs that are served."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from metier.inference.voices import NATIVE
from metier.run import Run
from metier.web import answers, chat, completions
from metier.web.answers import BUSY, ENDED, REFUSED, told
from metier.web.callers import Admin, Asking
from metier.web.desk import AUTO, Desk, Target, assert_short, read
from metier.web.failures import Refusal, answer_failures
from metier.web.files import Files
from metier.web.guard import Guard, Rules
from metier.web.jobs import Jobs
from metier.web.keys import Keys
from metier.web.meters import Meters
from metier.web.page import page_routes
from metier.web.people import people_routes
from metier.web.schema import ChatBody, CompletionBody, LoadBody, TokenizeBody, UnloadBody
from metier.web.standing import standings
from metier.web.tunings import file_routes, tuning_routes

DRAIN = 30  # seconds in which what is being said may end, and all else with it

Result = TypeVar("Result")


def make_app(desk: Desk, jobs: Jobs, rules: Rules, keys: Keys, *, home: Path) -> ASGIApp:
    """Everything that is served, behind its guard; runs that are loaded later lie in `home`."""
    meters = Meters(desk)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        desk.lessons.stop()
        left = max(0.0, jobs.halt() + DRAIN - time.monotonic())  # answers had their part of it already
        await asyncio.gather(asyncio.to_thread(jobs.stop, left), asyncio.to_thread(desk.voices.stop, left))

    app = FastAPI(title="metier", docs_url=None, redoc_url=None, lifespan=lifespan, responses=REFUSED)
    answer_failures(app)
    app.include_router(_answering(desk, meters))
    app.include_router(_models(desk, jobs, home))
    app.include_router(_state(desk, meters))
    app.include_router(people_routes(desk))
    app.include_router(page_routes(desk))
    files = Files(home / "files")
    app.include_router(file_routes(files, jobs))
    app.include_router(tuning_routes(desk, files, jobs))
    return Guard(app, rules, keys)


def _answering(desk: Desk, meters: Meters) -> APIRouter:
    routes = APIRouter(prefix="/v1")

    @routes.post("/chat/completions", responses=told(answers.ChatAnswer, streams=True) | BUSY)
    async def answer(body: ChatBody, request: Request, caller: Asking) -> Any:
        """A conversation's next turn, at once or as server-sent events."""
        begun = time.monotonic()
        turn = await chat.begin(desk, body, caller.name)
        since = begun if turn.target else None  # what no model says takes none of its time
        meters.asked(body.model, "chat")
        if body.stream:
            chunks = chat.streamed(turn, tells_usage=body.tells_usage)
            return await _streamed(request, meters.timed(body.model, chunks, since, tells_usage=body.tells_usage))
        return await _told(request, meters, body.model, since, chat.whole(turn))

    @routes.post("/completions", responses=told(answers.CompletionAnswer, streams=True) | BUSY)
    async def go_on(body: CompletionBody, request: Request, caller: Asking) -> Any:
        """A text, or tokens, gone on with."""
        begun = time.monotonic()
        asked = await desk.aside(caller.name, completions.begin, desk.target(body.model), body, caller.name)
        meters.asked(body.model, "completions")
        if body.stream:
            chunks = completions.streamed(asked)
            return await _streamed(request, meters.timed(body.model, chunks, begun, tells_usage=body.tells_usage))
        return await _told(request, meters, body.model, begun, completions.whole(asked))

    return routes


class _Events(StreamingResponse):
    """Chunks of which the first is there already; they are closed however the response ends, begun or not."""

    def __init__(self, first: dict[str, Any] | None, chunks: AsyncGenerator[dict[str, Any]]) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # or a proxy would hold the pieces back
        super().__init__(chat.events(first, chunks), media_type="text/event-stream", headers=headers)
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._chunks):
            await super().__call__(scope, receive, send)


async def _streamed(request: Request, chunks: AsyncGenerator[dict[str, Any]]) -> StreamingResponse:
    """Begun with the first chunk: what fails before, as in a full queue, is told with a status of its own."""

    async def first() -> dict[str, Any] | None:
        return await anext(chunks, None)

    return _Events(await _unless_gone(request, first()), chunks)


async def _told(
    request: Request, meters: Meters, model: str, since: float | None, answer: Coroutine[Any, Any, dict[str, Any]]
) -> dict[str, Any]:
    """A whole answer, counted; `since` as `Meters.told` has it."""
    told = await _unless_gone(request, answer)
    meters.told(model, told["usage"], since)
    return told


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """What it comes to, unless whoever asked has left meanwhile: then it is not gone on with."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Refusal(499, "whoever asked has left")
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _models(desk: Desk, jobs: Jobs, home: Path) -> APIRouter:
    routes = APIRouter(prefix="/v1")

    @routes.get("/models", responses=told(answers.Models))
    async def models(_: Asking) -> Any:
        """Every name that may be asked, with the base on which it stands."""
        return {
            "object": "list",
            "data": [*_auto(desk), *(_model(name, target) for name, target in desk.targets.items())],
        }

    @routes.get("/models/{name:path}", responses=told(answers.Model) | BUSY)
    async def model(name: str, _: Asking) -> Any:
        """One of them."""
        auto = _auto(desk) if name == AUTO else []
        return auto[0] if auto else _model(name, desk.target(name, talks=True))

    @routes.post("/load_lora_adapter", responses=told(answers.Model) | BUSY)
    async def load(body: LoadBody, _: Admin) -> Any:
        """Serve another run, by its name or folder below the one in which the server was started."""
        run = await asyncio.to_thread(_run, home, body.run)
        await asyncio.to_thread(jobs.remember, body.name or run.name, run)  # first, for the disk may be full
        voice = await asyncio.to_thread(desk.add, run, body.name or "")
        return _model(voice.name, desk.target(voice.name))

    @routes.post("/unload_lora_adapter", responses=told(answers.Deleted) | BUSY)
    async def unload(body: UnloadBody, _: Admin) -> Any:
        """Serve a run no more, nor one that was tuned here when the server is started again."""
        if body.name not in desk.voices:
            raise Refusal(404, f"{body.name}: no run of this name is served", param="name", code="model_not_found")
        await asyncio.to_thread(jobs.remember, body.name)
        await asyncio.to_thread(desk.remove, body.name)
        return {"id": body.name, "object": "model", "deleted": True}

    return routes


def _run(home: Path, name: str) -> Run:
    """Raises `Refusal` for what is no name, or lies elsewhere."""
    try:
        folder, inside = (home / name).resolve(), (home / "runs" / name).resolve()
        folder = inside if inside.is_dir() and not folder.is_dir() else folder
    except (OSError, ValueError):  # longer than a name may be, or with a NUL
        raise Refusal(404, f"{name!r}: is no run's name", param="run") from None
    if not folder.is_relative_to(home.resolve()):
        raise Refusal(403, f"{name}: lies outside of the server's folder", param="run")
    return Run.open(folder)


def _auto(desk: Desk) -> list[dict[str, Any]]:
    """What chooses the domain by itself, with how often it was right on held-out questions."""
    dispatch = desk.dispatch
    if dispatch is None:
        return []
    found = dispatch.heldout
    measured = {"right": found.right, "wrong": found.wrong, "abstained": found.abstained}
    told = {"id": AUTO, "object": "model", "created": 0, "owned_by": "metier", "root": AUTO, "parent": None}
    return [{**told, "domains": [*dispatch.router.domains], "heldout": measured}]


def _model(name: str, target: Target) -> dict[str, Any]:
    """OpenAI's words, and of a run what it was measured to be worth; `untuned` tells whether its base can be asked."""
    voice, run = target.voice, target.voice.run
    created = int(datetime.fromisoformat(run.facts["started"]).timestamp()) if run else 0
    told = {"id": name, "object": "model", "created": created, "owned_by": "metier", "root": voice.name}
    # Only metier's own engine answers as the run was measured.
    engine = {"engine": voice.ground.engine, "as_measured": voice.ground.engine == NATIVE}
    told |= {"parent": voice.ground.model if run else None, "domains": [*voice.questions.domains], **engine}
    if run is None:
        return told
    domains = [target.domain] if target.domain else [*voice.questions.domains]
    measured = {"method": run.facts["method"], "scores": standings(run, domains)}
    return {**told, **measured, "untuned": voice.ground.shared}


def _tokens(target: Target, body: TokenizeBody) -> list[int]:
    renderer = target.voice.ground.renderer
    if body.prompt is None:
        return renderer.prompt_ids(read(target, [each.message for each in body.messages or ()]).asked)
    assert_short(target, len(body.prompt), "prompt")
    return renderer.raw_ids(body.prompt)


def _state(desk: Desk, meters: Meters) -> APIRouter:
    routes = APIRouter()

    @routes.get("/health", responses=told(answers.Health) | ENDED)
    async def health() -> Any:
        """Whether it answers, and every engine with it."""
        if not all(ground.worker.alive for ground in desk.voices.grounds):
            raise Refusal(503, "an engine has ended", "restart the server; its log says more")
        return {"status": "ok"}

    @routes.get("/metrics", response_class=PlainTextResponse)
    async def metrics(_: Asking) -> PlainTextResponse:
        """Counts and times, for Prometheus."""
        return PlainTextResponse(meters.text(), media_type="text/plain; version=0.0.4")

    @routes.post("/tokenize", responses=told(answers.Tokens))
    async def tokenize(body: TokenizeBody, caller: Asking) -> Any:
        """A text, or a conversation with all that stands around it, as tokens."""
        target = desk.target(body.model)
        tokens = await desk.aside(caller.name, _tokens, target, body)
        return {"tokens": tokens, "count": len(tokens), "max_model_len": target.voice.ground.context}

    return routes
