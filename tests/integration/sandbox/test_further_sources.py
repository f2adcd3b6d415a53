"""The further sources of a sandbox with two workspaces: each list with its own way of paging, each fault alone."""

from datetime import timedelta

import httpx
import pytest
from sandbox_calls import DAY, SEED, SIZE, error_of, set_faults, token_request

from pipelines.errors import ConfigurationError
from pipelines.sandbox import Faults, SandboxOptions, running_sandbox
from pipelines.sandbox.catalogue import Catalogue
from pipelines.sandbox.images import DAY_MS, USERNAME, at
from pipelines.sandbox.traces import Traces

PROJECT = "c" * 32
CATALOGUE = Catalogue(SEED, SIZE, "gamma", workspaces=2)
SECOND = CATALOGUE.second_workspace
WRONG_PAGE = (400, "ModelArts.6400")

LISTS = {
    "workspaces": "v1/{p}/workspaces",
    "images": "v1/{p}/images",
    "notebooks": "v1/{p}/notebooks/all",
    "algorithms": "v2/{p}/algorithms",
    "models": "v1/{p}/models",
    "services_v1": "v1/{p}/services",
    "services_v2": "v2/{p}/services",
    "workflows": "v2/{p}/workflows",
    "traces": "v3/{p}/traces?trace_type=system",
}
SOURCES = [*LISTS, "training_jobs"]


@pytest.fixture(scope="module")
def sandbox():
    options = SandboxOptions(seed=SEED, size=SIZE, day=DAY, projects={"gamma": PROJECT}, workspaces=2)
    with running_sandbox(options) as connection:
        yield connection


@pytest.fixture
def client(sandbox):
    """A client with a token, and no faults."""
    with httpx.Client(base_url=sandbox.endpoint, trust_env=False) as client:
        set_faults(client)
        wanted = token_request(sandbox.env, {"project": {"id": PROJECT}})
        client.headers["X-Auth-Token"] = client.post("/v3/auth/tokens", json=wanted).headers["X-Subject-Token"]
        yield client


def path(source):
    return "/" + LISTS[source].replace("{p}", PROJECT)


def ask(client, source, **query):
    if source == "training_jobs":
        return client.post(f"/v2/{PROJECT}/training-job-searches", json=query)
    url = httpx.URL(path(source))
    return client.get(url.copy_merge_params(query))


def ok(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()


def expected(source, workspace=None):
    return list(CATALOGUE.resources.items(source, DAY, 0, SIZE, workspace))


# -- workspaces


def test_workspaces_are_listed(client):
    body = ok(ask(client, "workspaces"))
    assert (body["total_count"], body["count"]) == (2, 2)
    assert [(one["id"], one["name"], one["status"]) for one in body["workspaces"]] == [
        ("0", "default", "NORMAL"),
        (SECOND, "research", "NORMAL"),
    ]
    second = ok(ask(client, "workspaces", offset=1, limit=1))
    assert (second["total_count"], second["workspaces"]) == (2, body["workspaces"][1:])


def test_a_list_without_a_workspace_shows_the_first_alone(client):
    for workspace in ("0", SECOND):
        body = ok(ask(client, "images", workspace_id=workspace))
        assert [item["id"] for item in body["data"]] == list(CATALOGUE.ids(DAY, workspace))
        assert body["total"] == CATALOGUE.count(DAY, workspace) > 0
    assert ok(ask(client, "images")) == ok(ask(client, "images", workspace_id="0"))
    assert ok(ask(client, "images", workspace_id="f" * 32))["total"] == 0
    set_faults(client, lists_ignore_workspace=True)
    assert [item["id"] for item in ok(ask(client, "images"))["data"]] == list(CATALOGUE.ids(DAY))
    assert ok(ask(client, "images", workspace_id=SECOND))["total"] == CATALOGUE.count(DAY, SECOND)


def test_images_of_all_workspaces_are_described_by_id(client):
    elsewhere = CATALOGUE.storylines(DAY)["elsewhere"]
    assert ok(client.get(f"{path('images')}/{elsewhere}"))["workspace_id"] == SECOND
    assert elsewhere not in client.get(path("images")).text


def test_filters_and_groups_keep_to_the_workspace(client):
    listed = CATALOGUE.page(DAY, 0, SIZE, SECOND)
    found = ok(ask(client, "images", workspace_id=SECOND, type="DEDICATED"))
    assert [item["id"] for item in found["data"]] == [item["id"] for item in listed if item["type"] == "DEDICATED"]
    groups = ok(client.get(f"{path('images')}/group", params={"workspace_id": SECOND}))
    assert sum(group["version_count"] for group in groups["data"]) == len(listed)


def test_both_clouds_spellings_of_the_workspace_of_notebooks_are_known(client):
    for spelling in ("workspace_id", "workspaceId"):
        body = ok(ask(client, "notebooks", **{spelling: SECOND}))
        assert body["data"] == expected("notebooks", SECOND) != []
    assert ok(ask(client, "notebooks", limit=100))["data"] == expected("notebooks", "0")


def test_free_instances_are_listed_by_feature_alone(client):
    for workspace in ("0", SECOND):
        body = ok(ask(client, "notebooks", feature="DEFAULT", workspace_id=workspace))
        assert body["data"] == expected("codelab", workspace)
        assert {one["feature"] for one in body["data"]} == {"DEFAULT"}
    assert error_of(ask(client, "notebooks", feature="OTHER")) == WRONG_PAGE


@pytest.mark.parametrize("source", ["training_jobs", "algorithms", "models", "services_v1", "services_v2"])
def test_users_of_images_are_listed_by_workspace(client, source):
    name = {"models": "models", "services_v1": "services", "services_v2": "data"}.get(source, "items")
    for workspace in ("0", SECOND):
        assert ok(ask(client, source, limit=50, workspace_id=workspace))[name] == expected(source, workspace) != []
    assert ok(ask(client, source, limit=50))[name] == expected(source, "0")
    set_faults(client, lists_ignore_workspace=True)
    assert ok(ask(client, source, limit=50))[name] == expected(source)


# -- paging


def test_training_jobs_are_paged_by_page_number(client):
    jobs = expected("training_jobs", "0")
    first, second = (ok(ask(client, "training_jobs", limit=3, offset=page)) for page in (0, 1))
    assert (first["total"], first["count"], first["limit"], first["offset"]) == (len(jobs), 3, 3, 0)
    assert (first["items"], second["items"]) == (jobs[:3], jobs[3:6])
    assert ok(ask(client, "training_jobs", limit=3, offset=100))["items"] == []
    for wrong in ({"limit": 51}, {"limit": 0}, {"offset": -1}, {"limit": "many"}, {"limit": None}):
        assert error_of(ask(client, "training_jobs", **wrong)) == WRONG_PAGE
    assert error_of(client.post(f"/v2/{PROJECT}/training-job-searches", content=b"[")) == WRONG_PAGE


def test_training_jobs_can_be_filtered(client):
    jobs = expected("training_jobs", "0")
    ended = {"key": "phase", "operator": "in", "value": ["Completed"]}
    body = ok(ask(client, "training_jobs", limit=2, offset=1, filters=[ended]))
    completed = [job for job in jobs if job["status"]["phase"] == "Completed"]
    assert (body["total"], body["items"]) == (len(completed), completed[2:4])
    last_days = [at(DAY.toordinal() - 6, 0), at(DAY.toordinal() + 1, 0)]
    created = {"key": "create_time", "operator": "between", "value": list(map(str, last_days))}
    found = ok(ask(client, "training_jobs", limit=50, filters=[created]))["items"]
    assert found == [job for job in jobs if last_days[0] <= job["metadata"]["create_time"] <= last_days[1]] != []
    wrong = {"key": "create_time", "operator": "about", "value": []}
    assert error_of(ask(client, "training_jobs", filters=[wrong])) == (400, "ModelArts.2702")


def test_training_jobs_can_be_those_of_the_user_alone(client):
    own = [job for job in expected("training_jobs", "0") if job["metadata"]["user_name"] == USERNAME]
    set_faults(client, jobs_of_user_only=True)
    body = ok(ask(client, "training_jobs", limit=50))
    assert (body["total"], body["items"]) == (len(own), own)
    assert 0 < len(own) < len(expected("training_jobs", "0"))


def test_algorithms_are_paged_by_records(client):
    algorithms = expected("algorithms", "0")
    body = ok(ask(client, "algorithms", limit=2, offset=1))
    assert (body["total"], body["count"], body["items"]) == (len(algorithms), 2, algorithms[1:3])
    assert error_of(ask(client, "algorithms", limit=51)) == WRONG_PAGE


@pytest.mark.parametrize(("source", "name"), [("models", "models"), ("services_v1", "services")])
def test_models_and_their_services_are_paged_by_page_index(client, source, name):
    whole = expected(source, "0")
    body = ok(ask(client, source, limit=2, offset=1))
    assert (body["total_count"], body["count"], body[name]) == (len(whole), 2, whole[2:4])
    assert ok(ask(client, source))[name] == whole
    assert error_of(ask(client, source, limit=1001)) == WRONG_PAGE


def test_models_can_be_filtered_by_type(client):
    images = [model for model in expected("models", "0") if model["model_type"] == "Image"]
    body = ok(ask(client, "models", model_type="Image", limit=2, offset=1))
    assert (body["total_count"], body["models"]) == (len(images), images[2:4])


def test_services_are_paged_by_multiples_of_the_limit(client):
    services = expected("services_v2", "0")
    body = ok(ask(client, "services_v2", limit=2, offset=2))
    assert (body["total"], body["pages"], body["data"]) == (len(services), 3, services[2:4])
    for wrong in ({"limit": 2, "offset": 1}, {"limit": 501}, {"limit": 0}):
        assert error_of(ask(client, "services_v2", **wrong)) == WRONG_PAGE


def test_workflows_are_those_of_all_workspaces(client):
    workflows = expected("workflows")
    body = ok(ask(client, "workflows", limit="4", offset="3"))
    assert (body["total"], body["count"], body["items"]) == (len(workflows), 3, workflows[3:])


@pytest.mark.parametrize("source", ["models", "services_v1", "services_v2"])
def test_details_have_what_the_list_lacks(client, source):
    key = {"models": "model_id", "services_v1": "service_id", "services_v2": "id"}[source]
    for workspace in ("0", SECOND):
        for item in expected(source, workspace):
            details = ok(client.get(f"{path(source)}/{item[key]}"))
            assert details == CATALOGUE.resources.details(source, item[key], DAY)
    assert client.get(f"{path(source)}/278e88d1-5b71-4766-8502-b3ba72e824d9").status_code == 404


def test_the_giant_is_needed_by_services_and_by_no_notebook(client):
    giant = CATALOGUE.image(CATALOGUE.storylines(DAY)["unused-giant"], DAY)
    short = giant["swr_path"].partition("/")[2]
    service = ok(client.get(f"{path('services_v1')}/{expected('services_v1')[0]['service_id']}"))
    model = ok(client.get(f"{path('models')}/{service['config'][0]['model_id']}"))
    assert (service["status"], model["source_copy"]) == ("running", "false")
    assert model["source_location"].endswith(f":20202/{short}")
    service = ok(client.get(f"{path('services_v2')}/{expected('services_v2')[0]['id']}"))
    image = service["version"]["instance_groups"][0]["unit_configs"][0]["image"]
    assert (service["status"], image["id"], image["swr_path"]) == ("RUNNING", giant["id"], giant["swr_path"])
    assert giant["id"] not in client.get(f"{path('notebooks')}?limit=100").text


# -- traces


def test_traces_are_paged_by_a_marker(client):
    first, last = at(DAY.toordinal() - 2, 0), at(DAY.toordinal() + 1, 0)
    days = [DAY - timedelta(days=number) for number in range(3)]
    traces = [trace for day in days for trace in Traces(CATALOGUE).seen_on(day)]
    read, marker = {}, None
    while True:
        query = {"limit": 5, "from": first, "to": last} | ({"next": marker} if marker else {})
        body = ok(ask(client, "traces", **query))
        if not body["traces"]:
            assert body["meta_data"] == {"count": 0, "marker": None}
            break
        marker = body["meta_data"]["marker"]
        assert body["meta_data"] == {"count": len(body["traces"]), "marker": body["traces"][-1]["trace_id"]}
        read |= {trace["trace_id"]: trace for trace in body["traces"]}
    assert list(read.values()) == traces
    older = ok(ask(client, "traces", limit=200, **{"from": at(DAY.toordinal() - 60, 0), "to": last}))["traces"]
    assert min(trace["time"] for trace in older) >= last - 7 * DAY_MS


@pytest.mark.parametrize("query", ["trace_type=data", "trace_type=system&limit=201", "trace_type=system&from=x", ""])
def test_traces_of_no_kind_or_page_are_refused(client, query):
    assert error_of(client.get(f"/v3/{PROJECT}/traces?{query}")) == (400, "CTS.0003")


# -- refusals and faults


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_needs_credentials(client, source):
    del client.headers["X-Auth-Token"]
    assert error_of(ask(client, source)) == (401, "ModelArts.0201")


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("sources_forbidden", (403, "ModelArts.0108")),
        ("sources_missing", (404, "APIG.0101")),
        ("sources_broken", (500, "ModelArts.0010")),
    ],
)
def test_each_source_can_be_refused_alone(client, source, fault, error):
    set_faults(client, **{fault: [source]})
    answers = {other: ask(client, other) for other in SOURCES}
    assert error_of(answers.pop(source)) == error
    assert {answer.status_code for answer in answers.values()} == {200}
    key = {"models": "model_id", "services_v1": "service_id", "services_v2": "id"}.get(source)
    if key:
        assert error_of(client.get(f"{path(source)}/{expected(source)[0][key]}")) == error


def test_the_services_of_both_apis_can_be_refused_together(client):
    set_faults(client, sources_missing=["services"])
    for source in ("services_v1", "services_v2"):
        assert error_of(ask(client, source)) == (404, "APIG.0101")


def test_image_details_outlive_a_refused_list(client):
    set_faults(client, sources_forbidden=["images"])
    re_pushed = CATALOGUE.storylines(DAY)["re-pushed"]
    assert ok(client.get(f"{path('images')}/{re_pushed}"))["id"] == re_pushed


def test_an_unknown_source_is_refused(client):
    answer = client.put("/sandbox/faults", json={"sources_broken": ["everything"]})
    assert (answer.status_code, "sources_broken" in answer.json()["error"]) == (400, True)


def test_long_pages_can_be_refused(client):
    assert error_of(ask(client, "notebooks", limit=101)) == WRONG_PAGE
    assert ask(client, "notebooks", limit=100).status_code == 200
    set_faults(client, max_page=20)
    for source in (one for one in SOURCES if one != "traces"):
        assert error_of(ask(client, source, limit=21)) == WRONG_PAGE, source
        assert ask(client, source, limit=20).status_code == 200, source
        assert ask(client, source).status_code == 200, source
    assert len(ok(ask(client, "images"))["data"]) == 20


def test_passing_faults_and_the_rate_limit_befall_the_further_sources_but_not_notebooks(client):
    set_faults(client, ratio_500=1)
    assert {source for source in SOURCES if ask(client, source).status_code == 500} == {*SOURCES} - {"notebooks"}
    set_faults(client, rate_limit=0.001, retry_after="3")
    answers = [ask(client, "models") for _ in range(3)]
    assert error_of(answers[-1]) == (429, "APIG.0308")
    set_faults(client, suspended=True)
    assert {error_of(ask(client, source)) for source in SOURCES} == {(401, "ModelArts.6201")}


def test_requests_are_counted_by_kind(client):
    def counts():
        return client.get("/sandbox/stats").json()["requests"]

    before = counts()
    for source in SOURCES:
        ask(client, source)
    ask(client, "models")
    client.get(f"{path('models')}/x")
    after = counts()
    grown = {kind: after[kind] - before.get(kind, 0) for kind in after if after[kind] != before.get(kind, 0)}
    named = [source for source in SOURCES if source != "images"]
    assert grown == dict.fromkeys(named, 1) | {"list": 1, "models": 2, "model": 1}


# -- options


def test_a_workspace_that_appears_is_an_option():
    since = DAY + timedelta(days=1)
    options = SandboxOptions(seed=SEED, size=SIZE, day=DAY, workspaces=2, second_workspace_since=since)
    with running_sandbox(options) as connection, httpx.Client(base_url=connection.endpoint, trust_env=False) as client:
        wanted = token_request(connection.env, {"project": {"id": connection.project_id}})
        client.headers["X-Auth-Token"] = client.post("/v3/auth/tokens", json=wanted).headers["X-Subject-Token"]
        seen = []
        for day in (DAY, since):
            client.put("/sandbox/day", json={"day": day.isoformat()}).raise_for_status()
            workspaces = ok(client.get(f"/v1/{connection.project_id}/workspaces"))["workspaces"]
            seen.append((len(workspaces), ok(client.get(f"/v1/{connection.project_id}/images"))["total"]))
    catalogue = Catalogue(SEED, SIZE, "default", 2, since)
    assert seen == [(1, catalogue.count(DAY)), (2, catalogue.count(since, "0"))]


def test_sources_can_be_stated_as_words():
    faults = Faults(sources_forbidden="models,traces", sources_missing="")
    assert faults.sources_forbidden == {"models", "traces"}
    assert faults.sources_missing == frozenset()


def test_impossible_workspaces_are_refused():
    with pytest.raises(ConfigurationError, match="workspaces 3 are wrong: give 1 or 2"):
        SandboxOptions(workspaces=3)
