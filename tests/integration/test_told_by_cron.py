"""What the command line tells a webhook by itself, with no daemon: runs, the hour when days are due, verification."""

import datetime as dt

import pytest

from pipelines.lake.layout import Lake, Partition

TODAY = dt.datetime.now(dt.UTC).date()


@pytest.fixture
def env(webhook, tmp_path):
    """Three projects of the embedded sandbox, of which one has lost its inventory."""
    (tmp_path / "projects.toml").write_text(
        '[alpha]\nproject_id = "a1"\n[beta]\nproject_id = "b1"\ninventory = "lost.csv"\n[gamma]\nproject_id = "c1"\n'
    )
    return {
        "IMAGE_SNAPSHOTS_PROJECTS": "projects.toml",
        "IMAGE_SNAPSHOTS_NOTIFY": webhook.url,
        # Today is due from its first minute on.
        "IMAGE_SNAPSHOTS_DUE_HOUR": "0",
    }


def test_run_tells_who_failed_and_the_hashes_of_the_others(image_snapshots, env, webhook, tmp_path):
    result = image_snapshots("run", env=env)
    assert result.returncode == 2
    told = webhook.taken()
    lake = Lake(str(tmp_path / "lake"))
    (failed,) = told["failed"]["items"]
    assert (failed["project"], failed["date"], failed["step"]) == ("beta", str(TODAY), "image_inventory")
    assert "lost.csv" in failed["reason"]
    assert told["failed"]["text"].startswith(
        f"image-snapshots: 1 run failed (sample data of the sandbox)\n\u2022 beta, {TODAY}: The inventory file "
    )
    assert {item["project"]: item["manifest_sha256"] for item in told["published"]["items"]} == {
        project: lake.manifest(Partition(TODAY, project)).sha256() for project in ("alpha", "gamma")
    }
    assert {item["project"] for item in told["new_findings"]["items"]} == {"alpha", "gamma"}
    assert set(told) == {"failed", "published", "new_findings"}

    # Nothing of it is told again, and what failed is not called missing besides.
    result = image_snapshots("notify", env=env)
    assert (result.returncode, result.stdout) == (0, "Everything is told.\n")
    assert webhook.taken() == {}

    # A webhook that is away neither fails nor delays a run.
    (tmp_path / "lost.csv").write_text("id\n0e1f2a3b-4c5d-6e7f-8091-a2b3c4d5e6f7\n")
    webhook.statuses = [404]
    result = image_snapshots("run", "--project", "beta", env=env)
    assert result.returncode == 0
    assert f"Warning: http://127.0.0.1:{webhook.port} did not take a notification" in result.stderr
    webhook.requests.clear()
    result = image_snapshots("notify", env=env)
    assert result.returncode == 0
    told = webhook.taken()
    assert told["recovered"]["items"] == [{"project": "beta", "date": str(TODAY), "was": "failed", "since": str(TODAY)}]
    assert [item["project"] for item in told["published"]["items"]] == ["beta"]

    # A verification that finds something tells it.
    path = tmp_path / "lake" / "images" / f"dt={TODAY}" / "project=alpha" / "images.parquet"
    path.write_bytes(path.read_bytes() + b"x")
    result = image_snapshots("verify", "--quick", env=env)
    assert result.returncode == 1
    (item,) = webhook.taken()["verify_failed"]["items"]
    assert item["first"][0]["path"] == f"images/dt={TODAY}/project=alpha/images.parquet"


def test_run_that_cannot_begin_is_told_and_so_is_a_day_without_one(image_snapshots, env, webhook):
    result = image_snapshots("run", env={**env, "IMAGE_SNAPSHOTS_SUPPRESSIONS": "gone.toml"})
    assert result.returncode == 2
    told = webhook.taken()
    assert told.keys() == {"failed"}
    assert [(item["project"], item["step"]) for item in told["failed"]["items"]] == [
        (project, None) for project in ("alpha", "beta", "gamma")
    ]
    assert all("gone.toml" in item["reason"] for item in told["failed"]["items"])
    other = {**env, "IMAGE_SNAPSHOTS_LAKE": "other"}
    assert image_snapshots("notify", env=other).returncode == 0
    assert [item["project"] for item in webhook.taken()["missing"]["items"]] == ["alpha", "beta", "gamma"]


def test_notify_without_anybody_to_tell_is_refused(image_snapshots):
    result = image_snapshots("notify")
    assert (result.returncode, result.stderr) == (
        2,
        "Error: There is nobody to tell: set IMAGE_SNAPSHOTS_NOTIFY to the URL of a webhook.\n",
    )
