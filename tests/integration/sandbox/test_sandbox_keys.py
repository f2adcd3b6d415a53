"""The sandbox's temporary keys, its metadata service, agencies and catalogue, for a client on the network."""

from urllib.parse import urlsplit

import pytest
from sandbox_calls import ALPHA, BETA, error_of, set_faults, signed, token_of, token_request

from pipelines.sandbox.identity import AGENCY, AGENCY_DOMAIN

IMAGES = f"/v1/{ALPHA}/images?limit=1"
METADATA = "/openstack/latest/securitykey"


def key_of(client):
    answer = client.get(METADATA)
    assert answer.status_code == 200
    return answer.json()["credential"]


def by_key(client, sandbox, key, headers, *, unsigned=None):
    answer_headers = unsigned or {}
    client.headers.update(answer_headers)
    try:
        return signed(client, sandbox, IMAGES, access_key=key["access"], secret_key=key["secret"], headers=headers)
    finally:
        for name in answer_headers:
            del client.headers[name]


def test_temporary_key_needs_its_security_token_signed_along(client, sandbox):
    key = key_of(client)
    token = key["securitytoken"]
    assert by_key(client, sandbox, key, {"X-Security-Token": token}).status_code == 200
    for headers, unsigned in (({}, None), ({"X-Security-Token": f"{token}x"}, None), ({}, {"X-Security-Token": token})):
        assert error_of(by_key(client, sandbox, key, headers, unsigned=unsigned)) == (403, "ModelArts.0206")
    other = key_of(client)
    assert error_of(by_key(client, sandbox, other, {"X-Security-Token": token})) == (403, "ModelArts.0206")


def test_permanent_key_takes_no_security_token(client, sandbox):
    answer = signed(client, sandbox, IMAGES, headers={"X-Security-Token": key_of(client)["securitytoken"]})
    assert error_of(answer) == (403, "ModelArts.0206")


def test_temporary_key_expires(client, sandbox):
    key = key_of(client)
    client.patch("/sandbox/faults", json={"expire_tokens_now": True}).raise_for_status()
    assert error_of(by_key(client, sandbox, key, {"X-Security-Token": key["securitytoken"]})) == (401, "APIG.0301")


def test_metadata_service_may_demand_a_token_of_its_own(client):
    set_faults(client, metadata_token_required=True)
    assert client.get(METADATA).status_code == 401
    token = client.put("/meta-data/latest/api/token", headers={"X-Metadata-Token-Ttl-Seconds": "60"}).text
    assert client.get(METADATA, headers={"X-Metadata-Token": "other"}).status_code == 401
    assert client.get(METADATA, headers={"X-Metadata-Token": token}).status_code == 200


def test_server_may_have_no_agency(client):
    set_faults(client, no_agency=True)
    assert client.get(METADATA).status_code == 404


def test_temporary_key_is_issued_for_a_token(client, sandbox):
    url = "/v3.0/OS-CREDENTIAL/securitytokens"
    assert client.post(url).status_code == 401
    key = client.post(url, headers={"X-Auth-Token": token_of(client, sandbox)}).json()["credential"]
    assert by_key(client, sandbox, key, {"X-Security-Token": key["securitytoken"]}).status_code == 200


def role_request(**changes):
    role = {"agency_name": AGENCY, "domain_name": AGENCY_DOMAIN} | changes
    return {
        "auth": {
            "identity": {"methods": ["assume_role"], "assume_role": role},
            "scope": {"project": {"name": "beta"}},
        }
    }


def test_agency_is_taken_on_by_the_token_of_a_user(client, sandbox):
    own = client.post("/v3/auth/tokens", json=token_request(sandbox.env, {"domain": {"name": "sandbox-domain"}}))
    headers = {"X-Auth-Token": own.headers["X-Subject-Token"]}
    answer = client.post("/v3/auth/tokens", json=role_request(), headers=headers)
    assert answer.status_code == 201
    assert (answer.json()["token"]["methods"], answer.json()["token"]["project"]["id"]) == (["assume_role"], BETA)
    token = {"X-Auth-Token": answer.headers["X-Subject-Token"]}
    assert client.get(f"/v1/{BETA}/images", headers=token).status_code == 200
    assert client.post("/v3/auth/tokens", json=role_request()).status_code == 401
    for changes in ({"agency_name": "other"}, {"domain_name": "other"}):
        assert client.post("/v3/auth/tokens", json=role_request(**changes), headers=headers).status_code == 403


@pytest.mark.parametrize("is_there", [True, False])
def test_token_brings_a_catalogue(client, sandbox, is_there):
    set_faults(client, no_catalogue=not is_there)
    scope = {"project": {"id": ALPHA}}
    token = client.post("/v3/auth/tokens", json=token_request(sandbox.env, scope)).json()["token"]
    urls = {entry["type"]: entry["endpoints"][0]["url"] for entry in token["catalog"]}
    host = urlsplit(sandbox.endpoint).netloc
    assert urls.get("modelarts") == (f"http://{host}/v1/{ALPHA}" if is_there else None)
