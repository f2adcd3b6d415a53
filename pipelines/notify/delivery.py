"""Sends a notification to a webhook: one POST, a bounded number of tries, and no error that quotes the URL.

What is sent belongs to `messages`, what is kept of a failed delivery to `telling`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from pipelines.cloud.transport import basic_login, proxy_for, tls_context
from pipelines.errors import ConfigurationError
from pipelines.inputs.secret_urls import parse_secret_url

_TRIES = 3
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


def deliver(
    receiver: Receiver,
    content: bytes,
    ca_bundle: Path | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Post a message, which is JSON; tries again when the receiver is away, overloaded or broken.

    Raises:
        DeliveryError: it was not taken.
    """
    error = ""
    for number in range(_TRIES):
        status, error, wait = _post(receiver, content, ca_bundle)
        if status is not None and 200 <= status < 300:
            return
        if status is not None and status != 429 and status < 500:
            break
        if number < _TRIES - 1:
            pause(min(max(_PAUSES[number], wait), _LONGEST_PAUSE))
    raise DeliveryError(f"{receiver.name} did not take a notification: {error}.")


def _post(receiver: Receiver, content: bytes, ca_bundle: Path | None) -> tuple[int | None, str, float]:
    """The status, None if there is none; what is wrong; and the seconds that the server wants us to wait."""
    stated = parse_secret_url(receiver.url, "")
    headers = {"Content-Type": "application/json", "Content-Length": str(len(content))}
    if stated.username is not None:
        headers["Authorization"] = basic_login(stated)
    timeout = {"timeout": httpx.Timeout(_SECONDS).as_dict()}
    try:
        # Not httpx's client: it logs each URL and parses proxies by itself.
        with httpx.HTTPTransport(verify=tls_context(ca_bundle), proxy=proxy_for(receiver.url)) as transport:
            request = httpx.Request("POST", receiver.url, headers=headers, content=content, extensions=timeout)
            response = transport.handle_request(request)
            response.close()
    except ConfigurationError as error:
        return None, str(error).rstrip("."), 0.0
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
        # Only its kind: the message of a library may quote the URL.
        return None, f"it cannot be reached ({type(error).__name__})", 0.0
    after = response.headers.get("Retry-After", "")
    wait = float(after) if after.isascii() and after.isdecimal() else 0.0
    return response.status_code, f"it answered with status {response.status_code}", wait
