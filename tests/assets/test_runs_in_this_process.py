"""Runs of the command line: what stops them, and what does not."""

import datetime as dt
import os
import shutil
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import assets.daily_snapshot
import assets.delivery
import assets.derived_tables
from assets.build import DAILY_JOB
from assets.runner import Runner
from pipelines.lake.derived_manifests import read_derived_manifest
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import published
from pipelines.settings import Settings

PARTITION = Partition(dt.datetime.now(dt.UTC).date(), "default")
PHASES = {
    "inventory": (assets.daily_snapshot, "take_inventory"),
    "fetch": (assets.daily_snapshot, "fetch_responses"),
    "publish": (assets.daily_snapshot, "publish_snapshot"),
    "derive": (assets.derived_tables, "derive_days"),
    "report": (assets.delivery, "write_report"),
    "load": (assets.delivery, "load_project"),
}
LINES = (
    "reading the inventory",
    "asking the API",
    "publishing the day",
    "deriving changes, findings and costs",
    "writing the report",
    "loading the warehouse",
)


@pytest.fixture
def sandbox(start_sandbox, tmp_path, monkeypatch):
    sandbox = start_sandbox(size=5, inventory_file=tmp_path / "inventory.csv")
    for name, value in sandbox.env.items():
        monkeypatch.setenv(name, value)
    return sandbox


def run():
    with Runner(Settings()) as runner:
        return runner.run(DAILY_JOB, PARTITION)


def before(monkeypatch, phase, happens):
    """Trigger something once, when a phase begins."""
    module, name = PHASES[phase]
    original = getattr(module, name)

    def wrapped(*arguments):
        monkeypatch.setattr(module, name, original)
        happens()
        return original(*arguments)

    monkeypatch.setattr(module, name, wrapped)


@pytest.mark.parametrize("phase", PHASES)
def test_ctrl_c_ends_a_run_with_one_sentence_in_every_phase(phase, home, sandbox, monkeypatch, capfd):
    before(monkeypatch, phase, lambda: signal.raise_signal(signal.SIGINT))
    failure = run()
    assert failure.is_interrupt
    assert failure.exit_status == 1
    assert failure.came_after_publication == (phase in ("derive", "load", "report"))
    assert failure.sentence.startswith(
        f"Stopped {'after' if failure.came_after_publication else 'before'} {PARTITION} was published"
    )
    if failure.came_after_publication:
        # The warehouse is the last step.
        command = "load" if phase == "load" else "derive"
        assert f"`image-snapshots {command} --from {PARTITION.date} --project default`" in failure.sentence
    assert (published(Lake("lake"), PARTITION) is not None) == failure.came_after_publication
    # A line for each step that began, and no more.
    begun = [*LINES][: [*PHASES].index(phase) + 1]
    assert capfd.readouterr().err.splitlines() == [f"{PARTITION.date} default: {line}" for line in begun]
    # The terminal's handler is back.
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_during_the_list_ends_a_run_with_one_sentence(home, sandbox, monkeypatch, capfd):
    over = threading.Event()

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self):
            os.kill(os.getpid(), signal.SIGINT)
            over.wait()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("IMAGE_SNAPSHOTS_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.delenv("IMAGE_SNAPSHOTS_INVENTORY")
    try:
        failure = run()
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()
    assert failure.is_interrupt
    assert failure.sentence.startswith(f"Stopped before {PARTITION} was published")
    assert capfd.readouterr().err.splitlines() == [f"{PARTITION.date} default: {LINES[0]}"]


@pytest.mark.parametrize("phase", ["fetch", "report"])
def test_run_storage_that_breaks_during_a_run_does_not_stop_it(phase, home, sandbox, monkeypatch, capfd):
    def spoil():
        shutil.rmtree(home / "history")
        (home / "history").write_text("")

    before(monkeypatch, phase, spoil)
    assert run() is None
    lake = Lake("lake")
    manifest = published(lake, PARTITION)
    assert manifest.is_complete
    assert not manifest.rebuilt
    # A published day is not fetched again.
    assert not lake.contents.superseded_manifests("default")
    assert read_derived_manifest(lake, PARTITION) is not None
    assert lake.report(PARTITION).exists()
    # Dagster prints something, too.
    warnings = [line for line in capfd.readouterr().err.splitlines() if line.startswith("Warning: ")]
    assert len(warnings) == 1
    assert warnings[0].startswith("Warning: Dagster's own storage")
