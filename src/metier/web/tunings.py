"""Routes of `/v1/files` and `/v1/fine_tuning/jobs`."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import FileResponse
from pydantic import Field

from metier.web import answers
from metier.web.answers import BUSY, told
from metier.web.callers import Admin
from metier.web.desk import Desk
from metier.web.failures import Refusal
from metier.web.files import Files, is_id, new_id
from metier.web.job import Job
from metier.web.jobs import Jobs
from metier.web.keys import Caller
from metier.web.schema import Auto, Body, Name
from metier.web.turns import Turns

Key = Annotated[str, Field(max_length=64)]
Note = Annotated[str, Field(max_length=512)]
Limit = Annotated[int, Field(ge=1, le=100)]
_METADATA = re.compile(r"metadata\[(.*)\]")


class Hyperparameters(Body):
    """OpenAI's three; the factor of the learning rate is not one of metier's, and is left out."""

    n_epochs: Auto | Annotated[int, Field(ge=1, le=50)] = "auto"
    batch_size: Auto | Annotated[int, Field(ge=1, le=1024)] = "auto"


class Supervised(Body):
    """Settings of supervised tuning."""

    hyperparameters: Hyperparameters = Hyperparameters()


class Preferring(Hyperparameters):
    """Besides, how strongly the base holds; 0.1 where it is left to metier."""

    beta: Auto | Annotated[float, Field(gt=0, le=2)] = "auto"


class Preference(Body):
    """Settings of direct preference optimisation."""

    hyperparameters: Preferring = Preferring()


class Method(Body):
    """How it is tuned: on answers, or on pairs of a preferred and another one."""

    type: Literal["supervised", "dpo"] = "supervised"
    supervised: Supervised = Supervised()
    dpo: Preference = Preference()

    @property
    def hyperparameters(self) -> Hyperparameters:
        return self.dpo.hyperparameters if self.type == "dpo" else self.supervised.hyperparameters


class JobBody(Body):
    """A tuning to begin; without a method as its file is."""

    model: Name
    training_file: Name
    validation_file: Name | None = None
    hyperparameters: Hyperparameters | None = None
    method: Method | None = None
    suffix: Annotated[str | None, Field(max_length=64, description="what it is for: the name of its domain")] = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    metadata: Annotated[dict[Key, Note], Field(max_length=16)] | None = None
    skip_faulty: bool | None = Field(False, description="leave out rows that have a fault of their own")


def file_routes(files: Files, jobs: Jobs) -> APIRouter:
    routes = APIRouter(prefix="/v1")

    @routes.post("/files", responses=told(answers.FileAnswer) | BUSY)
    async def send(file: Annotated[UploadFile, File()], purpose: Annotated[str, Form()], caller: Admin) -> Any:
        """Keep a file."""
        content = await file.read()
        return (await asyncio.to_thread(files.keep, file.filename or "", purpose, content, caller.name)).told()

    @routes.get("/files", responses=told(answers.FileList))
    def listed(
        caller: Admin,
        purpose: str | None = None,
        limit: Annotated[int, Field(ge=1, le=10_000)] = 10_000,
        after: str | None = None,
        order: Literal["asc", "desc"] = "desc",
    ) -> Any:
        """The key's files, newest first unless told otherwise."""
        found = [each.told() for each in files.all(caller.name) if purpose in (None, each.purpose)]
        found = found if order == "desc" else found[::-1]
        if after is not None:  # it may be gone: who cleans up deletes page by page
            if not is_id("file", after):
                raise _unknown(after)
            found = [each for each in found if each["id"] != after and (each["id"] < after) == (order == "desc")]
        return _page(found, limit)

    @routes.get("/files/{file_id}", responses=told(answers.FileAnswer))
    def one(file_id: str, caller: Admin) -> Any:
        """One of them."""
        return files.get(file_id, caller.name).told()

    @routes.get("/files/{file_id}/content", response_class=FileResponse)
    def content(file_id: str, caller: Admin) -> FileResponse:
        """As it was sent."""
        return FileResponse(files.path(files.get(file_id, caller.name)), media_type="application/octet-stream")

    @routes.delete("/files/{file_id}", responses=told(answers.Deleted))
    def remove(file_id: str, caller: Admin) -> Any:
        """Remove it; what was tuned on it stays, and what is still to be tuned on it keeps it."""
        kept = files.get(file_id, caller.name)
        if job := jobs.waiting_for(file_id):
            raise Refusal(409, f"{job.id} is tuned on {file_id}", "cancel it, or wait for its end", param="file_id")
        files.remove(kept)
        return {"id": file_id, "object": "file", "deleted": True}

    return routes


def tuning_routes(desk: Desk, files: Files, jobs: Jobs) -> APIRouter:
    routes, creating, planning = APIRouter(prefix="/v1"), Turns("creates"), Turns("plans")

    def begun(body: JobBody, caller: Caller) -> tuple[Job, Path, Path | None]:
        training = files.path(files.get(body.training_file, caller.name, "training_file"))
        own = body.validation_file
        validation = files.path(files.get(own, caller.name, "validation_file")) if own else None
        return _job(body, desk.base_of(body.model), caller), training, validation

    @routes.post("/fine_tuning/jobs", responses=told(answers.JobAnswer) | BUSY)
    async def create(body: JobBody, caller: Admin) -> Any:
        """Tune a base on a file; the run is served when it is done."""
        return (await _in_turn(creating, caller, lambda: jobs.create(*begun(body, caller)))).told()

    @routes.post("/metier/plans", responses=told(answers.PlanAnswer))
    async def foresee(body: JobBody, caller: Admin) -> Any:
        """What such a tuning would take, or every fault of its file; nothing is begun."""
        return {"object": "plan", **await _in_turn(planning, caller, lambda: jobs.foresee(*begun(body, caller)))}

    @routes.get("/fine_tuning/jobs", responses=told(answers.JobList))
    def all_jobs(request: Request, caller: Admin, limit: Limit = 20, after: str | None = None) -> Any:
        """The key's jobs, newest first; with `metadata[KEY]=VALUE` those that have it."""
        given = request.query_params.items()
        wanted = {key[1]: value for name, value in given if (key := _METADATA.fullmatch(name))}
        found = [each for each in jobs.all(caller.name) if wanted.items() <= (each.metadata or {}).items()]
        return _page([each.told() for each in found], limit, after)

    @routes.get("/fine_tuning/jobs/{job_id}", responses=told(answers.JobAnswer))
    def job(job_id: str, caller: Admin) -> Any:
        """One of them."""
        return jobs.get(job_id, caller.name).told()

    @routes.get("/fine_tuning/jobs/{job_id}/events", responses=told(answers.EventList))
    def events(job_id: str, caller: Admin, limit: Limit = 20, after: str | None = None) -> Any:
        """What it told, newest first."""
        return _page(jobs.events(jobs.get(job_id, caller.name)), limit, after)

    @routes.get("/fine_tuning/jobs/{job_id}/checkpoints", responses=told(answers.CheckpointList))
    def checkpoints(job_id: str, caller: Admin, limit: Limit = 10, after: str | None = None) -> Any:
        """What was kept of it: the step that is served, once it is."""
        return _page(jobs.checkpoints(jobs.get(job_id, caller.name)), limit, after)

    @routes.post("/fine_tuning/jobs/{job_id}/cancel", responses=told(answers.JobAnswer) | BUSY)
    def cancel(job_id: str, caller: Admin) -> Any:
        """Stop it; what was learned so far is kept in its run."""
        return jobs.cancel(jobs.get(job_id, caller.name)).told()

    return routes


async def _in_turn(turns: Turns, caller: Caller, work: Callable[[], Any]) -> Any:
    """A child that reads takes a second, one that times the machine ten: others are answered meanwhile."""
    return await asyncio.wrap_future(turns.do(caller.name, work))


def _job(body: JobBody, base: str, caller: Caller) -> Job:
    own = body.method.hyperparameters if body.method else body.hyperparameters or Hyperparameters()
    return Job(
        id=new_id("ftjob"),
        created_at=int(time.time()),
        owner=caller.name,
        model=body.model,
        base=base,
        training_file=body.training_file,
        validation_file=body.validation_file,
        method=body.method.type if body.method else "auto",
        hyperparameters=own.model_dump(),
        suffix=body.suffix,
        seed=body.seed or 0,
        skip_faulty=bool(body.skip_faulty),
        metadata=body.metadata,
    )


def _unknown(after: str) -> Refusal:
    return Refusal(400, f"after: there is no {after!r} here", "leave it out to begin", param="after")


def _page(found: list[dict[str, Any]], limit: int, after: str | None = None) -> dict[str, Any]:
    names = [each["id"] for each in found]
    if after is not None and after not in names:
        raise _unknown(after)
    first = names.index(after) + 1 if after is not None else 0
    page = found[first : first + limit]
    return {"object": "list", "data": page, "has_more": first + limit < len(found)}
