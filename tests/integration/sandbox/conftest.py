"""A sandbox with two projects, and clients of its endpoint: real processes, real sockets on 127.0.0.1."""

import httpx
import pytest
from sandbox_calls import ALPHA, BETA, CATALOGUE, DAY, SEED, SIZE, token_of

from pipelines.sandbox import SandboxOptions, running_sandbox


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    options = SandboxOptions(
        seed=SEED,
        size=SIZE,
        day=DAY,
        projects={"alpha": ALPHA, "beta": BETA},
        inventory_file=tmp_path_factory.mktemp("sandbox") / "inventory of alpha.csv",
    )
    with running_sandbox(options) as connection:
        yield connection


@pytest.fixture
def client(sandbox):
    """A client without credentials; faults and day are reset."""
    with httpx.Client(base_url=sandbox.endpoint, trust_env=False) as client:
        client.put("/sandbox/faults", json={}).raise_for_status()
        client.put("/sandbox/day", json={"day": DAY.isoformat()}).raise_for_status()
        yield client


@pytest.fixture
def authorised(client, sandbox):
    """The same client with a token of project alpha."""
    client.headers["X-Auth-Token"] = token_of(client, sandbox)
    return client


@pytest.fixture
def some_id():
    return next(image_id for image_id in CATALOGUE.ids(DAY) if CATALOGUE.image(image_id, DAY))
