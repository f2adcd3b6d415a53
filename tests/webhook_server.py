"""A webhook on loopback: keeps every request with its body, and answers with the statuses that a test sets."""

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Webhook:
    """`statuses` are answered in turn, then 200; each request is `(target, headers, raw body)`.

    `asked` is set by the first request; no answer is sent before `answers_after` is set.
    """

    port: int
    requests: list = field(default_factory=list)
    statuses: list = field(default_factory=list)
    headers: dict = field(default_factory=dict)
    asked: threading.Event = field(default_factory=threading.Event)
    answers_after: threading.Event | None = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/hooks/secret-hook-4711"

    @property
    def workflow_url(self):
        """A URL with the path and the query of a workflow of Teams."""
        query = "api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=aB-_c4711"
        return f"http://127.0.0.1:{self.port}/workflows/0123abcd/triggers/manual/paths/invoke?{query}"

    @property
    def bodies(self):
        return [json.loads(body) for _, _, body in self.requests]

    def taken(self):
        """The bodies so far, by event; forgets them."""
        found = {body["event"]: body for body in self.bodies}
        assert len(found) == len(self.requests)
        self.requests.clear()
        return found


@contextmanager
def webhook_server(port=0):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.requests.append((self.path, dict(self.headers), body))
            hook.asked.set()
            if hook.answers_after is not None:
                hook.answers_after.wait()
            self.send_response(hook.statuses.pop(0) if hook.statuses else 200)
            for name, value in hook.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        hook = Webhook(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hook
        finally:
            server.shutdown()
            thread.join()
