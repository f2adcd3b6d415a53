"""Calls to the endpoint of a sandbox with two projects, as a client on the network makes them."""

from datetime import UTC, date, datetime

from pipelines.cloud.signing import sign_headers
from pipelines.sandbox.catalogue import Catalogue

DAY = date(2026, 11, 23)
ALPHA, BETA = "a" * 32, "b" * 32
SEED, SIZE = "integration", 60
CATALOGUE = Catalogue(SEED, SIZE, "alpha")


def token_request(env, scope=None, **user):
    user = {
        "name": env["OS_USERNAME"],
        "password": env["OS_PASSWORD"],
        "domain": {"name": env["OS_USER_DOMAIN_NAME"]},
    } | user
    auth = {"identity": {"methods": ["password"], "password": {"user": user}}}
    return {"auth": auth | ({"scope": scope} if scope else {})}


def token_of(client, sandbox, scope=None):
    scope = scope or {"project": {"id": ALPHA}}
    answer = client.post("/v3/auth/tokens", json=token_request(sandbox.env, scope))
    assert answer.status_code == 201, answer.text
    return answer.headers["X-Subject-Token"]


def set_faults(client, **faults):
    client.put("/sandbox/faults", json=faults).raise_for_status()


def error_of(answer):
    return answer.status_code, answer.json()["error_code"]


def signed(client, sandbox, path, *, access_key=None, secret_key=None, now=None, headers=None, sent=None):
    """GET `path` with a signature; `sent` is the path that is really requested, if it differs."""
    headers = headers or {}
    env = sandbox.env
    added = sign_headers(
        "GET",
        sandbox.endpoint + path,
        headers,
        b"",
        access_key or env["OS_ACCESS_KEY"],
        secret_key or env["OS_SECRET_KEY"],
        now or datetime.now(UTC),
    )
    return client.get(sent or path, headers=headers | added)
