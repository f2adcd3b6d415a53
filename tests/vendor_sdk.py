"""Clients of the vendor's own SDKs for a sandbox, with each kind of credentials, kept on loopback."""

import socket

import httpx
import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials, GlobalCredentials
from huaweicloudsdkcore.http.http_config import HttpConfig
from huaweicloudsdkcore.region.region import Region
from huaweicloudsdkcore.signer.signer import Signer


@pytest.fixture
def loopback_only(monkeypatch):
    """Fails a test that resolves or connects to anything but 127.0.0.1."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self, address):
        assert address[0] == "127.0.0.1"
        return connect(self, address)

    def guarded_look_up(host, *args, **kwargs):
        assert host == "127.0.0.1"
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)


class TokenCredentials(BasicCredentials):
    """Lets the SDK send a token instead of a signature, for which it has no class."""

    def __init__(self, token, project_id):
        super().__init__(project_id=project_id)
        self._token = token

    def process_auth_request(self, request, http_client):
        # Not the inherited method, which would ask the virtual machine's metadata service for keys.
        return http_client.executor.submit(self.sign_request, request)

    def sign_request(self, request):
        request.header_params["X-Auth-Token"] = self._token
        Signer.process_request_uri(request)
        return request


def sdk_client(kind, sandbox, credentials, placeholder=None):
    """A client of a service; `placeholder` is of the service's class of credentials, by default that of a project."""
    builder = kind.new_builder().with_endpoint(sandbox.endpoint).with_http_config(HttpConfig())
    # The builder accepts only that class, by name.
    return (
        builder.with_credentials(placeholder or BasicCredentials("AK", "SK", "project"))
        .build()
        .with_credentials(credentials)
    )


def token_credentials(sandbox, token=None, project_id=None):
    env = sandbox.env
    user = {
        "name": env["OS_USERNAME"],
        "password": env["OS_PASSWORD"],
        "domain": {"name": env["OS_USER_DOMAIN_NAME"]},
    }
    identity = {"methods": ["password"], "password": {"user": user}}
    wanted = {"auth": {"identity": identity, "scope": {"project": {"id": env["OS_PROJECT_ID"]}}}}
    issued = httpx.post(f"{sandbox.auth_url}/auth/tokens", json=wanted, trust_env=False).headers["X-Subject-Token"]
    return TokenCredentials(token or issued, project_id or sandbox.project_id)


def key_credentials(sandbox, access_key=None, secret_key=None, project_id=None):
    env = sandbox.env
    return BasicCredentials(
        access_key or env["OS_ACCESS_KEY"], secret_key or env["OS_SECRET_KEY"], project_id or sandbox.project_id
    )


def temporary_credentials(sandbox):
    token = token_credentials(sandbox)._token
    answer = httpx.post(
        f"{sandbox.endpoint}/v3.0/OS-CREDENTIAL/securitytokens", headers={"X-Auth-Token": token}, trust_env=False
    )
    key = answer.json()["credential"]
    credentials = BasicCredentials(key["access"], key["secret"], sandbox.project_id)
    return credentials.with_security_token(key["securitytoken"])


def account_client(kind, sandbox):
    """A client of a service of the whole account, by an access key; the SDK looks the account's id up by itself."""
    env = sandbox.env
    credentials = GlobalCredentials(env["OS_ACCESS_KEY"], env["OS_SECRET_KEY"]).with_iam_endpoint(sandbox.endpoint)
    # It does so only for a client of a region.
    region = Region("sandbox", sandbox.endpoint)
    builder = kind.new_builder().with_region(region).with_http_config(HttpConfig())
    return builder.with_credentials(credentials).build()
