"""The page that people look at: its files as they lie in assets, and the reports of runs."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse

from metier.run import Run
from metier.web import answers
from metier.web.answers import told
from metier.web.callers import Admin
from metier.web.desk import Desk
from metier.web.failures import Refusal
from metier.web.schema import Body, Name

_FOLDER = Path(__file__).parents[1] / "assets" / "page"
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_REPORT = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'none'"


class ReportBody(Body):
    """The run whose report is wanted, by the name under which it is served."""

    model: Name


@dataclass
class Links:
    """Addresses under which a report can be opened for a minute: a browser that follows a link sends no key."""

    seconds: float = 60.0
    _known: dict[str, tuple[float, Run]] = field(default_factory=dict)

    def make(self, run: Run) -> str:
        """A name that nobody guesses."""
        now = time.monotonic()
        self._known = {name: each for name, each in self._known.items() if each[0] > now}
        name = secrets.token_urlsafe(32)
        self._known[name] = now + self.seconds, run
        return name

    def run(self, name: str) -> Run:
        """Raises `Refusal` for a name that is unknown, or too old."""
        until, run = self._known.get(name, (0.0, None))
        if run is None or until < time.monotonic():
            raise Refusal(404, "this link is no longer good", "open the report from the page again")
        return run


def page_routes(desk: Desk) -> APIRouter:
    routes = APIRouter()
    files, links = {path.name: path for path in _FOLDER.iterdir()}, Links()

    @routes.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return _file(files["index.html"])

    @routes.get("/page/{name}", include_in_schema=False)
    def part(name: str) -> FileResponse:
        if name not in files:
            raise Refusal(404, f"the page has no {name!r}")
        return _file(files[name])

    @routes.get("/page/reports/{name}", include_in_schema=False)
    def report(name: str) -> FileResponse:
        headers = {"Content-Security-Policy": _REPORT, "Cache-Control": "no-store"}
        return FileResponse(links.run(name).report, media_type="text/html", headers=headers)

    @routes.post("/v1/metier/reports", responses=told(answers.ReportAnswer))
    def link(body: ReportBody, _: Admin) -> Any:
        """Where a browser finds a run's report, for a minute and without a key."""
        run = desk.target(body.model).voice.run
        if run is None or not run.report.exists():
            raise Refusal(404, f"{body.model}: has no report", "choose a run", param="model")
        return {"object": "report", "url": f"/page/reports/{links.make(run)}", "seconds": int(links.seconds)}

    return routes


def _file(path: Path) -> FileResponse:
    return FileResponse(path, media_type=_KINDS[path.suffix], headers={"Cache-Control": "no-cache"})
