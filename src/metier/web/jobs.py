"""Tunings that clients ask for: a run each, trained in a process of its own, one at a time, served when it is done."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from metier import child
from metier.errors import FaultsError, RunError
from metier.events import Event
from metier.files import append_line, cut_torn_line, is_full, locked, read_json, write_atomic, write_json
from metier.foresight import faulty
from metier.recipe import Recipe
from metier.run import Run
from metier.web.failures import Refusal, told
from metier.web.files import is_id
from metier.web.job import Job, Status, as_sent, recipe_of

_ENDED = ("succeeded", "failed", "cancelled")
_PATIENCE = 5.0  # seconds until it is looked again whether a full disk has room
_PREPARING = "preparing: a process of its own starts, reads the data and loads the model"
_log = logging.getLogger("metier")


@dataclass
class Jobs:
    """A folder with a recipe, events and state for each; `serve` takes the run of one that succeeded.

    When a server is started again, runs of those that succeeded and were not unloaded are served as before, and what
    waited, or ran, when it was stopped is taken up again. Where another server is at work in the folder, tunings are
    that one's, and are read only here.
    """

    folder: Path
    serve: Callable[[Run, str], object]
    offline: bool = False
    _waiting: deque[str] = field(default_factory=deque)
    _news: threading.Condition = field(default_factory=threading.Condition)
    _stop: dict[str, Callable[[], None]] = field(default_factory=dict)
    _halted: float = 0.0  # when; 0 as long as it is not
    _others: bool = False

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        found = self._found()
        self._serve_again(job for job in found if job.status == "succeeded" and not job.unloaded)
        self._held, self._thread = ExitStack(), threading.Thread(target=self._work, name="jobs", daemon=True)
        try:
            self._held.enter_context(locked(self.folder / "lock", wait=False))
        except RunError:
            self._others = True
            _log.warning("%s: tunings belong to another server, which runs in the same folder", self.folder)
            return
        for job in found:
            cut_torn_line(self._events(job.id))
        self._waiting.extend(job.id for job in found if job.status not in _ENDED)
        self._thread.start()

    def _serve_again(self, jobs: Iterable[Job]) -> None:
        """Clients go on asking by the names that they were told."""
        for job in jobs:
            name = job.fine_tuned_model or ""
            try:
                self.serve(Run.open(self._made_by(job)), name)
            except Exception as error:  # its folder is gone, its base has changed; the others are served all the same
                _log.warning("%s: is not served again: %s", name, _why(error))

    def remember(self, name: str, loaded: Run | None = None) -> None:
        """That a run which was tuned here is served no more under its name, or again; so it is at the next start, too.

        Where tunings are another server's, that one serves what it did.
        """
        if self._others:
            return
        with self._news:
            for job in self._found():
                if job.fine_tuned_model != name or job.unloaded == (loaded is None):
                    continue
                if loaded is None or loaded.directory.resolve() == self._made_by(job).resolve():
                    self._keep(replace(job, unloaded=loaded is None))

    def create(self, job: Job, training: Path, validation: Path | None) -> Job:
        """Queue a tuning. Raises `Refusal` with every fault of data and settings, before anything starts."""
        self._assert_ours()
        try:
            recipe = recipe_of(job, training, validation, self._recipe(job))
            child.read(recipe, offline=self.offline)
        except FaultsError as error:
            raise as_sent(error, training, validation) from None
        job = replace(job, method="dpo" if recipe.domain[0].rejected else "supervised")
        folder = self.folder / job.id
        folder.mkdir(parents=True)
        try:
            write_atomic(self._recipe(job), recipe.to_toml())
            self._tell(job.id, "info", "the job waits for its turn")
            with self._news:
                self._keep(job)  # last: by this file it is there, for others too
                self._waiting.append(job.id)
                self._news.notify()
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return job

    def foresee(self, job: Job, training: Path, validation: Path | None) -> dict[str, Any]:
        """What a job would take, or every fault of its data."""
        try:
            recipe = recipe_of(job, training, validation, self._recipe(job))
        except FaultsError as error:
            return faulty(error)
        return child.foresee(recipe, offline=self.offline)

    def all(self, owner: str) -> list[Job]:
        """Newest first."""
        return [each for each in reversed(self._found()) if each.owner == owner]

    def waiting_for(self, file: str) -> Job | None:
        """One that has not ended and reads this file."""
        going = (job for job in self._found() if job.status not in _ENDED)
        return next((job for job in going if file in (job.training_file, job.validation_file)), None)

    def get(self, id: str, owner: str) -> Job:
        """Raises `Refusal` where there is none of this key's."""
        job = self._read(id) if is_id("ftjob", id) and (self.folder / id / "job.json").exists() else None
        if job is None or job.owner != owner:
            raise Refusal(404, f"there is no job {id!r}", "GET /v1/fine_tuning/jobs lists yours", param="job_id")
        return job

    def events(self, job: Job) -> list[dict[str, Any]]:
        """Newest first."""
        path = self._events(job.id)
        *lines, _ = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]  # the last is being written
        return [json.loads(line) for line in reversed(lines)]

    def checkpoints(self, job: Job) -> list[dict[str, Any]]:
        """The step of which the weights are served, the best on validation, as long as its run is there."""
        if job.status != "succeeded" or not self._made_by(job).exists():
            return []
        run = Run.open(self._made_by(job))
        step = run.facts["best_step"] or run.facts["steps"]
        values = [each["values"] for each in run.events() if (each["phase"], each["done"]) == ("validation", step)]
        return [
            {
                "object": "fine_tuning.job.checkpoint",
                "id": job.id.replace("ftjob", "ftckpt"),
                "created_at": job.finished_at,
                "fine_tuning_job_id": job.id,
                "fine_tuned_model_checkpoint": job.fine_tuned_model,
                "step_number": step,
                "metrics": {"step": step, **(values[-1] if values else {})},
            }
        ]

    def cancel(self, job: Job) -> Job:
        """Stop it, or take it out of the queue. Raises `Refusal` where it has ended."""
        self._assert_ours()
        with self._news:
            job = self._read(job.id)
            if job.status in _ENDED:
                raise Refusal(400, f"{job.id}: has ended already, {job.status}", param="job_id")
            if job.fine_tuned_model and job.id not in self._waiting:
                raise Refusal(400, f"{job.id}: is tuned, and about to be served", "unload it then", param="job_id")
            if job.id in self._waiting:
                self._waiting.remove(job.id)
            if stop := self._stop.get(job.id):
                stop()
            return self._end(job, "cancelled")

    def halt(self) -> float:
        """Begin no other, and ask the one that runs to write its checkpoint and end; it goes on at the next start.

        Returns when that was first asked, in seconds of `time.monotonic`.
        """
        with self._news:
            self._halted = self._halted or time.monotonic()
            for stop in self._stop.values():
                stop()
            self._news.notify()
            return self._halted

    def stop(self, timeout: float) -> None:
        """Halt, and wait so many seconds for that."""
        self.halt()
        if self._others:
            return
        self._thread.join(timeout)
        if not self._thread.is_alive():
            self._held.close()

    def _assert_ours(self) -> None:
        """Raises `Refusal` where another server tunes."""
        if self._others:
            problem = "tunings belong to another server, which runs in the same folder"
            raise Refusal(409, problem, "ask that one, or start this one in another folder")

    def _work(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._halted)
                if self._halted:
                    return
                id = self._waiting.popleft()
                try:
                    self._keep(job := replace(self._read(id), status="running", fine_tuned_model=None))
                except Exception as error:  # its folder is gone, or there is no room
                    _log.error("%s was not begun: %s", id, error)
                    if is_full(error):
                        self._waiting.appendleft(id)
                        self._news.wait_for(lambda: bool(self._halted), _PATIENCE)
                    continue
            self._run(job)

    def _run(self, job: Job) -> None:
        def heard(event: Event) -> None:
            if event.phase == "note":
                self._tell(job.id, "info", str(event.values["text"]))
            else:
                values = {"step": event.done, "total_steps": event.total, **event.values}
                self._tell(job.id, "info", f"{event.phase} {event.done}/{event.total}", values)

        status: Status
        try:
            self._tell(job.id, "info", _PREPARING)
            recipe = Recipe.load(self._recipe(job))
            how: dict[str, Any] = {"offline": self.offline, "on_event": heard}
            run = child.train(recipe, {}, **how, started=partial(self._started, job.id))
            ended = replace(job, fine_tuned_model=f"{job.domain}-{run.name}", trained_tokens=_tokens(run))
            if not self._made(ended):
                return
            self.serve(run, str(ended.fine_tuned_model))
            status = "succeeded"
        except KeyboardInterrupt:
            ended, status = job, "queued"
        except Exception as error:  # the others are tuned all the same
            failed = replace(job, error={"code": "failed", "message": _why(error), "param": None})
            # What fails while all is ended may have failed by that.
            ended, status = (job, "queued") if self._halted else (failed, "failed")
        finally:
            self._stop.pop(job.id, None)
        while not self._settled(ended, status):
            with self._news:
                if self._news.wait_for(lambda: bool(self._halted), _PATIENCE):
                    return  # it stands there as running, and goes on at the next start

    def _made(self, job: Job) -> bool:
        """Write down by which name it is about to be served; False where it was cancelled meanwhile."""
        with self._news:
            going = self._read(job.id).status == "running"
            if going:
                self._keep(job)
            return going

    def _settled(self, job: Job, status: Status) -> bool:
        """Write down how it went; False where the disk is full, on which nothing else could begin either."""
        try:
            with self._news:
                now = self._read(job.id)
                if now.status != "running":
                    return True  # it was cancelled
                if status == "queued":
                    self._keep(replace(job, status=status))
                    self._tell(job.id, "info", "the job was stopped; it goes on when the server is started again")
                else:
                    self._end(replace(job, unloaded=now.unloaded), status)
        except Exception as error:  # the others are tuned all the same
            _log.error("%s: how it went was not written down: %s", job.id, error)
            return not is_full(error)
        return True

    def _started(self, id: str, stop: Callable[[], None]) -> None:
        with self._news:
            self._stop[id] = stop
            if self._halted or self._read(id).status != "running":
                stop()

    def _end(self, job: Job, status: Status) -> Job:
        job = replace(job, status=status, finished_at=int(time.time()))
        self._keep(job)
        told = job.error["message"] if job.error else f"the job has ended: {status}"
        self._tell(job.id, "error" if status == "failed" else "info", told)
        return job

    def _keep(self, job: Job) -> None:
        write_json(self.folder / job.id / "job.json", asdict(job))

    def _found(self) -> list[Job]:
        """Oldest first."""
        found = []
        for path in sorted(self.folder.glob("ftjob-*/job.json")):
            try:
                found.append(self._read(path.parent.name))
            except (OSError, ValueError, TypeError) as error:  # as of a later version; the others are told all the same
                _log.error("%s: cannot be read: %s", path, error)
        return found

    def _made_by(self, job: Job) -> Path:
        """The folder of its run."""
        return self.folder / job.id / "runs" / str(job.fine_tuned_model).removeprefix(f"{job.domain}-")

    def _read(self, id: str) -> Job:
        return Job(**read_json(self.folder / id / "job.json"))

    def _tell(self, id: str, level: str, message: str, data: Mapping[str, Any] | None = None) -> None:
        event = {"object": "fine_tuning.job.event", "id": f"ftevent-{uuid.uuid4().hex}", "created_at": int(time.time())}
        event |= {"level": level, "message": message, "type": "metrics" if data else "message", "data": data or {}}
        append_line(self._events(id), json.dumps(event, ensure_ascii=False))

    def _recipe(self, job: Job) -> Path:
        return self.folder / job.id / "recipe.toml"

    def _events(self, id: str) -> Path:
        return self.folder / id / "events.jsonl"


def _tokens(run: Run) -> int | None:
    """How many it was trained on, over all steps; None where its events do not tell."""
    steps = [each["values"] for each in run.events() if each["phase"] == "train"]
    return int(sum(each.get("tokens", 0) for each in steps)) or None


def _why(error: Exception) -> str:
    message: str = told(error)[1]["error"]["message"]
    return message
