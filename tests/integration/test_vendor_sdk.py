"""The vendor's own SDK against the sandbox: what the SDK accepts as ModelArts, our client may accept, too."""

import socket
from datetime import date

import httpx
import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkcore.http.http_config import HttpConfig
from huaweicloudsdkcore.signer.signer import Signer
from huaweicloudsdkmodelarts.v1 import (
    ListAllNotebooksRequest,
    ListImageGroupRequest,
    ListImageRequest,
    ModelArtsClient,
    ShowImageRequest,
)

from pipelines.sandbox import SandboxOptions, running_sandbox
from pipelines.sandbox.catalogue import Catalogue

# The SDK's signer reads the clock with datetime.utcnow(), which Python 3.12 and later warn of.
pytestmark = pytest.mark.filterwarnings(r"ignore:datetime\.datetime\.utcnow\(\) is deprecated:DeprecationWarning")

DAY = date(2026, 11, 23)
CATALOGUE = Catalogue("vendor", 80)


@pytest.fixture(scope="module")
def sandbox():
    with running_sandbox(SandboxOptions(seed="vendor", size=80, day=DAY)) as connection:
        yield connection


@pytest.fixture(autouse=True)
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


def client_with(sandbox, credentials):
    placeholder = BasicCredentials("AK", "SK", sandbox.project_id)
    builder = ModelArtsClient.new_builder().with_endpoint(sandbox.endpoint).with_http_config(HttpConfig())
    # The builder accepts only its own class of credentials, by name.
    return builder.with_credentials(placeholder).build().with_credentials(credentials)


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


@pytest.fixture(params=[token_credentials, key_credentials], ids=["token", "keys"])
def client(request, sandbox):
    return client_with(sandbox, request.param(sandbox))


def test_sdk_shows_an_image(client):
    image_id = CATALOGUE.storylines(DAY)["re-pushed"]
    expected = CATALOGUE.image(image_id, DAY)
    image = client.show_image(ShowImageRequest(image_id))
    assert image.status_code == 200
    assert {name: getattr(image, name) for name in expected} == expected


def test_sdk_lists_images(client):
    expected = CATALOGUE.page(DAY, 20, 10)
    page = client.list_image(ListImageRequest(limit=10, offset=20))
    assert (page.total, page.current, page.pages, page.size) == (CATALOGUE.count(DAY), 2, 8, 10)
    assert [image.id for image in page.data] == [item["id"] for item in expected]
    assert [image.swr_path for image in page.data] == [item["swr_path"] for item in expected]


def test_sdk_lists_images_with_odd_characters_in_the_query(client):
    page = client.list_image(ListImageRequest(namespace="ä ö/+&=~*", limit=5))
    assert (page.total, page.data) == (0, [])


def test_sdk_lists_image_groups_and_notebooks(client):
    groups = client.list_image_group(ListImageGroupRequest())
    assert sum(group.version_count for group in groups.data) == CATALOGUE.count(DAY)
    notebooks = client.list_all_notebooks(ListAllNotebooksRequest())
    assert (notebooks.total, len(notebooks.data)) == (CATALOGUE.notebook_count(), 10)
    assert notebooks.data[0].image.id == next(CATALOGUE.notebooks(DAY))["image"]["id"]


def refusal(client, image_id="278e88d1-5b71-4766-8502-b3ba72e824d9"):
    with pytest.raises(ClientRequestException) as caught:
        client.show_image(ShowImageRequest(image_id))
    return caught.value.status_code, caught.value.error_code


def test_sdk_understands_image_errors(client):
    assert refusal(client, CATALOGUE.storylines(DAY)["forbidden"]) == (403, "ModelArts.0108")
    gone = [row.id for row in CATALOGUE.inventory(DAY) if CATALOGUE.answer(row.id, DAY).http_status == 400]
    assert refusal(client, gone[0]) == (400, "ModelArts.6404")


def test_sdk_with_wrong_credentials_is_refused(sandbox):
    assert refusal(client_with(sandbox, token_credentials(sandbox, "invented"))) == (401, "ModelArts.0203")
    assert refusal(client_with(sandbox, key_credentials(sandbox, access_key="X"))) == (403, "ModelArts.0206")
    assert refusal(client_with(sandbox, key_credentials(sandbox, secret_key="X"))) == (403, "ModelArts.0206")


def test_sdk_with_another_project_is_refused(sandbox):
    other = "f" * 32
    assert refusal(client_with(sandbox, token_credentials(sandbox, project_id=other))) == (404, "ModelArts.2786")
    assert refusal(client_with(sandbox, key_credentials(sandbox, project_id=other))) == (400, "ModelArts.0210")
