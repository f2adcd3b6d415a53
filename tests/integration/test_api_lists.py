"""The lists of the API, on pages of every kind."""

import asyncio
import datetime as dt
import json
from traceback import walk_tb
from urllib.parse import parse_qsl

import pytest
from scripted_server import (
    HTML,
    ID,
    Request,
    client,
    described,
    error,
    http,
    replies,
    serving,
)

from pipelines.cloud.paging import Listing, Step
from pipelines.cloud.service import Reading
from pipelines.errors import (
    AccessDeniedError,
    ConfigurationError,
    ListDeniedError,
    ListMissingError,
    ListUnreadableError,
    PipelineError,
)
from pipelines.tables import Outcome


def page(names: list[str], total: object) -> bytes:
    return http(200, json.dumps({"data": [{"id": name} for name in names], "total": total}).encode())


@pytest.mark.parametrize(
    ("happened", "answers", "pages", "shortfall"),
    [
        ("all were seen", [page(["a", "b"], 3), page(["c"], 3)], [["a", "b"], ["c"]], 0),
        ("total came as text", [page(["a", "b"], "2")], [["a", "b"]], 0),
        ("an image moved to the next page", [page(["a", "b"], 3), page(["B", "c"], 3)], [["a", "b"], ["c"]], 0),
        ("an empty page", [page(["a"], 9), page([], 9)], [["a"]], 8),
        ("a page with nothing new", [page(["a"], 9), page(["a"], 9)], [["a"]], 8),
        ("past the end", [page(["a"], 9), error(400, "ModelArts.6400")], [["a"]], 8),
        ("no total", [page(["a"], None), page(["b"], None), page([], None)], [["a"], ["b"]], 0),
        ("nothing at all", [page([], 0)], [], 0),
        ("a passing fault", [http(503), page(["a"], 1)], [["a"]], 0),
        ("no JSON once", [HTML, page(["a"], 1)], [["a"]], 0),
        (
            "items without an id",
            [http(200, b'{"data": [{"id": "a"}, {"id": 5}, {}, null, 7], "total": 1}')],
            [["a"]],
            0,
        ),
    ],
)
async def test_image_list_is_read_from_any_pages(happened, answers, pages, shortfall, caplog):
    async with serving(replies(*answers)) as server, client(server) as modelarts:
        read = [one async for one in modelarts.list_images(["0"])]
        assert [[item["id"] for item in one.items] for one in read] == pages
        assert modelarts.list_shortfall == shortfall
        assert server.requests[0].path == "/v1/p1/images?limit=200&offset=0&workspace_id=0"
    warnings = [record.getMessage() for record in caplog.records if record.name == "pipelines.cloud.modelarts"]
    assert len(warnings) == (1 if shortfall else 0)


async def test_next_page_begins_after_the_last_record():
    answers = [page(["a", "b"], 4), page(["b", "c"], 4), page(["d"], 4)]
    async with serving(replies(*answers)) as server, client(server) as modelarts:
        read = [one async for one in modelarts.list_images(["0"])]
        assert [query(request)["offset"] for request in server.requests] == ["0", "2", "4"]
    assert read[0].body == answers[0].partition(b"\r\n\r\n")[2]
    assert (read[0].total, read[0].observed_at.tzinfo) == (4, dt.UTC)


@pytest.mark.parametrize(
    ("raw", "error_type"),
    [
        (error(400, "ModelArts.6400"), PipelineError),
        (error(400, "ModelArts.0104"), PipelineError),
        (error(403, "ModelArts.0108"), ListDeniedError),
        (error(403, "ModelArts.0108"), AccessDeniedError),
        (error(404, "APIG.0101"), ConfigurationError),
        (http(500), ListUnreadableError),
        (HTML, ListUnreadableError),
    ],
)
async def test_unreadable_list_is_an_error(raw, error_type):
    async with serving(replies(raw)) as server, client(server) as modelarts:
        with pytest.raises(error_type):
            [one async for one in modelarts.list_images(["0"])]


async def test_an_image_of_two_workspaces_is_shown_once():
    answers = [page(["a", "b"], 2), page(["B", "c"], 2)]
    async with serving(replies(*answers)) as server, client(server) as modelarts:
        read = [one async for one in modelarts.list_images(["0", "w"])]
        assert [query(request)["workspace_id"] for request in server.requests] == ["0", "w"]
    assert [[item["id"] for item in one.items] for one in read] == [["a", "b"], ["c"]]
    assert modelarts.list_shortfall == 0


async def test_a_page_that_is_refused_is_asked_for_in_smaller_ones():
    refused = error(400, "ModelArts.0104")
    answers = [refused, refused, page(["a"], 2), page(["b"], 2)]
    async with serving(replies(*answers)) as server, client(server) as modelarts:
        read = [one async for one in modelarts.list_images(["0"])]
        asked = [(query(request)["limit"], query(request)["offset"]) for request in server.requests]
    assert asked == [("200", "0"), ("50", "0"), ("20", "0"), ("20", "1")]
    assert [[item["id"] for item in one.items] for one in read] == [["a"], ["b"]]


def query(request):
    return dict(parse_qsl(request.path.partition("?")[2]))


async def test_missing_list_call_stops_nothing_else():
    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(error(404, "APIG.0101") if "notebooks" in request.path else described(request))

    async with serving(script) as server, client(server) as modelarts:
        assert (await modelarts.show_image(ID)).outcome is Outcome.OK
        with pytest.raises(ListMissingError, match=r"The notebook list of .* \(HTTP 404 APIG\.0101\)\.$"):
            await rows(modelarts)
        assert (await modelarts.show_image(ID)).outcome is Outcome.OK


async def test_a_list_that_may_be_missing_says_nothing_of_the_endpoint():
    """A 404 of it does not end the run, and a wrong endpoint is still found by the next request."""
    listing = Listing("workspace", "/v1/{project_id}/workspaces", may_be_missing=True)
    async with serving(replies(error(404, "APIG.0101"))) as server, client(server) as modelarts:
        with pytest.raises(ListMissingError):
            await rows(modelarts, listing)
        assert not modelarts.was_accepted
        with pytest.raises(ConfigurationError, match="does not serve this API"):
            await rows(modelarts)


# -- what positions count


@pytest.mark.parametrize(
    ("step", "shown", "positions"),
    [
        (Step.RECORDS, [["a", "b"], ["c"]], ["0", "2"]),
        (Step.PAGES, [["a", "b"], ["c"]], ["0", "1"]),
        (Step.MULTIPLES, [["a", "b"], ["c"]], ["0", "50"]),
    ],
)
async def test_an_offset_counts_records_pages_or_multiples_of_the_limit(step, shown, positions):
    listing = Listing("thing", "/v1/{project_id}/things", step=step)
    async with serving(replies(*(page(names, 3) for names in shown))) as server, client(server) as modelarts:
        assert await rows(modelarts, listing) == [["a", "b"], ["c"]]
        assert [query(request)["offset"] for request in server.requests] == positions


async def test_a_list_that_is_asked_for_by_post_is_signed_with_its_body():
    listing = Listing("job", "/v2/{project_id}/searches", parameters={"order": "desc"}, by_post=True)
    async with serving(replies(page(["a"], 1))) as server, client(server) as modelarts:
        assert await rows(modelarts, listing) == [["a"]]
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/v2/p1/searches")
    assert json.loads(request.body) == {"limit": 50, "offset": 0, "order": "desc", "workspace_id": "0"}


@pytest.mark.parametrize("name", ["items", "models"])
async def test_items_and_their_number_stand_under_other_names(name):
    listing = Listing("thing", "/v1/{project_id}/things", items=name, total="total_count", id=("metadata", "id"))
    body = json.dumps({name: [{"metadata": {"id": "A"}}], "total_count": 1}).encode()
    async with serving(replies(http(200, body))) as server, client(server) as modelarts:
        reading = Reading(listing)
        read = [some async for some in modelarts.rows(reading, "0", lambda item, _: item["metadata"]["id"])]
    assert (read, reading.items, reading.skipped, reading.shortfall) == ([["A"]], 1, 0, 0)
    assert len(server.requests) == 1


# -- reduced items


SECRET = "3eff13f2-3d70-5456-6dc7-e3f99f562022"
NOTEBOOKS = Listing("notebook", "/v1/{project_id}/notebooks/all")


async def rows(modelarts, listing=NOTEBOOKS):
    """The ids on each page of a list."""
    reading = Reading(listing)
    return [some async for some in modelarts.rows(reading, "0", lambda item, _: item["id"])]


def notebook(**fields: object) -> dict[str, object]:
    return {"id": "n1", "token": SECRET, "url": f"https://n.invalid/?token={SECRET}", "lease": {}} | fields


def notebooks_page(*items: object, total: int) -> bytes:
    return http(200, json.dumps({"data": items, "total": total}).encode())


async def test_items_without_an_id_are_counted():
    items = [notebook(), notebook(id=None), notebook(id=" "), {}, None, 7]
    reading = Reading(NOTEBOOKS)
    async with serving(replies(notebooks_page(*items, total=6), notebooks_page(total=6))) as server:
        async with client(server) as modelarts:
            read = [some async for some in modelarts.rows(reading, "0", lambda item, _: item["id"])]
    assert (read, reading.items, reading.skipped, reading.shortfall) == ([["n1"]], 1, 5, 5)


async def test_items_that_are_not_on_the_pages_are_missed():
    pages = [notebooks_page(notebook(), total=3), notebooks_page(notebook(id="N1"), total=3)]
    reading = Reading(NOTEBOOKS)
    async with serving(replies(*pages)) as server, client(server) as modelarts:
        assert [some async for some in modelarts.rows(reading, "0", lambda item, _: item["id"])] == [["n1"]]
    assert (reading.items, reading.shortfall, reading.requests) == (1, 2, 2)


async def test_no_living_frame_holds_a_token():
    """Neither while a page is in use, nor in the traceback of an error."""
    wrong = http(200, json.dumps({"data": notebook()}).encode())
    async with serving(replies(notebooks_page(notebook(), total=2), wrong)) as server, client(server) as modelarts:
        reading = modelarts.rows(Reading(NOTEBOOKS), "0", lambda item, _: item["id"])
        await anext(reading)
        assert SECRET not in repr(reading.ag_frame.f_locals)
        with pytest.raises(ListUnreadableError) as raised:
            await anext(reading)
    frames = frames_of_the_client(raised.value)
    assert len(frames) == 3
    assert SECRET not in repr([frame.f_locals for frame in frames])


def frames_of_the_client(error):
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    return [frame for frame in frames if frame.f_code.co_filename.endswith("service.py")]


# -- one resource


async def show(modelarts, reading):
    return await modelarts.show(reading, "/v1/{project_id}/models/m", lambda body, _: body["name"])


async def test_a_resource_is_reduced_and_one_that_is_gone_is_none():
    reading = Reading(NOTEBOOKS)
    answers = [http(503), http(200, b'{"name": "n"}'), error(404, "ModelArts.3302")]
    async with serving(replies(*answers)) as server, client(server) as modelarts:
        assert await show(modelarts, reading) == "n"
        assert await show(modelarts, reading) is None
    assert reading.requests == 3


async def test_a_resource_that_cannot_be_read_leaves_no_secret_in_the_traceback():
    wrong = http(200, json.dumps([notebook()]).encode())
    async with serving(replies(wrong)) as server, client(server) as modelarts:
        with pytest.raises(ListUnreadableError, match=r"^A notebook of .* cannot be read \(HTTP 200 ") as raised:
            await show(modelarts, Reading(NOTEBOOKS))
    assert SECRET not in repr([frame.f_locals for frame in frames_of_the_client(raised.value)])
