"""The vendor's own SDK against the sandbox: what the SDK accepts as ModelArts, our client may accept, too."""

from datetime import date

import pytest
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkmodelarts.v1 import (
    Filter,
    JobSearches,
    ListAlgorithmsRequest,
    ListAllNotebooksRequest,
    ListImageGroupRequest,
    ListImageRequest,
    ListInferServicesRequest,
    ListTrainingJobsRequest,
    ListWorkflowsRequest,
    ListWorkspaceRequest,
    ModelArtsClient,
    ShowImageRequest,
    ShowInferServiceRequest,
)
from vendor_sdk import (
    key_credentials,
    loopback_only,  # noqa: F401  (a fixture)
    sdk_client,
    temporary_credentials,
    token_credentials,
)

from pipelines.sandbox import SandboxOptions, running_sandbox
from pipelines.sandbox.catalogue import Catalogue

# The SDK's signer reads the clock with datetime.utcnow(), which Python 3.12 and later warn of.
pytestmark = [
    pytest.mark.usefixtures("loopback_only"),
    pytest.mark.filterwarnings(r"ignore:datetime\.datetime\.utcnow\(\) is deprecated:DeprecationWarning"),
]

DAY = date(2026, 11, 23)
CATALOGUE = Catalogue("vendor", 80, workspaces=2)
SECOND = CATALOGUE.second_workspace


@pytest.fixture(scope="module")
def sandbox():
    with running_sandbox(SandboxOptions(seed="vendor", size=80, day=DAY, workspaces=2)) as connection:
        yield connection


def client_with(sandbox, credentials):
    return sdk_client(ModelArtsClient, sandbox, credentials)


@pytest.fixture(params=[token_credentials, key_credentials, temporary_credentials], ids=["token", "keys", "temporary"])
def client(request, sandbox):
    return client_with(sandbox, request.param(sandbox))


def test_sdk_shows_an_image(client):
    image_id = CATALOGUE.storylines(DAY)["re-pushed"]
    expected = CATALOGUE.image(image_id, DAY)
    image = client.show_image(ShowImageRequest(image_id))
    assert image.status_code == 200
    assert {name: getattr(image, name) for name in expected} == expected


def test_show_image_of_another_workspace(client):
    image = client.show_image(ShowImageRequest(CATALOGUE.storylines(DAY)["elsewhere"]))
    assert image.workspace_id == SECOND


def test_newer_fields_of_an_image(client):
    listed = CATALOGUE.page(DAY, 0, CATALOGUE.size)
    for name in ("tags", "show_name", "show_tag", "swr_instance_id"):
        odd = CATALOGUE.storylines(DAY)["odd"]
        body = next(item for item in listed if name in item and item["id"] != odd)
        image = client.show_image(ShowImageRequest(body["id"]))
        if name == "tags":
            assert [(tag.key, tag.value) for tag in image.tags] == [(tag["key"], tag["value"]) for tag in body["tags"]]
        else:
            assert getattr(image, name) == body[name]


@pytest.mark.parametrize("workspace", [None, "0", SECOND])
def test_list_image(client, workspace):
    expected = CATALOGUE.page(DAY, 3, 3, workspace or "0")
    page = client.list_image(ListImageRequest(limit=3, offset=3, workspace_id=workspace))
    total = CATALOGUE.count(DAY, workspace or "0")
    assert (page.total, page.current, page.pages, page.size) == (total, 1, -(-total // 3), 3)
    assert [image.id for image in page.data] == [item["id"] for item in expected]
    assert [image.swr_path for image in page.data] == [item["swr_path"] for item in expected]


def test_sdk_lists_images_with_odd_characters_in_the_query(client):
    page = client.list_image(ListImageRequest(namespace="ä ö/+&=~*", limit=5))
    assert (page.total, page.data) == (0, [])


def expected(source, workspace=None):
    return list(CATALOGUE.resources.items(source, DAY, 0, CATALOGUE.size, workspace))


def test_list_image_group(client):
    groups = client.list_image_group(ListImageGroupRequest())
    assert sum(group.version_count for group in groups.data) == CATALOGUE.count(DAY, "0")


def test_list_workspace(client):
    answer = client.list_workspace(ListWorkspaceRequest(offset=0, limit=10))
    assert (answer.total_count, answer.count) == (2, 2)
    assert [(one.id, one.name, one.status) for one in answer.workspaces] == [
        ("0", "default", "NORMAL"),
        (SECOND, "research", "NORMAL"),
    ]


@pytest.mark.parametrize("workspace", [None, "0", SECOND])
@pytest.mark.parametrize(
    ("feature", "source"), [(None, "notebooks"), ("NOTEBOOK", "notebooks"), ("DEFAULT", "codelab")]
)
def test_list_all_notebooks(client, workspace, feature, source):
    wanted = expected(source, workspace or "0")
    answer = client.list_all_notebooks(ListAllNotebooksRequest(feature=feature, limit=10, workspace_id=workspace))
    assert answer.total == len(wanted) > 0
    for notebook, item in zip(answer.data, wanted, strict=False):
        assert (notebook.id, notebook.feature, notebook.status) == (item["id"], item["feature"], item["status"])
        assert (notebook.image.id, notebook.image.swr_path) == (item["image"]["id"], item["image"]["swr_path"])
        assert (notebook.user.name, notebook.workspace_id) == (item["user"]["name"], item["workspace_id"])
        assert (notebook.lease.update_at, notebook.lease.enable) == (item["lease"]["update_at"], True)


@pytest.mark.parametrize("workspace", [None, "0", SECOND])
def test_list_training_jobs(client, workspace):
    wanted = expected("training_jobs", workspace or "0")
    jobs, page = [], 0
    while True:
        body = JobSearches(offset=page, limit=4, workspace_id=workspace, sort_by="create_time", order="desc")
        answer = client.list_training_jobs(ListTrainingJobsRequest(body))
        assert (answer.total, answer.count, answer.limit, answer.offset) == (len(wanted), len(answer.items), 4, page)
        if not answer.items:
            break
        jobs, page = jobs + answer.items, page + 1
    assert len(jobs) == len(wanted) > 0
    for job, item in zip(jobs, wanted, strict=True):
        metadata, status, algorithm = item["metadata"], item["status"], item["algorithm"]
        assert {name: getattr(job.metadata, name) for name in metadata} == metadata
        assert (job.status.phase, job.status.start_time) == (status["phase"], status["start_time"])
        engine = algorithm.get("engine")
        for name in ("image_url", "image_repo_id", "engine_id"):
            assert getattr(job.algorithm.engine, name, None) == (engine or {}).get(name)
        assert job.algorithm.id == algorithm.get("id")
        urls = [task.algorithm.engine.image_url for task in job.tasks or []]
        assert urls == [task["algorithm"]["engine"]["image_url"] for task in item.get("tasks", [])]
    if workspace != SECOND:
        assert {len(job.tasks or []) for job in jobs} == {0, 2}


def test_training_jobs_can_be_filtered(client):
    ended = [Filter(key="phase", operator="in", value=["Completed"])]
    answer = client.list_training_jobs(ListTrainingJobsRequest(JobSearches(offset=0, limit=50, filters=ended)))
    jobs = [job for job in expected("training_jobs", "0") if job["status"]["phase"] == "Completed"]
    assert [job.metadata.id for job in answer.items] == [job["metadata"]["id"] for job in jobs] != []


@pytest.mark.parametrize("workspace", [None, SECOND])
def test_list_algorithms(client, workspace):
    wanted = expected("algorithms", workspace or "0")
    answer = client.list_algorithms(ListAlgorithmsRequest(offset=0, limit=50, workspace_id=workspace))
    assert (answer.total, answer.count) == (len(wanted), len(wanted))
    for algorithm, item in zip(answer.items, wanted, strict=True):
        assert {name: getattr(algorithm.metadata, name) for name in item["metadata"]} == item["metadata"]
        engine = algorithm.job_config.engine
        assert engine.image_url == item["job_config"]["engine"].get("image_url")


@pytest.mark.parametrize("workspace", [None, SECOND])
def test_list_and_show_infer_services(client, workspace):
    wanted = expected("services_v2", workspace or "0")
    answer = client.list_infer_services(ListInferServicesRequest(offset=0, limit=500, workspace_id=workspace))
    assert answer.total == len(wanted)
    for service, item in zip(answer.data, wanted, strict=True):
        assert {name: getattr(service, name) for name in item} == item
        details = CATALOGUE.resources.details("services_v2", service.id, DAY)
        shown = client.show_infer_service(ShowInferServiceRequest(service.id))
        assert (shown.status, shown.workspace_id) == (details["status"], details["workspace_id"])
        units = [
            (unit.image.id, unit.image.source, unit.image.swr_path)
            for group in shown.version.instance_groups
            for unit in group.unit_configs
        ]
        assert units == [
            tuple(unit["image"].get(name) for name in ("id", "source", "swr_path"))
            for group in details["version"]["instance_groups"]
            for unit in group["unit_configs"]
        ]


def test_services_are_refused_between_pages(client):
    with pytest.raises(ClientRequestException) as caught:
        client.list_infer_services(ListInferServicesRequest(offset=1, limit=2))
    assert (caught.value.status_code, caught.value.error_code) == (400, "ModelArts.6400")


def test_list_workflows(client):
    wanted = expected("workflows")
    answer = client.list_workflows(ListWorkflowsRequest(limit="5", offset="1"))
    assert (answer.total, answer.count) == (len(wanted), 5)
    for workflow, item in zip(answer.items, wanted[1:], strict=False):
        assert (workflow.workflow_id, workflow.workspace_id) == (item["workflow_id"], item["workspace_id"])
        assert workflow.latest_execution.status == item["latest_execution"]["status"]
        assert [(step.name, step.properties) for step in workflow.steps] == [
            (step["name"], step["properties"]) for step in item["steps"]
        ]


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
