"""A local server that speaks /v1/files and /v1/batches, with deterministic answers and faults.

A batch stays in_progress until `finish` says how it ends. What runs is paid, by question.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from judge_server import MODEL, answer_by_content, error_body, question_of

SLOW_S = 2.0  # longer than the client's timeout in these tests


class BatchServer:
    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.uploaded: dict[str, bytes] = {}  # never deleted
        self.names: dict[str, str] = {}
        self.batches: dict[str, dict[str, Any]] = {}  # oldest first
        self.paid: Counter[str] = Counter()  # by question
        self.chats: Counter[str] = Counter()  # synchronous requests
        self.calls: Counter[str] = Counter()
        self.model: str = MODEL
        self.usage: dict[str, int] | None = {"prompt_tokens": 1000, "completion_tokens": 100}
        self.at_once: str | None = "completed"  # how a batch ends as soon as it is made
        self.queue: int | None = None  # most lines of a batch
        self.slow_creates = 0  # so many batches are made without an answer
        self.failed_creates = 0  # so many batches are not made, with a 500
        self.unknown_files = 0  # so many times a file is unknown after its upload
        self.change = lambda lines: lines  # of an output file
        self.answer = answer_by_content
        self.keep = 1.0  # share of the requests that an expired batch has answered
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> BatchServer:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = self.path.split("?")[0].removeprefix("/v1")
                try:
                    with server._lock:
                        status, reply, slow = server._serve(self.command, path, content)
                    if slow:
                        time.sleep(SLOW_S)
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(reply)))
                    self.end_headers()
                    self.wfile.write(reply)
                except (BrokenPipeError, ConnectionResetError):
                    pass

            do_GET = do_POST = do_DELETE = serve

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _serve(self, method: str, path: str, content: bytes) -> tuple[int, bytes, bool]:
        self.calls[f"{method} {re.sub('[0-9]+', 'N', path)}"] += 1
        if (method, path) == ("POST", "/files"):
            return self._upload(content)
        if (method, path) == ("GET", "/files"):
            return self._json({"object": "list", "data": [self._file(id_) for id_ in self.files]})
        if match := re.fullmatch(r"/files/([^/]+)(/content)?", path):
            if match[1] not in self.files:
                return 404, error_body("no such file", "not_found"), False
            if method == "DELETE":
                del self.files[match[1]]
                return self._json({"id": match[1], "object": "file", "deleted": True})
            return 200, self.files[match[1]], False
        if (method, path) == ("POST", "/batches"):
            return self._create(json.loads(content))
        if (method, path) == ("GET", "/batches"):
            return self._json({"object": "list", "data": [*self.batches.values()][::-1], "has_more": False})
        if match := re.fullmatch(r"/batches/([^/]+)", path):
            return self._json(self.batches[match[1]])
        body = json.loads(content)
        self.chats[question_of(body)] += 1
        self.paid[question_of(body)] += 1
        return self._json(self._completion(body))

    @staticmethod
    def _json(value: Any, slow: bool = False) -> tuple[int, bytes, bool]:
        return 200, json.dumps(value).encode(), slow

    def _file(self, id_: str) -> dict[str, Any]:
        return {
            "id": id_, "object": "file", "bytes": 1, "created_at": int(time.time()),
            "filename": self.names.get(id_, ""), "purpose": "batch", "status": "processed",
        }  # fmt: skip

    def _upload(self, content: bytes) -> tuple[int, bytes, bool]:
        boundary = content.split(b"\r\n", 1)[0]
        (part,) = [p for p in content.split(boundary) if b'name="file"' in p]
        head, data = part.split(b"\r\n\r\n", 1)
        id_ = f"file-{len(self.names)}"
        self.files[id_] = self.uploaded[id_] = data.removesuffix(b"\r\n")
        self.names[id_] = re.search(rb'filename="([^"]+)"', head)[1].decode()
        return self._json(self._file(id_))

    def _create(self, body: dict[str, Any]) -> tuple[int, bytes, bool]:
        if self.unknown_files:
            self.unknown_files -= 1
            return 400, error_body("Cannot find file", "invalid_request"), False
        if self.failed_creates:
            self.failed_creates -= 1
            return 500, error_body("later", "later"), False
        id_ = f"batch-{len(self.batches)}"
        self.batches[id_] = {
            "id": id_, "object": "batch", "endpoint": body["endpoint"], "completion_window": "24h",
            "created_at": int(time.time()), "input_file_id": body["input_file_id"],
            "metadata": body["metadata"], "status": "in_progress",
        }  # fmt: skip
        lines = self.lines(id_)
        assert len({line["custom_id"] for line in lines}) == len(lines)
        if self.queue is not None and len(lines) > self.queue:
            error = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached", "line": None}
            self.batches[id_] |= {"status": "failed", "errors": {"object": "list", "data": [error]}}
        elif self.at_once:
            self.finish(id_, self.at_once)
        self.slow_creates, slow = max(0, self.slow_creates - 1), self.slow_creates > 0
        return self._json(self.batches[id_], slow)

    def lines(self, batch: str) -> list[dict[str, Any]]:
        """The requests of a batch; its file may be deleted."""
        content = self.uploaded[self.batches[batch]["input_file_id"]]
        return [json.loads(line) for line in content.splitlines()]

    @property
    def all_lines(self) -> list[dict[str, Any]]:
        return [line for batch in self.batches for line in self.lines(batch)]

    def finish(self, batch: str, status: str) -> None:
        """End a batch: completed, expired (a share is answered), or failing (every line failed)."""
        lines = self.lines(batch)
        done = 0 if status == "failing" else round(len(lines) * (self.keep if status == "expired" else 1.0))
        output = []
        for line in lines[:done]:
            self.paid[question_of(line["body"])] += 1
            response = {"status_code": 200, "request_id": "r", "body": self._completion(line["body"])}
            output.append({"id": "x", "custom_id": line["custom_id"], "response": response, "error": None})
        error = {"code": "batch_expired" if status == "expired" else "request_timeout", "message": "late"}
        errors = [
            {"id": "x", "custom_id": line["custom_id"], "response": None, "error": error}
            for line in lines[done:]
        ]
        found: dict[str, Any] = {"status": "completed" if status == "failing" else status}
        for key, items in (("output_file_id", self.change(output)), ("error_file_id", errors)):
            if items:
                found[key] = f"file-{key}-{batch}"
                self.files[found[key]] = "\n".join(map(json.dumps, items)).encode()
        counts = {"total": len(lines), "completed": done, "failed": len(lines) - done}
        self.batches[batch] |= found | {"request_counts": counts}

    def finish_all(self, status: str = "completed") -> None:
        for id_, batch in self.batches.items():
            if batch["status"] == "in_progress":
                self.finish(id_, status)

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.answer(body)}
        choices = [{"index": i, "message": message, "finish_reason": "stop"} for i in range(body["n"])]
        found = {"id": "x", "model": self.model, "choices": choices}
        return found | ({"usage": self.usage} if self.usage else {})
