"""A real REST catalog over HTTP on loopback, as small as PyIceberg's client allows: it keeps its tables in SQLite."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, NoSuchNamespaceError, NoSuchTableError
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import CommitTableRequest

TOKEN = "token-of-the-catalog-4711"


class RestCatalogServer:
    """`requests` are (method, path) in order of arrival; `fault` can answer one of them with a status instead."""

    def __init__(self, directory):
        directory.mkdir()
        self._catalog = SqlCatalog("served", uri=f"sqlite:///{directory}/served.db", warehouse=f"file://{directory}")
        self._lock = threading.Lock()
        self.requests = []
        self.fault = lambda method, path: None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer._serve(self)

            do_POST = do_HEAD = do_GET  # noqa: N815  (names of the base class)

            def log_message(self, *_):
                """Does not log each request."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self):
        thread = threading.Thread(target=self._server.serve_forever, args=[0.02])
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()
            self._catalog.close()

    def _serve(self, request):
        length = int(request.headers.get("Content-Length") or 0)
        body = json.loads(request.rfile.read(length) or b"{}")
        path = urlsplit(request.path).path
        with self._lock:
            self.requests.append((request.command, path))
            if status := self.fault(request.command, path):
                answer = status, _error(status, "broken on purpose")
            elif request.headers.get("Authorization") != f"Bearer {TOKEN}":
                answer = 401, _error(401, f"who is {request.headers.get('Authorization')}?")
            else:
                answer = self._answer(request.command, path.removeprefix("/v1/").split("/"), body)
        status, found = answer
        content = json.dumps(found).encode() if found is not None else b""
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)

    def _answer(self, method, parts, body):
        catalog = self._catalog
        try:
            match (method, *parts):
                case ("GET", "config"):
                    return 200, {"defaults": {}, "overrides": {}}
                case ("GET" | "HEAD", "namespaces", name):
                    catalog.load_namespace_properties(name)
                    return 200, {"namespace": [name], "properties": {}}
                case ("POST", "namespaces"):
                    catalog.create_namespace(tuple(body["namespace"]))
                    return 200, {"namespace": body["namespace"], "properties": {}}
                case ("POST", "namespaces", name, "tables"):
                    spec = PartitionSpec.model_validate(body["partition-spec"])
                    schema = Schema.model_validate(body["schema"])
                    table = catalog.create_table(
                        (name, body["name"]), schema, partition_spec=spec, properties=body["properties"]
                    )
                case ("GET" | "HEAD", "namespaces", name, "tables", table_name):
                    table = catalog.load_table((name, table_name))
                case ("POST", "namespaces", name, "tables", table_name):
                    asked = CommitTableRequest.model_validate(body)
                    held = catalog.load_table((name, table_name))
                    catalog.commit_table(held, asked.requirements, asked.updates)
                    table = catalog.load_table((name, table_name))
                case _:
                    return 404, _error(404, "no such call")
        except (NoSuchTableError, NoSuchNamespaceError) as error:
            return 404, _error(404, str(error))
        except CommitFailedException as error:
            return 409, _error(409, str(error))
        return 200, {
            "metadata-location": table.metadata_location,
            "metadata": json.loads(table.metadata.model_dump_json(by_alias=True)),
            "config": {},
        }


def _error(code, message):
    return {"error": {"message": message, "type": "Refused", "code": code}}
