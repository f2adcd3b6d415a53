"""Fetches what is issued for a time: tokens from the identity service, temporary keys from a server's metadata service.

Also the calls that need no more than credentials: the ids of a project and of an account, and the catalogue. When to
renew what was issued belongs to `cloud.authentication`, the shape of the calls to `cloud.identity`.
"""

import datetime as dt
import time
from collections.abc import Callable, Mapping
from urllib.parse import quote, urlsplit

import httpx

from pipelines.cloud.classification import Kind, retry_after
from pipelines.cloud.credentials import AccessKey, Account, PasswordLogin, ServerAgency
from pipelines.cloud.identity import (
    IssuedKey,
    IssuedToken,
    agency_request,
    metadata_token,
    read_account_id,
    read_key,
    read_project_id,
    read_token,
    refused_account,
    refused_agency,
    refused_key,
    refused_login,
    refused_projects,
    stated_account_id,
    token_request,
    user_token,
)
from pipelines.cloud.retries import DNS_TRIES, Retries, pause_between_tries, unreachable_error
from pipelines.cloud.sender import HEADERS, HTTPSender, NoResponseError, Reply, brief
from pipelines.cloud.signing import sign_headers
from pipelines.errors import EndpointUnreachableError, PipelineError

_METADATA_PATH = "/openstack/latest/securitykey"
_METADATA_TOKEN_PATH = "/meta-data/latest/api/token"  # noqa: S105  (a path)
_METADATA_TOKEN_SECONDS = "300"  # noqa: S105  (a time)
_ISSUED = (200, 201)


class Issuer:
    """Calls the identity service and the metadata service, with the retries and the time-outs of one client.

    Each request goes to the one server whose address is stated beside the credentials in it.
    """

    def __init__(self, sender: HTTPSender, retries: Retries) -> None:
        self._sender = sender
        self._retries = retries

    async def token(self, login: PasswordLogin, patience: float, *, is_first: bool) -> IssuedToken:
        """Fetch a token for the login's project; with an agency, the agency's token, by the user's own.

        `patience`: seconds to try while the service cannot be reached. `is_first`: none was fetched before.

        Raises:
            PipelineError: the login is refused, or the service issues no token.
        """
        url, host = f"{login.auth_url}/auth/tokens", urlsplit(login.auth_url).netloc

        async def ask(
            body: dict[str, object], refused: Callable[[int], PipelineError], headers: Mapping[str, str] | None = None
        ) -> Reply:
            def request() -> httpx.Request:
                return httpx.Request(
                    "POST", url, headers={**HEADERS, **(headers or {})}, json=body, extensions=self._sender.extensions
                )

            what = f"The identity service at {host} issues no token"
            return await self._call(request, what, "OS_AUTH_URL", refused, patience, is_first=is_first)

        reply = await ask(token_request(login), lambda status: refused_login(login, host, status))
        if login.agency is not None:
            own = {"X-Auth-Token": user_token(host, reply.headers)}
            reply = await ask(agency_request(login), lambda status: refused_agency(login, host, status), own)
        return read_token(login, host, reply.headers, reply.body)

    async def key(self, agency: ServerAgency, patience: float, *, is_first: bool) -> IssuedKey:
        """Fetch a temporary access key from the metadata service; `patience` and `is_first` as in `token`.

        The service is asked without a proxy, which would see the key. Some servers demand a token of the service's own.

        Raises:
            PipelineError: the server has no agency, or the service cannot be reached.
        """
        host = urlsplit(agency.metadata_url).netloc
        what = f"The metadata service at {host} gives no access key"

        async def ask(
            method: str, path: str, headers: Mapping[str, str], refused: Callable[[int], PipelineError | None]
        ) -> Reply:
            def request() -> httpx.Request:
                return httpx.Request(
                    method,
                    f"{agency.metadata_url}{path}",
                    headers={**HEADERS, **headers},
                    extensions=self._sender.extensions,
                )

            where = "that this is a server of the cloud (OS_AUTH_TYPE, auth_type)"
            return await self._call(request, what, where, refused, patience, is_first=is_first, is_direct=True)

        # 401 asks for a token of the service's own.
        reply = await ask(
            "GET", _METADATA_PATH, {}, lambda status: None if status == 401 else refused_key(host, status)
        )
        if reply.status == 401:
            life = {"X-Metadata-Token-Ttl-Seconds": _METADATA_TOKEN_SECONDS}
            reply = await ask("PUT", _METADATA_TOKEN_PATH, life, lambda status: refused_key(host, status))
            own = {"X-Metadata-Token": metadata_token(host, reply.body)}
            reply = await ask("GET", _METADATA_PATH, own, lambda status: refused_key(host, status))
        return read_key(host, reply.headers, reply.body)

    async def project_id(self, key: AccessKey, patience: float) -> str:
        """Ask the identity service for the id of the key's project, by the project's name.

        Raises:
            PipelineError: the key is refused, or there is not exactly one such project.
        """
        auth_url, name = key.auth_url, key.project_name
        assert auth_url is not None  # noqa: S101  (credentials without an id have both)
        assert name is not None  # noqa: S101
        host = urlsplit(auth_url).netloc
        reply = await self._signed(
            key,
            f"{auth_url}/projects?name={quote(name, safe='')}",
            f"The identity service at {host} lists no projects",
            "OS_AUTH_URL",
            lambda status: refused_projects(host, status, key.correct_in),
            patience,
        )
        return read_project_id(host, name, reply.body)

    async def account_id(self, key: AccessKey, account: Account, patience: float) -> str:
        """The id of the key's account: as it is stated, or else as the identity service says.

        Raises:
            ConfigurationError: what is stated is no id, or no identity service is known.
            PipelineError: the key is refused, or is not shown exactly one account.
        """
        if account.id is not None:
            return stated_account_id(account.id, account.id_in)
        auth_url = account.identity_url()
        host = urlsplit(auth_url).netloc
        reply = await self._signed(
            key,
            f"{auth_url}/auth/domains",
            f"The identity service at {host} does not show the account",
            account.url_in,
            lambda status: refused_account(host, status, key.correct_in, account),
            patience,
        )
        return read_account_id(host, account, reply.body)

    async def _signed(
        self,
        key: AccessKey,
        url: str,
        what: str,
        variable: str,
        refused: Callable[[int], PipelineError | None],
        patience: float,
    ) -> Reply:
        """A signed GET to the identity service, which needs neither a project nor an account."""

        def request() -> httpx.Request:
            proof = {} if key.security_token is None else {"X-Security-Token": key.security_token}
            signed = sign_headers("GET", url, proof, b"", key.access_key, key.secret_key, dt.datetime.now(dt.UTC))
            return httpx.Request("GET", url, headers=HEADERS | proof | signed, extensions=self._sender.extensions)

        return await self._call(request, what, variable, refused, patience, is_first=True)

    async def _call(
        self,
        make: Callable[[], httpx.Request],
        what: str,
        variable: str,
        refused: Callable[[int], PipelineError | None],
        patience: float,
        *,
        is_first: bool,
        is_direct: bool = False,
    ) -> Reply:
        """Send a request until it succeeds, or `refused` gives the error for its final status.

        `what` begins the sentence for a service that only fails; `variable` is where its address is stated.
        """
        started = time.monotonic()
        faults = tries = 0
        url = make().url
        host = url.netloc.decode("ascii")
        async with self._sender.open_transport(str(url), 1, is_direct=is_direct) as transport:
            while True:
                delay = self._retries.backoff(faults)
                try:
                    reply = await self._sender.send(make(), transport)
                except NoResponseError as error:
                    verdict, came = error.verdict, brief(error.status, error.verdict)
                    waited = time.monotonic() - started
                    if verdict.stop is not None:
                        raise verdict.stop(f"{verdict.error_msg} ({host}: {came}).") from None
                    if verdict.kind is Kind.UNREACHABLE:
                        tries += 1
                        is_unknown_name = verdict.error_code == "client.dns" and is_first
                        if waited >= patience or (is_unknown_name and tries >= DNS_TRIES):
                            raise unreachable_error(host, verdict, variable, waited) from None
                        delay = max(0.0, min(pause_between_tries(tries), patience - waited))
                    else:
                        faults += 1
                else:
                    if reply.status in _ISSUED:
                        return reply
                    came = f"HTTP {reply.status}"
                    if reply.status != 429 and reply.status != 408 and reply.status < 500:
                        error_to_raise = refused(reply.status)
                        if error_to_raise is None:
                            return reply
                        raise error_to_raise
                    faults += 1
                    wait = retry_after(reply.headers, dt.datetime.now(dt.UTC))
                    delay = max(delay, wait or 0.0)
                if faults >= self._retries.policy.attempts:
                    raise EndpointUnreachableError(f"{what} ({came}): run again when it has recovered.")
                await self._retries.sleep(delay)
                if self._retries.stop is not None:
                    self._retries.raise_stop()
