from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI

from metier.errors import MetierError
from metier.web.serve import Address, Server, assert_free, configured
from tests.unit.inference.test_elsewhere import Other


def test_told_twice_it_leaves_no_other_engine_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setattr("os._exit", left.append)
    child = Other(tmp_path, "llama-server").child
    voices: Any = SimpleNamespace(grounds=(SimpleNamespace(close=child.stop, worker=SimpleNamespace(load=(0, 0))),))
    jobs: Any = None
    server = Server(configured(FastAPI(), Address()), jobs, voices)
    server.handle_exit(signal.SIGINT, None)
    assert not left
    os.kill(child._process.pid, 0)
    server.handle_exit(signal.SIGINT, None)
    assert left == [128 + signal.SIGINT]
    with pytest.raises(ProcessLookupError):
        os.kill(child._process.pid, 0)


def test_a_port_that_is_taken_is_told_before_anything_loads() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = Address(port=other.getsockname()[1])
        with pytest.raises(MetierError, match=f"127.0.0.1:{taken.port}: Address already in use"):
            assert_free(taken)
    assert_free(taken)


def test_an_address_that_is_not_this_machine_s_is_told() -> None:
    for host in ("300.1.1.1", "203.0.113.7", "é" * 70):
        with pytest.raises(MetierError, match=host) as caught:
            assert_free(Address(host, 0))
        assert caught.value.hint == "choose another --host"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://localhost:80"),
        ("::", "http://localhost:80"),
        ("", "http://localhost:80"),
        ("fd00::1", "http://[fd00::1]:80"),
        ("help.example.com", "http://help.example.com:80"),
    ],
)
def test_a_url_can_be_opened(host: str, url: str) -> None:
    assert Address(host, 80).url == url
