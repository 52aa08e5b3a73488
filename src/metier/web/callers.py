"""Who asks, as routes take it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from metier.web.failures import Refusal
from metier.web.keys import Caller


def caller_of(request: Request) -> Caller:
    """Who asks, as the guard found."""
    caller: Caller = request.state.caller
    return caller


def admin_of(request: Request) -> Caller:
    """Raises `Refusal` where the key is no admin's."""
    caller = caller_of(request)
    if caller.role != "admin":
        raise Refusal(403, "this needs an admin's key", "metier serve --new-key NAME=admin makes one")
    return caller


Asking = Annotated[Caller, Depends(caller_of)]
Admin = Annotated[Caller, Depends(admin_of)]
