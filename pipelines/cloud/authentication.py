"""Authenticates requests to the API: signs each request, or adds a token; renews what was issued for a time.

Not here: fetching tokens and temporary keys (`cloud.issuing`), the signature (`cloud.signing`), and reading the
credentials (`cloud.credentials`).
"""

import asyncio
import datetime as dt
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from pipelines.cloud.classification import WRONG_KEY_CODES, Verdict
from pipelines.cloud.credentials import AccessKey, Account, Credentials, PasswordLogin, ReadyToken, ServerAgency
from pipelines.cloud.issuing import Issuer
from pipelines.cloud.retries import Retries
from pipelines.cloud.sender import HEADERS, HTTPSender, brief
from pipelines.cloud.signing import sign_headers
from pipelines.errors import AccessDeniedError, PipelineError

# What was issued is renewed this long before it expires; if its life is short, after nine tenths of that.
_RENEW_BEFORE_SECONDS = 300.0
# After this many refused signatures in a row, the access key is taken to be revoked.
_SIGNATURE_REFUSALS = 20

_NO_BODY = httpx.ByteStream(b"")


@dataclass(slots=True)
class Grant:
    """What proves a request: a token, whose `headers` are sent, or an access `key`, which signs.

    `renew_at` is a time of the monotonic clock, None when unknown.
    """

    headers: httpx.Headers = field(repr=False)
    key: AccessKey | None = None
    renew_at: float | None = None
    # `accepted`: the API accepted it at least once. `replaces_refused`: it replaced one that the API refused.
    accepted: bool = False
    replaces_refused: bool = False


class Authentication:
    """The credentials of one client, in use; all workers share this object.

    `project_id` is None until it is known from a token or looked up. `was_accepted`: the API has accepted a request.
    Requests are signed for the project, or for an `account`: a service of the whole account knows no projects.
    """

    def __init__(
        self, endpoint: str, credentials: Credentials, sender: HTTPSender, retries: Retries, account: Account | None
    ) -> None:
        self._credentials = credentials
        self._account = account
        self._account_id: str | None = None
        self._sender = sender
        self._retries = retries
        self._issuer = Issuer(sender, retries)
        self._host = urlsplit(endpoint).netloc
        # All requests use this one URL and carry their target separately: parsing a URL costs more than sending to it.
        self._origin = f"{urlsplit(endpoint).scheme}://{self._host}"
        self._origin_url = httpx.URL(self._origin)
        self._renewal = asyncio.Lock()
        self._refusals = 0
        self.grant: Grant | None = None
        self.project_id: str | None = credentials.project_id
        self.was_accepted = False

    async def begin(self) -> None:
        """Fetch a token or a temporary key, unless one is stated; look up ids to sign for, unless they are known.

        Raises:
            ConfigurationError: the account is neither stated nor can be looked up.
            PipelineError: the credentials are refused, or a service that issues them cannot be reached.
        """
        patience = self._retries.timeouts.first_contact
        if isinstance(self._credentials, AccessKey):
            self.grant = Grant(httpx.Headers(HEADERS), self._credentials)
        elif isinstance(self._credentials, ReadyToken):
            self.grant = self._token(self._credentials.token, None)
        else:
            self.grant = await self._issue(patience)
        if self.project_id is None and self.grant.key is not None:
            self.project_id = await self._issuer.project_id(self.grant.key, patience)
        if self._account is not None and (key := self.grant.key) is not None:
            self._account_id = await self._issuer.account_id(key, self._account, patience)

    def request(self, target: str, grant: Grant, posted: bytes = b"") -> httpx.Request:
        """A GET of `target` (path and query), or a POST of a JSON body, signed or with the token."""
        method = "POST" if posted else "GET"
        key = grant.key
        if key is not None:
            if self._account_id is None:
                identity = {"X-Project-Id": self.project_id or ""}
            else:
                identity = {"X-Domain-Id": self._account_id}
            if key.security_token is not None:
                identity["X-Security-Token"] = key.security_token
            now = dt.datetime.now(dt.UTC)
            signed = sign_headers(method, self._origin + target, identity, posted, key.access_key, key.secret_key, now)
            headers = httpx.Headers(HEADERS | identity | signed)
        else:
            headers = grant.headers
        extensions = self._sender.extensions | {"target": target.encode()}
        if not posted:
            return httpx.Request(method, self._origin_url, headers=headers, stream=_NO_BODY, extensions=extensions)
        headers = httpx.Headers(headers)
        headers["Content-Type"] = "application/json"
        return httpx.Request(method, self._origin_url, headers=headers, content=posted, extensions=extensions)

    def note_accepted(self, grant: Grant) -> None:
        """Report that the API accepted a request with this grant."""
        self.was_accepted = True
        self._refusals = 0
        grant.accepted = True

    def why_stopped(self, verdict: Verdict) -> str:
        """The sentence of a verdict that stops the run; a wrong key is named by where it is stated."""
        if verdict.error_code in WRONG_KEY_CODES and isinstance(self._credentials, AccessKey | ServerAgency):
            if isinstance(self._credentials, ServerAgency):
                return "The access key that the metadata service gave is wrong"
            return f"The access key or secret key is wrong: correct {self._credentials.correct_in}"
        return verdict.error_msg or ""

    async def refused(self, grant: Grant, status: int | None, verdict: Verdict, faults: int) -> float:
        """Handle a request refused for its credentials: renew them, or back off. Returns the seconds to wait.

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
        if isinstance(self._credentials, AccessKey):
            self._refusals += 1
            if not self.was_accepted or self._refusals >= _SIGNATURE_REFUSALS:
                temporary = self._credentials.security_token is not None
                also = f", {self._account.id_in}" if self._account is not None and self._account.id else ""
                self._retries.halt(
                    AccessDeniedError(
                        f"{self._host} refuses the {'temporary ' if temporary else ''}access key ({came}): "
                        f"{'it may have expired; ' if temporary else ''}check {self._credentials.correct_in}{also} and "
                        "this machine's clock."
                    )
                )
            return self._retries.backoff(faults)
        if grant is self.grant and grant.replaces_refused and not grant.accepted:
            use = f"ModelArts in the project {self.project_id}"
            if self._account_id is not None:
                use = f"this service for the account {self._account_id}"
            self._retries.halt(
                AccessDeniedError(
                    f"{self._host} refuses a token that was just fetched for the project {self.project_id} ({came}): "
                    "check that the user may use ModelArts there, and that endpoint and OS_AUTH_URL belong together."
                    if grant.key is None
                    else f"{self._host} refuses an access key that the metadata service just gave for the agency of "
                    f"this server ({came}): check that the agency may use {use}, that the "
                    "endpoint belongs to the server's cloud, and this machine's clock."
                )
            )
        await self.renew(grant, refused=True)
        return 0.0

    async def renew(self, old: Grant, *, refused: bool) -> Grant:
        """Renew what was issued once for all workers: a worker that comes late gets the one already fetched."""
        async with self._renewal:
            if self._retries.stop is not None:
                self._retries.raise_stop()
            if self.grant is old:
                try:
                    self.grant = await self._issue(self._retries.timeouts.outage)
                except PipelineError as error:
                    self._retries.halt(error)
                self.grant.replaces_refused = refused
                self._sender.stats.token_renewals += 1
            assert self.grant is not None  # noqa: S101
            return self.grant

    async def _issue(self, patience: float) -> Grant:
        is_first = self.grant is None
        if isinstance(self._credentials, ServerAgency):
            agency = self._credentials
            issued = await self._issuer.key(agency, patience, is_first=is_first)
            key = AccessKey(
                issued.access_key,
                issued.secret_key,
                self.project_id,
                issued.security_token,
                agency.project_name,
                agency.auth_url,
                "the agency of this server",
            )
            return Grant(httpx.Headers(HEADERS), key, _renew_at(issued.life))
        assert isinstance(self._credentials, PasswordLogin)  # noqa: S101
        token = await self._issuer.token(self._credentials, patience, is_first=is_first)
        self.project_id = token.project_id
        return self._token(token.value, token.life)

    def _token(self, value: str, life: float | None) -> Grant:
        # Headers are built once per token, not once per request.
        return Grant(httpx.Headers({"Host": self._host, "X-Auth-Token": value} | HEADERS), None, _renew_at(life))


def _renew_at(life: float | None) -> float | None:
    return None if life is None else time.monotonic() + life - min(_RENEW_BEFORE_SECONDS, life / 10)
