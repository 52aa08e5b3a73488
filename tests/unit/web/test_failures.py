from __future__ import annotations

import errno
from typing import Any

import pytest

from metier.assistant.store import UnkeptError
from metier.web.failures import told


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UnkeptError("/srv/assistant.db: cannot be written (database or disk is full)"), 503, "disk is full"),
        (OSError(errno.ENOSPC, "No space left on device", "/srv/secret"), 503, "disk is full"),
        (OSError(errno.EIO, "Input/output error", "/srv/secret"), 500, "the server has a fault"),
    ],
)
def test_a_server_that_cannot_write_says_so_without_its_paths(error: Any, status: int, said: str) -> None:
    found, body, headers = told(error)
    assert (found, said in body["error"]["message"]) == (status, True)
    assert ("Retry-After" in headers) == (status == 503)
    assert "/srv" not in str(body)
