"""Dagster's UI after a run, over HTTP and in a real browser."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

# Pages load from a server that imports, compiles and queries for the first time, perhaps on a slow machine.
PATIENCE_SECONDS = 120
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture
def browser_path():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "no Chromium on the PATH: install it (Debian: apt-get install chromium)"
        )
    return path


def session_of(stat):
    """Session id in a line of /proc/PID/stat; the name before it may hold blanks and parentheses."""
    return int(stat.rpartition(")")[2].split()[3])


def processes_of_session(session):
    """Ids of the running processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            stat = path.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if session_of(stat) == session and stat.rpartition(")")[2].split()[0] != "Z":
            found.append(int(path.parent.name))
    return found


@contextmanager
def serving_ui(command, log_path):
    """The UI as a user starts it, until it shows our assets; ended like by Ctrl-C, with all its processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with (
        log_path.open("wb") as log,
        subprocess.Popen(
            [command, "ui", "--port", str(port)], stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        try:
            deadline = time.monotonic() + 2 * PATIENCE_SECONDS
            while not is_serving(url):
                assert process.poll() is None, log_path.read_text()
                assert time.monotonic() < deadline, log_path.read_text()
                time.sleep(0.3)
            yield url
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(PATIENCE_SECONDS)
                deadline = time.monotonic() + PATIENCE_SECONDS
                while (left := processes_of_session(process.pid)) and time.monotonic() < deadline:
                    time.sleep(0.2)
            finally:
                for pid in processes_of_session(process.pid):
                    os.kill(pid, signal.SIGKILL)
    assert left == []


def is_serving(url):
    try:
        return httpx.get(f"{url}/server_info", timeout=60).status_code == 200
    except httpx.TransportError:
        return False


SHOWN = """
{
  assetOrError(assetKey: {path: ["images"]}) { ... on Asset {
    definition { groupName description }
    assetMaterializations(limit: 1) { partition metadataEntries {
      label
      ... on TextMetadataEntry { text }
      ... on IntMetadataEntry { intValue }
      ... on BoolMetadataEntry { boolValue }
    } }
  } }
  repositoriesOrError { ... on RepositoryConnection { nodes { schedules { name cronSchedule } } } }
}
"""


def until(condition):
    """Wait until `condition` returns something true, and return that."""
    deadline = time.monotonic() + 2 * PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    return found


@pytest.fixture
def report(image_snapshots):
    """The output of a run that is recorded where the UI looks."""
    result = image_snapshots("run", "--json", keeps_runs=True)
    assert result.returncode == 0, result.stderr
    (found,) = json.loads(result.stdout)
    return found


@pytest.mark.timeout(900)
def test_ui_serves_published_assets_and_ends_all_its_processes(report, command, tmp_path):
    """What the pages request from the server; a slow test checks the browser."""

    def shown():
        answer = httpx.post(f"{url}/graphql", json={"query": SHOWN}, timeout=PATIENCE_SECONDS)
        data = answer.json()["data"]
        # The code is loaded by a separate process, which may take longer.
        return data if data["repositoriesOrError"].get("nodes") else None

    with serving_ui(command, tmp_path / "ui.log") as url:
        data = until(shown)
    asset = data["assetOrError"]
    assert asset["definition"]["groupName"] == "snapshot"
    assert "one row per image that the API described on that day" in asset["definition"]["description"]
    (materialisation,) = asset["assetMaterializations"]
    assert materialisation["partition"] == f"{report['date']}|default"
    values = {entry.pop("label"): next(iter(entry.values()), None) for entry in materialisation["metadataEntries"]}
    expected = {
        "dagster/partition_row_count": report["tables"]["images"]["rows"],
        "sha256": report["tables"]["images"]["sha256"],
        "is_complete": True,
        "outcome_ok": report["outcomes"]["ok"],
    }
    assert {name: values.get(name) for name in expected} == expected
    (repository,) = data["repositoriesOrError"]["nodes"]
    assert {"name": "daily_snapshot_schedule", "cronSchedule": "17 2 * * *"} in repository["schedules"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_operator_sees_published_assets_and_metadata(report, command, browser_path, tmp_path):
    from playwright.sync_api import expect, sync_playwright

    images = report["tables"]["images"]
    with serving_ui(command, tmp_path / "ui.log") as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=BROWSER_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1500, "height": 1800})
        page.set_default_timeout(PATIENCE_SECONDS * 1000)
        expect.set_options(timeout=PATIENCE_SECONDS * 1000)
        # Dagster's invitation, if its instance was not told to hide it.
        page.add_locator_handler(
            page.get_by_role("dialog").get_by_role("button", name="Skip"), lambda skip: skip.click()
        )

        def opened(path, *texts):
            page.goto(url + path)
            for text in texts:
                expect(page.locator("body")).to_contain_text(text, use_inner_text=True)

        def keep(name):
            page.screenshot(path=tmp_path / f"{name}.png")

        opened(
            "/asset-groups", "Global asset lineage", "inventory", "responses", "snapshot", "history", "audit", "cost"
        )
        keep("groups")

        opened("/assets/image_responses?view=lineage")
        for asset in ("image_inventory", "image_responses", "images", "image_values", "image_tags"):
            expect(page.get_by_text(asset, exact=True).first).to_be_visible()
        expect(page.get_by_text(re.compile("^Loading"))).to_have_count(0)
        keep("graph")

        opened(
            "/assets/images",
            "one row per image that the API described on that day",
            f"{report['date']}|default",
            "Processor architecture as sent",
            "Fails if more than 30 hours since last materialization",
        )
        for name, value in {
            "dagster/partition_row_count": str(images["rows"]),
            "sha256": images["sha256"],
            "is_complete": "true",
            "outcome_ok": str(report["outcomes"]["ok"]),
            "manifest": re.compile(r"/lake/_manifests/dt.*/project.*default\.json"),
        }.items():
            row = page.get_by_role("row").filter(has=page.get_by_text(name, exact=True))
            expect(row.first).to_contain_text(value, use_inner_text=True)
        keep("images")
        page.get_by_role("row").filter(has=page.get_by_text("manifest", exact=True)).first.scroll_into_view_if_needed()
        keep("images_metadata")

        checks = ("ids_are_unique", "no_new_fields", "no_new_values", "no_anomalies")
        opened("/assets/images?view=checks", *checks)
        keep("checks")

        opened("/assets/image_costs", "for the day by the price book, and its part of the newest bill")
        row = page.get_by_role("row").filter(has=page.get_by_text("total_bytes", exact=True))
        expect(row.first).to_contain_text(str(report["summary"]["total_bytes"]), use_inner_text=True)
        keep("costs")

        opened("/assets/daily_report", "The day on one page: figures")
        link = page.get_by_role("link", name=re.compile(r"report\.html"))
        assert link.first.get_attribute("href") == f"file://{Path(report['report'])}"
        keep("report")

        opened("/automation", "daily_snapshot_schedule", "At 02:17 AM UTC")
        keep("automation")
        browser.close()
