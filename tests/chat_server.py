"""A stand-in of a chat endpoint on this machine, which can fail in every way that hosted ones do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = tuple[int, Mapping[str, str], bytes]
"""Status, headers and body that are sent instead of an answer."""


class ChatServer:
    """Answers with `says(body)`; before that it gives the `faults` in their order, each once."""

    def __init__(self, says: Callable[[Mapping[str, Any]], str] = lambda body: "up") -> None:
        self.says = says
        self.faults: list[Fault] = []
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.at: list[float] = []  # when each request came
        self.wanted = ""  # the only key that is let in
        self.pause = 0.0  # seconds before an answer
        self.usage = True
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def completion(text: str, finish: str = "stop", usage: bool = True) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    counted = {"usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}} if usage else {}
    return json.dumps({"id": "1", "object": "chat.completion", "model": "m", "choices": [choice], **counted}).encode()


def _handler(owner: ChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Tests read `bodies`."""

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with owner.lock:
                owner.at.append(time.monotonic())
                owner.bodies.append(body)
                owner.keys.append(self.headers["Authorization"].removeprefix("Bearer "))
                fault = owner.faults.pop(0) if owner.faults else None
            if self.path != "/v1/chat/completions":
                fault = (404, {}, b"{}")
            elif owner.wanted and owner.keys[-1] != owner.wanted:
                told = {"error": {"message": f"Incorrect API key provided: {owner.keys[-1]}"}}
                fault = (401, {}, json.dumps(told).encode())
            time.sleep(owner.pause)
            try:
                self._send(*(fault or (200, {}, completion(owner.says(body), usage=owner.usage))))
            except OSError:  # whoever asked is gone
                self.close_connection = True

        def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers, "Content-Length": len(body)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(body)

    return Handler
