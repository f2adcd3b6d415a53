"""A real S3 server over HTTP on loopback that can refuse requests, or kill its client at a given request."""

import os
import signal
import threading
from contextlib import contextmanager
from functools import cache

import httpx
from moto.moto_api._internal import moto_api_backend
from moto.server import create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

REGION = "eu-de"
_SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message></Error>"
)
CHANGING = {"PUT", "POST", "DELETE"}


@cache
def _application():
    """S3 only: detecting the requested service would take half the time of a request."""
    return create_backend_app("s3")


class _Quiet(WSGIRequestHandler):
    def log(self, *_):
        """Does not log each request."""


class S3Server:
    """`requests` are (method, path) in order of arrival; the next request can be made to fail."""

    def __init__(self):
        self.requests = []
        self.kill = None  # (pid, number): the changing request at which the process is killed before it is served
        self.slow_down = lambda number, method, path: False
        self.application = _application()
        self._lock = threading.Lock()
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True, request_handler=_Quiet)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self.env = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "AKIDTESTONLY",
            "AWS_SECRET_ACCESS_KEY": "secret-key-of-the-object-store",
            "AWS_REGION": REGION,
        }

    def _serve(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        with self._lock:
            self.requests.append((method, path))
            number = len(self.requests)
            if self.kill is not None and method in CHANGING:
                pid, left = self.kill
                self.kill = (pid, left - 1)
                if left <= 0:
                    # Parallel requests after the kill are not served, either.
                    os.kill(pid, signal.SIGKILL)
                    return self._refuse(environ, start_response)
        if self.slow_down(number, method, path):
            return self._refuse(environ, start_response)
        return self.application(environ, start_response)

    def _refuse(self, environ, start_response):
        # Unread bytes would be taken for the next request.
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(_SLOW_DOWN)))])
        return [_SLOW_DOWN]

    def changes(self):
        """The number of changing requests so far."""
        return sum(method in CHANGING for method, _ in self.requests)

    @contextmanager
    def running(self):
        # The server checks this often whether it must end, and each test waits for that.
        thread = threading.Thread(target=self._server.serve_forever, args=[0.02])
        thread.start()
        try:
            # The buckets belong to the process, not to the server.
            moto_api_backend.reset()
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def make_bucket(self, name):
        """An empty bucket."""
        body = (
            f"<CreateBucketConfiguration><LocationConstraint>{REGION}</LocationConstraint></CreateBucketConfiguration>"
        )
        httpx.put(f"{self.endpoint}/{name}", content=body).raise_for_status()
        return f"s3://{name}"
