"""Authenticates requests to the API: signs each request, or adds a token that is fetched and renewed here.

Not here: the identity service's token call (`cloud.identity`), the signature (`cloud.signing`), and reading the
credentials (`cloud.credentials`).
"""

import asyncio
import datetime as dt
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from pipelines.cloud.classification import Kind, Verdict, retry_after
from pipelines.cloud.credentials import AccessKey, Credentials, PasswordLogin, ReadyToken
from pipelines.cloud.identity import read_token, refused_login, token_request
from pipelines.cloud.retries import DNS_TRIES, Retries, pause_between_tries, unreachable_error
from pipelines.cloud.sender import HEADERS, HTTPSender, NoResponseError, brief
from pipelines.cloud.signing import sign_headers
from pipelines.errors import AccessDeniedError, EndpointUnreachableError, PipelineError

# A token is renewed this long before it expires. A short-lived token is renewed after nine tenths of its life.
_RENEW_BEFORE_SECONDS = 300.0
# After this many refused signatures in a row, the access key is taken to be revoked.
_SIGNATURE_REFUSALS = 20

_NO_BODY = httpx.ByteStream(b"")


@dataclass(slots=True)
class Token:
    """`headers` are sent with each request; `renew_at` is a time of the monotonic clock, None when unknown."""

    headers: httpx.Headers = field(repr=False)
    renew_at: float | None = None
    # `accepted`: the API accepted it at least once. `replaces_refused`: it replaced a token that the API refused.
    accepted: bool = False
    replaces_refused: bool = False


class Authentication:
    """The credentials of one client, in use; all workers share this object.

    `project_id` is None until it is known from a token. `was_accepted`: the API has accepted a request.
    """

    def __init__(self, endpoint: str, credentials: Credentials, sender: HTTPSender, retries: Retries) -> None:
        self._credentials = credentials
        self._sender = sender
        self._retries = retries
        self._host = urlsplit(endpoint).netloc
        # All requests use this one URL and carry their target separately: parsing a URL costs more than sending to it.
        self._origin = f"{urlsplit(endpoint).scheme}://{self._host}"
        self._origin_url = httpx.URL(self._origin)
        self._renewal = asyncio.Lock()
        self._refusals = 0
        self.token: Token | None = None
        self.project_id: str | None = credentials.project_id
        self.was_accepted = False

    async def begin(self) -> None:
        """Fetch a token if the credentials are a password.

        Raises:
            PipelineError: the credentials are refused, or the identity service cannot be reached.
        """
        if isinstance(self._credentials, PasswordLogin):
            self.token = await self._fetch_token(self._credentials, self._retries.timeouts.first_contact)
        elif isinstance(self._credentials, ReadyToken):
            self.token = self._token_of(self._credentials.token, None)

    def request(self, target: str, token: Token | None, posted: bytes = b"") -> httpx.Request:
        """A GET of `target` (path and query), or a POST of a JSON body, signed or with the token."""
        method = "POST" if posted else "GET"
        if isinstance(self._credentials, AccessKey):
            key = self._credentials
            identity = {"X-Project-Id": key.project_id}
            now = dt.datetime.now(dt.UTC)
            signed = sign_headers(method, self._origin + target, identity, posted, key.access_key, key.secret_key, now)
            headers = httpx.Headers(HEADERS | identity | signed)
        else:
            assert token is not None  # noqa: S101
            headers = token.headers
        extensions = self._sender.extensions | {"target": target.encode()}
        if not posted:
            return httpx.Request(method, self._origin_url, headers=headers, stream=_NO_BODY, extensions=extensions)
        headers = httpx.Headers(headers)
        headers["Content-Type"] = "application/json"
        return httpx.Request(method, self._origin_url, headers=headers, content=posted, extensions=extensions)

    def note_accepted(self, token: Token | None) -> None:
        """Report that the API accepted a request with this token, or a signed request."""
        self.was_accepted = True
        self._refusals = 0
        if token is not None:
            token.accepted = True

    async def refused(self, token: Token | None, status: int | None, verdict: Verdict, faults: int) -> float:
        """Handle a request refused for its credentials: renew the token, or back off. Returns the seconds to wait.

        Raises:
            PipelineError: no retry can succeed; all workers are stopped with the same error.
        """
        came = brief(status, verdict)
        if isinstance(self._credentials, ReadyToken):
            self._retries.halt(
                AccessDeniedError(
                    f"{self._host} refuses the token ({came}): it has expired; set OS_TOKEN to a new one."
                )
            )
        if token is None:
            self._refusals += 1
            if not self.was_accepted or self._refusals >= _SIGNATURE_REFUSALS:
                self._retries.halt(
                    AccessDeniedError(
                        f"{self._host} refuses the access key ({came}): check OS_ACCESS_KEY, OS_SECRET_KEY and "
                        "this machine's clock."
                    )
                )
            return self._retries.backoff(faults)
        if token is self.token and token.replaces_refused and not token.accepted:
            self._retries.halt(
                AccessDeniedError(
                    f"{self._host} refuses a token that was just fetched for the project {self.project_id} ({came}): "
                    "check that the user may use ModelArts there, and that endpoint and OS_AUTH_URL belong together."
                )
            )
        await self.renew(token, refused=True)
        return 0.0

    async def renew(self, old: Token, *, refused: bool) -> Token:
        """Renew the token once for all workers: a worker that comes late gets the token already fetched."""
        async with self._renewal:
            if self._retries.stop is not None:
                self._retries.raise_stop()
            if self.token is old:
                assert isinstance(self._credentials, PasswordLogin)  # noqa: S101
                try:
                    self.token = await self._fetch_token(self._credentials, self._retries.timeouts.outage)
                except PipelineError as error:
                    self._retries.halt(error)
                self.token.replaces_refused = refused
                self._sender.stats.token_renewals += 1
            assert self.token is not None  # noqa: S101
            return self.token

    async def _fetch_token(self, login: PasswordLogin, patience: float) -> Token:
        host = urlsplit(login.auth_url).netloc
        request = httpx.Request(
            "POST",
            f"{login.auth_url}/auth/tokens",
            headers=HEADERS,
            json=token_request(login),
            extensions=self._sender.extensions,
        )
        started = time.monotonic()
        faults = tries = 0
        async with self._sender.open_transport(login.auth_url, 1) as transport:
            while True:
                delay = self._retries.backoff(faults)
                try:
                    reply = await self._sender.send(request, transport)
                except NoResponseError as error:
                    verdict, came = error.verdict, brief(error.status, error.verdict)
                    waited = time.monotonic() - started
                    if verdict.stop is not None:
                        raise verdict.stop(f"{verdict.error_msg} ({host}: {came}).") from None
                    if verdict.kind is Kind.UNREACHABLE:
                        tries += 1
                        is_unknown_name = verdict.error_code == "client.dns" and self.token is None
                        if waited >= patience or (is_unknown_name and tries >= DNS_TRIES):
                            raise unreachable_error(host, verdict, "OS_AUTH_URL", waited) from None
                        delay = max(0.0, min(pause_between_tries(tries), patience - waited))
                    else:
                        faults += 1
                else:
                    if reply.status in (200, 201):
                        issued = read_token(login, host, reply.headers, reply.body)
                        self.project_id = issued.project_id
                        return self._token_of(issued.value, issued.life)
                    came = f"HTTP {reply.status}"
                    if reply.status != 429 and reply.status != 408 and reply.status < 500:
                        raise refused_login(login, host, reply.status)
                    faults += 1
                    wait = retry_after(reply.headers, dt.datetime.now(dt.UTC))
                    delay = max(delay, wait or 0.0)
                if faults >= self._retries.policy.attempts:
                    raise EndpointUnreachableError(
                        f"The identity service at {host} issues no token ({came}): run again when it has recovered."
                    )
                await self._retries.sleep(delay)
                if self._retries.stop is not None:
                    self._retries.raise_stop()

    def _token_of(self, value: str, life: float | None) -> Token:
        renew_at = None if life is None else time.monotonic() + life - min(_RENEW_BEFORE_SECONDS, life / 10)
        # Headers are built once per token, not once per request.
        return Token(httpx.Headers({"Host": self._host, "X-Auth-Token": value} | HEADERS), renew_at)
