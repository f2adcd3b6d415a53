"""The image list and the notebook list, on pages of every kind."""

import asyncio
import datetime as dt
import json
from traceback import walk_tb

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

from pipelines.errors import (
    AccessDeniedError,
    ConfigurationError,
    ListDeniedError,
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
        read = [one async for one in modelarts.list_images(page_size=2)]
        assert [[item["id"] for item in one.items] for one in read] == pages
        assert modelarts.list_shortfall == shortfall
        assert server.requests[0].path == "/v1/p1/images?limit=2&offset=0"
    warnings = [record.getMessage() for record in caplog.records if record.name == "pipelines.cloud.modelarts"]
    assert len(warnings) == (1 if shortfall else 0)


async def test_next_page_begins_after_the_last_record():
    answers = [page(["a", "b"], 4), page(["b", "c"], 4), page(["d"], 4)]
    async with serving(replies(*answers)) as server, client(server) as modelarts:
        read = [one async for one in modelarts.list_images(page_size=2)]
        assert [request.path.rpartition("=")[2] for request in server.requests] == ["0", "2", "4"]
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
            [one async for one in modelarts.list_images()]


async def test_missing_list_call_stops_nothing_else():
    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(error(404, "APIG.0101") if "notebooks" in request.path else described(request))

    async with serving(script) as server, client(server) as modelarts:
        assert (await modelarts.show_image(ID)).outcome is Outcome.OK
        with pytest.raises(ListUnreadableError, match=r"The notebook list of .* \(HTTP 404 APIG\.0101\)\.$"):
            [one async for one in modelarts.list_notebooks()]
        assert (await modelarts.show_image(ID)).outcome is Outcome.OK


# -- the notebooks


SECRET = "3eff13f2-3d70-5456-6dc7-e3f99f562022"


def notebook(**fields: object) -> dict[str, object]:
    return {"id": "n1", "token": SECRET, "url": f"https://n.invalid/?token={SECRET}", "lease": {}} | fields


def notebooks_page(*items: object, total: int) -> bytes:
    return http(200, json.dumps({"data": items, "total": total}).encode())


@pytest.mark.parametrize(
    ("happened", "item", "kept"),
    [
        (
            "as documented",
            notebook(id=" N1 ", name="a", status="RUNNING", image={"id": "E1A07296-22A8-4F05-8BC8-E936C8E54090"}),
            ("n1", "a", "RUNNING", "e1a07296-22a8-4f05-8bc8-e936c8e54090"),
        ),
        ("nothing but an id", {"id": "n1"}, ("n1", None, None, None)),
        ("no image", notebook(image=None), ("n1", None, None, None)),
        ("an image without an id", notebook(image={"name": "i"}), ("n1", None, None, None)),
        ("an image with a blank id", notebook(image={"id": " "}), ("n1", None, None, None)),
        ("an image that is no object", notebook(image="e1a07296"), ("n1", None, None, None)),
        ("an image id that is no text", notebook(image={"id": 7}), ("n1", None, None, None)),
        ("a name and a status that are no text", notebook(name={"a": 1}, status=5), ("n1", None, None, None)),
    ],
)
async def test_notebook_is_reduced_to_kept_fields(happened, item, kept):
    async with serving(replies(notebooks_page(item, total=1))) as server, client(server) as modelarts:
        (read,) = [one async for one in modelarts.list_notebooks()]
        assert [request.path for request in server.requests] == ["/v1/p1/notebooks/all?limit=100&offset=0"]
    (only,) = read
    assert (only.id, only.name, only.status, only.image_id) == kept
    assert only.observed_at.tzinfo == dt.UTC
    assert SECRET not in repr(read)


async def test_notebooks_without_an_id_are_counted(caplog):
    items = [notebook(), notebook(id=None), notebook(id=" "), {}, None, 7]
    async with serving(replies(notebooks_page(*items, total=6), notebooks_page(total=6))) as server:
        async with client(server) as modelarts:
            read = [book.id async for books in modelarts.list_notebooks() for book in books]
            assert (read, modelarts.notebooks_skipped) == (["n1"], 5)
    told = [record.getMessage() for record in caplog.records if record.name == "pipelines.cloud.modelarts"]
    assert [sentence.partition(" has ")[2] for sentence in told] == ["5 items without an id."]
    assert SECRET not in caplog.text


async def test_notebooks_missing_from_the_pages_are_an_error():
    pages = [notebooks_page(notebook(), total=3), notebooks_page(notebook(id="N1"), total=3)]
    async with serving(replies(*pages)) as server, client(server) as modelarts:
        with pytest.raises(ListUnreadableError, match="has 3 notebooks, but its pages held 1"):
            [one async for one in modelarts.list_notebooks()]


async def test_no_living_frame_holds_a_token():
    """Neither while a page is in use, nor in the traceback of an error."""
    wrong = http(200, json.dumps({"data": notebook()}).encode())
    async with serving(replies(notebooks_page(notebook(), total=2), wrong)) as server, client(server) as modelarts:
        reading = modelarts.list_notebooks()
        await anext(reading)
        assert SECRET not in repr(reading.ag_frame.f_locals)
        with pytest.raises(ListUnreadableError) as raised:
            await anext(reading)
    frames = [
        frame for frame, _ in walk_tb(raised.value.__traceback__) if frame.f_code.co_filename.endswith("modelarts.py")
    ]
    assert len(frames) == 3
    assert SECRET not in repr([frame.f_locals for frame in frames])
