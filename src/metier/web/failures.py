"""Every failure as OpenAI's error object, with a message that says how to go on."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, takewhile
from traceback import format_tb
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from metier.assistant.store import UnkeptError
from metier.assistant.tickets import MovedError, NoTicketError
from metier.errors import MetierError
from metier.files import is_full
from metier.inference.worker import FullError, StoppedError

_OWN = re.compile(r"([\w.]+): (.*)", re.DOTALL)  # a key that a fault names itself
_LISTED = 10  # faults of one request
_NO_OBJECT = ("model_attributes_type", "missing", "dict_type")  # of a body as a whole
_log = logging.getLogger("metier")
_UNKEPT = "the server cannot keep anything at this moment, as where its disk is full; ask again once there is room"
_AGAIN = {"Retry-After": "1"}
_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class Refusal(MetierError):
    """A request that is not answered, with its HTTP status and what of it is at fault."""

    def __init__(self, status: int, problem: str, fix: str = "", *, param: str | None = None, code: str = "") -> None:
        super().__init__(problem, fix)
        self.status, self.param, self.code = status, param, code or None


def error_object(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    kind = _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def told(error: Exception) -> tuple[int, dict[str, Any], Mapping[str, str]]:
    """Status, body and headers of a failure."""
    if isinstance(error, UnkeptError) or is_full(error):
        _log.error("nothing is kept: %s", error)
        return 503, error_object(503, _UNKEPT), _AGAIN
    match error:
        case Refusal():
            headers = _AGAIN if error.status in (429, 503) else {}
            return error.status, error_object(error.status, whole(error), error.param, error.code), headers
        case FullError() | StoppedError():
            return 503, error_object(503, whole(error), code="overloaded"), _AGAIN
        case NoTicketError():
            return 404, error_object(404, whole(error), "number"), {}
        case MovedError():
            return 409, error_object(409, whole(error), "number"), {}
        case MetierError():
            return 400, error_object(400, whole(error)), {}
    # Where it was raised, and of what kind; not its text, in which may stand what somebody asked.
    _log.error("a fault of metier's: %s\n%s", type(error).__name__, "".join(format_tb(error.__traceback__)))
    return 500, error_object(500, "the server has a fault; its log says which"), {}


def answer_failures(app: FastAPI) -> None:
    """Have an app answer so, whatever fails."""

    async def failed(_: Request, error: Exception) -> JSONResponse:
        status, body, headers = told(error)
        return JSONResponse(body, status, dict(headers))

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        param, message = _first(error)
        return JSONResponse(error_object(400, message, param), 400)

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        message = str(error.detail)
        if error.status_code in (404, 405):
            asked = f"{request.method} {request.scope['path']}"
            message = f"{asked} is not answered here; /openapi.json lists what is"
        elif error.status_code == 400 and error.__cause__:  # FastAPI's, which does not say why
            message = f"the body cannot be read: {error.__cause__}; send JSON in UTF-8, not compressed"
        return JSONResponse(error_object(error.status_code, message), error.status_code, dict(error.headers or {}))

    app.add_exception_handler(MetierError, failed)
    app.add_exception_handler(Exception, failed)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


def whole(error: MetierError) -> str:
    """What is wrong, and how to mend it."""
    return f"{error}; {error.hint}" if error.hint else str(error)


def _first(error: RequestValidationError) -> tuple[str | None, str]:
    """Which key is at fault, and all that is said."""
    found = []
    for detail in _likeliest(error.errors()):
        parts = (str(part) for part in detail["loc"][1:] if not _is_branch(part))
        place = ".".join(part for part, _ in groupby(parts))  # a union's tag that is also the name of its key
        if detail["type"] == "json_invalid":
            return None, f"the body is not JSON: {detail['ctx']['error']}"
        if not place and detail["type"] in _NO_OBJECT:
            return None, "the body is no JSON object; send one, with Content-Type: application/json"
        if detail["type"] == "value_error":
            text = str(detail["ctx"]["error"])
            own, problem = named.groups() if (named := _OWN.fullmatch(text)) else ("", text)
            place = ".".join(filter(None, (place, own)))
        elif detail["type"].startswith("union_tag_"):
            known, tag = detail["ctx"].get("expected_tags", ""), detail["ctx"].get("tag")
            place, problem = f"{place}.type", f"{tag!r} is not read here, {known} alone" if tag else "field required"
        elif detail["type"] == "too_short" and not detail["ctx"]["actual_length"]:
            problem = "is empty"
        else:
            problem = detail["msg"][:1].lower() + detail["msg"][1:]
        found.append((place, problem))
    listed = [*dict.fromkeys(f"{place}: {problem}" if place else problem for place, problem in found)]
    more = [f"and {len(listed) - _LISTED:,} more"] if len(listed) > _LISTED else []
    return found[0][0] or None, "; ".join([*listed[:_LISTED], *more])


def _likeliest(faults: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Of each union those of the branch that what was sent is most like: of its type, known the furthest, with the
    fewest faults.
    """

    def unlike(own: Sequence[Mapping[str, Any]]) -> tuple[bool, int, int]:
        strange = any(each["type"].endswith(("_type", "literal_error")) for each in own)
        return strange, -max(len(each["loc"]) for each in own), len(own)

    fields: dict[tuple[Any, ...], dict[Any, list[Mapping[str, Any]]]] = {}
    for fault in faults:
        field = tuple(takewhile(lambda part: not _is_branch(part), fault["loc"]))
        branch = next(iter(fault["loc"][len(field) :]), None)
        fields.setdefault(field, {}).setdefault(branch, []).append(fault)
    for branches in fields.values():
        yield from min(branches.values(), key=unlike)


def _is_branch(part: int | str) -> bool:
    """Whether a part of a place is pydantic's name for one branch of a union, and nobody's key."""
    return isinstance(part, str) and part.startswith(("constrained-", "list[", "literal[", "[key"))
