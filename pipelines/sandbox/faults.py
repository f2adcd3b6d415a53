"""The faults that the sandbox's endpoint commits: refusals, errors, resets, half answers, as `Faults` states them.

Which fault befalls a request follows from the seed and from how often the same was asked for, whatever the order.
"""

import hashlib
import socket
import struct
import time
from contextlib import suppress

from aiohttp import web

from pipelines.sandbox.options import Faults, Source
from pipelines.sandbox.responses import JSON, error_response, forbidden, no_such_api

_HTML = {"Content-Type": "text/html"}
_HTML_PAGE = b"<html><head><title>Please wait</title></head><body>The service is being updated.</body></html>"


class FaultInjection:
    """What goes wrong in one sandbox; `options` are the faults that are set."""

    def __init__(self, seed: str, faults: Faults) -> None:
        self._seed = seed
        self._bucket, self._bucket_filled = 0.0, time.monotonic()
        self.set(faults)

    def set(self, faults: Faults) -> None:
        """Put these in the place of all that were set."""
        self.options = faults
        self._ratios = [
            (name, ratio)
            for name, ratio in (
                ("429", faults.ratio_429),
                ("500", faults.ratio_500),
                ("reset", faults.ratio_reset),
                ("truncated", faults.ratio_truncated),
                ("html", faults.ratio_html),
            )
            if ratio
        ]

    def throttled(self) -> web.Response | None:
        """The refusal of a request beyond the rate limit; None when it may pass."""
        rate = self.options.rate_limit
        if rate is None:
            return None
        # A bucket that holds one second's worth, so that short bursts pass.
        now = time.monotonic()
        self._bucket = min(max(rate, 1.0), self._bucket + (now - self._bucket_filled) * rate)
        self._bucket_filled = now
        if self._bucket < 1:
            return self._too_many()
        self._bucket -= 1
        return None

    def refused(self, *sources: Source) -> web.Response | None:
        """The refusal of what goes by any of these names; None when nothing is wrong with it."""
        if not self.options.sources_missing.isdisjoint(sources):
            return no_such_api()
        if not self.options.sources_forbidden.isdisjoint(sources):
            return forbidden()
        if not self.options.sources_broken.isdisjoint(sources):
            return _broken()
        return None

    def _too_many(self) -> web.Response:
        wait = self.options.retry_after
        headers = {} if wait is None else {"Retry-After": wait}
        return error_response(429, "APIG.0308", "The throttling threshold has been reached.", headers)

    async def apply(
        self, request: web.BaseRequest, asked_for: str, nth: int, response: web.Response
    ) -> web.StreamResponse:
        """The answer, or the fault that befalls the `nth` request for `asked_for`."""
        if not self._ratios:
            return response
        digest = hashlib.blake2b(f"{self._seed}/{asked_for}/{nth}".encode(), digest_size=8).digest()
        point = int.from_bytes(digest) / 2**64
        for name, ratio in self._ratios:
            point -= ratio
            if point < 0:
                return await self._fault(name, request, response)
        return response

    async def _fault(self, name: str, request: web.BaseRequest, response: web.Response) -> web.StreamResponse:
        match name:
            case "429":
                return self._too_many()
            case "500":
                return _broken()
            case "html":
                response = web.Response(body=_HTML_PAGE, headers=_HTML)
                response["outcome"] = "html"
                return response
            case "reset":
                return _reset(request)
            case _:
                return await _truncated(request, response)


def _broken() -> web.Response:
    return error_response(500, "ModelArts.0010", "Internal service error.")


def _reset(request: web.BaseRequest) -> web.Response:
    transport = request.transport
    if transport is not None:
        # Closing with a linger time of zero sends RST instead of FIN.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    response = web.Response()
    response["outcome"] = "reset"
    return response


async def _truncated(request: web.BaseRequest, whole: web.Response) -> web.StreamResponse:
    body = whole.body if isinstance(whole.body, bytes) and whole.body else b"{}"
    response = web.StreamResponse(status=whole.status, headers=JSON)
    response["outcome"] = "truncated"
    response.content_length = len(body)
    response.force_close()
    # The client may have gone: then there is nobody to deceive.
    with suppress(ConnectionError):
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response
