"""A lake whose webhooks are told what happens to it."""

import datetime as dt

from published_days import publish_snapshot

from pipelines.lake.layout import Lake, Partition
from pipelines.notify.events import FailedRun
from pipelines.notify.telling import tell
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun

DAY = dt.date(2026, 11, 23)
NIGHT, NOON = (dt.datetime(2026, 11, 23, hour, tzinfo=dt.UTC) for hour in (3, 12))
IDS = ["aaaaaaaa-0000-4000-8000-000000000000", "bbbbbbbb-0000-4000-8000-000000000000"]


class Teller:
    """A lake, and settings that name a webhook; `pauses` are those between tries."""

    def __init__(self, urls, **settings):
        projects = {"alpha": "p1", "beta": "p1"}
        self.settings = Settings(notify=urls, **{"lake": "lake", "projects": projects} | settings)
        self.lake = Lake(self.settings.lake)
        self.pauses = []

    def publish(self, project="alpha", date=DAY, failed=0, **fetch):
        outcomes = ["ok"] * (len(IDS) - failed) + ["failed"] * failed
        day = SnapshotRun(Partition(date, project), "run-1", self.settings)
        publish_snapshot(
            day,
            inventory=[{"id": id_} for id_ in IDS],
            responses=[{"id": id_, "outcome": outcome} for id_, outcome in zip(IDS, outcomes, strict=True)],
            images=[{"id": id_} for id_, outcome in zip(IDS, outcomes, strict=True) if outcome == "ok"],
            fetch_facts={"is_sandbox": False, **fetch},
        )
        return self.lake.manifest(day.partition).sha256()

    def tell(self, now=NOON, **what):
        async def pause(seconds):
            self.pauses.append(seconds)

        return tell(self.settings, now, pause=pause, **what)


def cloud(**settings):
    return {"endpoint": "https://modelarts.example", **settings}


def failed_run(project="beta", sentence="host cannot be reached.", date=DAY):
    return FailedRun(Partition(date, project), "run-9", "image_responses", sentence)
