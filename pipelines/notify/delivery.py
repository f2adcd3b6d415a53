"""Sends a notification to a webhook: one POST, a bounded number of tries, and no error that quotes the URL.

What is sent belongs to `messages`, what is kept of a failed delivery to `telling`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from pipelines.cloud.classification import Kind, classify_failure
from pipelines.cloud.options import Limits, Timeouts
from pipelines.cloud.sender import HTTPSender
from pipelines.cloud.transport import basic_login
from pipelines.errors import ConfigurationError
from pipelines.inputs.secret_urls import parse_secret_url

_TRIES = 3
# For one try, from connecting to the last header; the body is not read.
_SECONDS = 10.0
# Before the second and the third try; a server's Retry-After counts up to the longest pause.
_PAUSES = (1.0, 4.0)
_LONGEST_PAUSE = 15.0
# The end of the path of every workflow with a webhook, in all clouds of Power Automate.
_WORKFLOW = "/triggers/manual/paths/invoke"


@dataclass(frozen=True, slots=True)
class Receiver:
    """A webhook. `name` is for records and messages: scheme and host, numbered where several have the same."""

    name: str
    url: str = field(repr=False)

    @property
    def takes_cards(self) -> bool:
        """Whether it is a workflow of Teams, which shows nothing but cards."""
        return parse_secret_url(self.url, "").path.rstrip("/").endswith(_WORKFLOW)


class DeliveryError(Exception):
    """A receiver did not take a message; says which and why, without its URL."""


def receivers(urls: Sequence[str]) -> list[Receiver]:
    """The receivers of these URLs, which `settings` has checked."""
    found: list[Receiver] = []
    for url in urls:
        where = parse_secret_url(url, "").where
        number = 1 + sum(receiver.name.partition(" ")[0] == where for receiver in found)
        found.append(Receiver(where if number == 1 else f"{where} ({number})", url))
    return found


async def deliver(
    receiver: Receiver,
    content: bytes,
    ca_bundle: Path | None = None,
    pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Post a message, which is JSON; tries again when the receiver is away, overloaded or broken.

    Raises:
        DeliveryError: it was not taken.
    """
    for number in range(_TRIES):
        answer = await _post(receiver, content, ca_bundle)
        if answer.error is None:
            return
        if not answer.may_pass or number == _TRIES - 1:
            break
        await pause(min(max(_PAUSES[number], answer.wait), _LONGEST_PAUSE))
    raise DeliveryError(f"{receiver.name} did not take a notification: {answer.error}.")


@dataclass(frozen=True, slots=True)
class _Answer:
    """What became of one try. `error`: why it was not taken, None if it was.

    `may_pass`: another try may help; `wait`: after how many seconds, as the server wants it.
    """

    error: str | None
    may_pass: bool = True
    wait: float = 0.0


async def _post(receiver: Receiver, content: bytes, ca_bundle: Path | None) -> _Answer:
    stated = parse_secret_url(receiver.url, "")
    headers = {"Content-Type": "application/json", "Content-Length": str(len(content))}
    if stated.username is not None:
        headers["Authorization"] = basic_login(stated)
    # Not httpx's client: it logs each URL and parses proxies by itself.
    sender = HTTPSender(Limits(connections=1), Timeouts(request=_SECONDS), ca_bundle)
    try:
        # Around everything: a server that sends one byte after another must not hold us for ever.
        async with asyncio.timeout(_SECONDS), sender.open_transport(receiver.url, 1) as transport:
            request = httpx.Request(
                "POST", receiver.url, headers=headers, content=content, extensions=sender.extensions
            )
            response = await transport.handle_async_request(request)
            await response.aclose()
    except ConfigurationError as error:
        return _Answer(str(error).rstrip("."), may_pass=False)
    except (httpx.TransportError, TimeoutError) as error:
        # A sentence of ours: the message of a library may quote the URL.
        verdict = classify_failure(error)
        why = verdict.error_msg or ""
        if verdict.kind == Kind.STOP:
            return _Answer(why[0].lower() + why[1:], may_pass=False)
        return _Answer(f"it cannot be reached: {why}" if verdict.kind == Kind.UNREACHABLE else why)
    except (httpx.InvalidURL, ValueError) as error:
        return _Answer(f"its URL cannot be used ({type(error).__name__})", may_pass=False)
    status = response.status_code
    if 200 <= status < 300:
        return _Answer(None)
    after = response.headers.get("Retry-After", "")
    return _Answer(
        f"it answered with status {status}",
        status == 429 or status >= 500,
        float(after) if after.isascii() and after.isdecimal() else 0.0,
    )
