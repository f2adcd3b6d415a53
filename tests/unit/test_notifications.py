"""Notifications as a real server on loopback receives them: what is told, when, once, and to whom."""

import datetime as dt
import json
import re
import subprocess
import sys

import pytest
from published_days import PROJECT_ID, rows_of, write_history
from teller import DAY, IDS, NIGHT, NOON, Teller, cloud, failed_run
from webhook_server import webhook_server

from pipelines.errors import ConfigurationError
from pipelines.lake.derived_manifests import DerivedManifest, DerivedSummary, Inputs
from pipelines.lake.failures import Failure, forget_failure, note_failure
from pipelines.lake.layout import Partition
from pipelines.lake.manifests import file_facts
from pipelines.lake.records import write_record
from pipelines.maintenance.verify import verify
from pipelines.notify.delivery import receivers
from pipelines.notify.events import FailedRun, Verification
from pipelines.notify.messages import harmless
from pipelines.notify.told import Event, read_told
from pipelines.settings import ROOT, Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.tables import AUDIT_FINDINGS

MORROW = NOON + dt.timedelta(days=1)


@pytest.fixture
def teller(webhook):
    return Teller(webhook.url, **cloud())


def test_publication_carries_the_hash_of_the_manifest_and_is_told_once(teller, webhook):
    digest = teller.publish()
    assert teller.tell(NIGHT) == []
    ((target, headers, raw),) = webhook.requests
    assert target == "/hooks/secret-hook-4711"
    assert headers["Content-Type"] == "application/json"
    assert json.loads(raw) == {
        "text": f"image-snapshots: 1 day is published\n\u2022 alpha, 2026-11-23: complete, manifest {digest}",
        "event": "published",
        "format": 1,
        "sent_at": "2026-11-23T03:00:00+00:00",
        "lake": str(teller.lake.root),
        "is_sandbox": False,
        "total": 1,
        "items": [
            {
                "project": "alpha",
                "date": "2026-11-23",
                "is_complete": True,
                "outcomes": {"ok": 2},
                "published_at": "2026-11-23T12:00:00+00:00",
                "manifest_sha256": digest,
            }
        ],
    }
    webhook.requests.clear()
    assert teller.tell(NIGHT) == []
    assert webhook.requests == []


def test_failures_are_told_together_and_recovery_once_each_is_complete(teller, webhook):
    failures = [failed_run("alpha"), failed_run("beta", "The user may not log in.")]
    teller.tell(NIGHT, failures=failures)
    told = webhook.taken()
    assert told.keys() == {"failed"}
    assert told["failed"]["text"] == (
        "image-snapshots: 2 runs failed\n\u2022 alpha, 2026-11-23: host cannot be reached.\n"
        "\u2022 beta, 2026-11-23: The user may not log in."
    )
    assert told["failed"]["items"][1] == {
        "project": "beta",
        "date": "2026-11-23",
        "job": None,
        "run_id": "run-9",
        "step": "image_responses",
        "reason": "The user may not log in.",
    }
    # The same again is not news; another reason is.
    teller.tell(NIGHT, failures=failures)
    assert webhook.taken() == {}
    teller.tell(NIGHT, failures=[failed_run("beta", "No space left.")])
    assert [item["reason"] for item in webhook.taken()["failed"]["items"]] == ["No space left."]
    # When the days are due nobody hears again of a day whose failure was told.
    teller.tell(NOON)
    assert webhook.taken() == {}
    teller.publish("beta")
    teller.tell(NOON)
    told = webhook.taken()
    assert told.keys() == {"recovered", "published"}
    assert told["recovered"]["items"] == [
        {"project": "beta", "date": "2026-11-23", "was": "failed", "since": "2026-11-23"}
    ]
    teller.publish("alpha", DAY + dt.timedelta(days=1))
    teller.tell(MORROW.replace(hour=3))
    told = webhook.taken()
    assert told["recovered"]["items"] == [
        {"project": "alpha", "date": "2026-11-24", "was": "failed", "since": "2026-11-23"}
    ]
    # Should it fail again with the same words, that is news.
    teller.tell(MORROW.replace(hour=3), failures=[failed_run("beta", "No space left.", DAY + dt.timedelta(days=1))])
    assert webhook.taken().keys() == {"failed"}


def test_noted_failure_is_told_once_with_the_run_that_noted_it(teller, webhook):
    partition = Partition(DAY, "beta")
    note = Failure(at=NOON, run_id="run-3", step="derive_tables", sentence="It was not derived.")
    note_failure(teller.lake, partition, note)
    teller.publish("beta")
    teller.tell(failures=[failed_run("beta", "It was not derived.")])
    told = webhook.taken()
    assert [(item["run_id"], item["step"]) for item in told["failed"]["items"]] == [("run-3", "derive_tables")]
    # The day is complete, but not what follows from it.
    teller.tell()
    assert webhook.taken().keys() <= {"missing"}
    forget_failure(teller.lake, partition, "derive_tables", of_all_days=True)
    teller.tell()
    assert webhook.taken()["recovered"]["items"][0]["was"] == "failed"


def test_failed_job_of_no_partition_is_told_by_its_name(teller, webhook):
    teller.tell(NIGHT, failures=[FailedRun(None, "run-5", None, "The disk is full.", "compact_months 2026-10|a")])
    (item,) = webhook.taken()["failed"]["items"]
    assert item == {"job": "compact_months 2026-10|a", "run_id": "run-5", "step": None, "reason": "The disk is full."}


def test_incomplete_day_is_told_once_and_its_repair_is_a_recovery(teller, webhook):
    teller.publish(failed=1)
    teller.tell(NIGHT)
    told = webhook.taken()
    assert told["incomplete"]["items"] == [
        {"project": "alpha", "date": "2026-11-23", "run_id": "run-1", "images": 2, "failed": 1}
    ]
    assert told["published"]["items"][0]["is_complete"] is False
    teller.tell(NIGHT)
    assert webhook.taken() == {}
    teller.publish()
    teller.tell(NIGHT)
    told = webhook.taken()
    assert told.keys() == {"recovered", "published"}
    assert told["recovered"]["items"][0]["was"] == "incomplete"


def test_day_that_was_never_begun_is_told_when_it_is_due(teller, webhook):
    teller.publish("alpha", DAY - dt.timedelta(days=1))
    teller.publish("beta")
    teller.tell(NIGHT)
    assert webhook.taken().keys() == {"published"}
    teller.tell(NOON)
    told = webhook.taken()
    assert told["missing"]["items"] == [{"project": "alpha", "date": "2026-11-23", "state": "missing"}]
    assert told["missing"]["text"] == (
        "image-snapshots: 1 day is missing\n\u2022 alpha, 2026-11-23: no run has published this day, and none said why."
    )
    teller.tell(NOON)
    assert webhook.taken() == {}
    # After a pause, each day since is named.
    for project in ("alpha", "beta"):
        write_history(SnapshotRun(Partition(DAY, project), "run-1", teller.settings), [])
    teller.tell(MORROW + dt.timedelta(days=1))
    assert sorted((item["project"], item["date"]) for item in webhook.taken()["missing"]["items"]) == [
        (project, date) for project in ("alpha", "beta") for date in ("2026-11-24", "2026-11-25")
    ]


def write_findings(teller, rows, project="alpha", date=DAY):
    """The findings of a day, with the derived manifest that names them."""
    partition = Partition(date, project)
    path = teller.lake.table(AUDIT_FINDINGS.name, partition)
    defaults = {"rule": "named", "severity": "high", "title": "Named badly", "state": "new", "days_open": 0}
    data = rows_of(
        AUDIT_FINDINGS,
        rows,
        snapshot_date=date,
        project_id=PROJECT_ID,
        first_seen=date,
        evidence="{}",
        **defaults,
    )
    with teller.lake.writer(path, AUDIT_FINDINGS, "run-1") as writer:
        writer.write(data)
    file = file_facts(teller.lake, path, AUDIT_FINDINGS.name, partition)
    zeros = dict.fromkeys(DerivedSummary.model_fields, 0)
    summary = DerivedSummary(**zeros | {
        "is_complete": True, "compared_with": None, "changes": {}, "findings": {}, "rule_errors": {}, "currency": "EUR",
        "is_priced": False, "registry": None, "billed_date": None, "billed_currency": None,
    })  # fmt: skip
    inputs = Inputs(
        audit_rules="", suppressions=None, allowed_namespaces=None, price_book="", tag_keys="", handed_on={}
    )
    write_record(
        teller.lake.derived_manifest(partition),
        DerivedManifest(
            snapshot_date=date, project=project, run_id="run-1", derived_at=NOON, code_version="1", schema_version=1,
            basis="b", manifest_sha256="m", inputs=inputs, files={AUDIT_FINDINGS.name: file}, history=file,
            summary=summary, previous_record_sha256=None,
        ),
    )  # fmt: skip


def finding(number, severity="high", **values):
    return {"finding_id": f"f{number}", "id": IDS[0], "name": f"image-{number}", "severity": severity, **values}


def test_findings_are_told_by_severity_and_each_id_once_in_its_life(teller, webhook):
    teller.publish()
    write_findings(
        teller,
        [
            finding(1),
            finding(2, "critical", state="open"),
            finding(3, "medium"),
            finding(4, state="resolved"),
            finding(5, suppressed_until=DAY),
        ],
    )
    teller.tell(NIGHT)
    told = webhook.taken()["new_findings"]
    (item,) = told["items"]
    assert item["by_severity"] == {"critical": 1, "high": 1}
    assert item["findings"] == 2
    assert item["first"][0] == {
        "finding_id": "f2",
        "rule": "named",
        "severity": "critical",
        "title": "Named badly",
        "id": IDS[0],
        "name": "image-2",
        "owner": None,
    }
    assert told["text"] == (
        "image-snapshots: new audit findings in 1 project\n\u2022 alpha, 2026-11-23: 1 critical, 1 high: "
        "Named badly: image-2; Named badly: image-1"
    )
    # Derived again, and found again after it was resolved: no news. The suppression is over: that is news.
    write_findings(teller, [finding(1, first_seen=DAY - dt.timedelta(days=1)), finding(2)])
    teller.tell(NIGHT)
    assert webhook.taken() == {}
    morrow = DAY + dt.timedelta(days=1)
    teller.publish(date=morrow)
    write_findings(teller, [finding(1), finding(5, state="open")], date=morrow)
    teller.tell(MORROW)
    (item,) = webhook.taken()["new_findings"]["items"]
    assert [row["finding_id"] for row in item["first"]] == ["f5"]


def test_many_findings_are_counted_and_the_gravest_named(webhook):
    teller = Teller(webhook.url, **cloud(notify_severity="info"))
    teller.publish()
    write_findings(teller, [finding(number, "info" if number else "critical") for number in range(3_000)])
    teller.tell(NIGHT)
    (item,) = webhook.taken()["new_findings"]["items"]
    assert (item["findings"], len(item["first"]), item["first"][0]["severity"]) == (3_000, 20, "critical")


def test_verification_that_fails_and_then_passes_is_told_once_each(teller, webhook):
    teller.publish()
    path = teller.lake.table("images", Partition(DAY, "alpha"))
    content = path.read_bytes()
    path.write_whole(content + b"x")

    def check(**what):
        problems = verify(teller.lake, [Partition(DAY, "alpha")], quick=True, is_whole_lake=True)
        found = [(problem.path, problem.sentence) for problem in problems]
        return Verification(found, **{"is_whole_lake": True, "is_quick": False} | what)

    teller.tell(NIGHT, verification=check())
    told = webhook.taken()["verify_failed"]
    assert told["items"][0]["first"][0]["path"] == "images/dt=2026-11-23/project=alpha/images.parquet"
    assert told["items"][0]["first"][0]["problem"].startswith("The file was changed: ")
    teller.tell(NIGHT, verification=check())
    assert webhook.taken() == {}
    path.write_whole(content)
    # These looked at less, so they do not prove that it is over.
    teller.tell(NIGHT, verification=check(is_quick=True))
    teller.tell(NIGHT, verification=check(is_whole_lake=False))
    assert webhook.taken() == {}
    teller.tell(NIGHT, verification=check())
    assert webhook.taken()["recovered"]["items"] == [{"was": "verify_failed", "since": "2026-11-23"}]
    # The record of what was told is known to `verify` and proves nothing.
    assert teller.lake.told().is_there()
    assert check().problems == []


def test_two_processes_tell_each_event_once(teller, webhook):
    for project in ("alpha", "beta"):
        teller.publish(project)
    code = (
        "import datetime as dt; from pipelines.settings import Settings; from pipelines.notify.telling import tell\n"
        f"print(tell(Settings.load(), dt.datetime.fromisoformat('{NIGHT.isoformat()}')))"
    )
    env = {"IMAGE_SNAPSHOTS_NOTIFY": webhook.url, "IMAGE_SNAPSHOTS_LAKE": "lake", "PYTHONPATH": str(ROOT)}
    env |= {
        "IMAGE_SNAPSHOTS_PROJECTS": '{"alpha": "p1", "beta": "p1"}',
        "IMAGE_SNAPSHOTS_ENDPOINT": "https://modelarts.example",
        "PATH": "/usr/bin:/bin",
    }
    processes = [
        subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [process.communicate()[0] for process in processes] == ["[]\n", "[]\n"]
    told = [(body["event"], item["project"]) for body in webhook.bodies for item in body["items"]]
    assert sorted(told) == [("published", "alpha"), ("published", "beta")]


def test_receiver_that_is_away_is_told_later_and_the_others_at_once(webhook):
    with webhook_server() as other:
        away = other.port
    teller = Teller(f"{webhook.url} http://127.0.0.1:{away}/hooks/other-4712", **cloud())
    digest = teller.publish()
    (error,) = teller.tell(NIGHT)
    assert error == (
        f"http://127.0.0.1:{away} did not take a notification: it cannot be reached: the connection was refused."
    )
    assert teller.pauses == [1.0, 4.0]
    assert webhook.taken().keys() == {"published"}
    with webhook_server(away) as other:
        assert teller.tell(NIGHT) == []
        assert other.bodies[0]["items"][0]["manifest_sha256"] == digest
    assert webhook.requests == []
    assert read_told(teller.lake).waiting == {}


def test_what_a_receiver_never_takes_does_not_wait_for_ever(teller, webhook):
    webhook.statuses = [404] * 9
    teller.publish()
    assert len(teller.tell(NIGHT)) == 1
    assert len(read_told(teller.lake).waiting) == 1
    teller.tell(NIGHT + dt.timedelta(days=8))
    (items,) = read_told(teller.lake).waiting.values()
    assert {item.event for item in items} == {"missing"}


@pytest.mark.parametrize(
    ("statuses", "tries", "is_taken", "pauses"),
    [
        ([500, 502], 3, True, [1.0, 4.0]),
        ([429], 2, True, [7.0]),
        ([503, 503, 503], 3, False, [7.0, 7.0]),
        ([404], 1, False, []),
        ([302], 1, False, []),
    ],
)
def test_delivery_is_tried_again_when_that_may_help(teller, webhook, statuses, tries, is_taken, pauses):
    last = statuses[-1]
    webhook.statuses = list(statuses)
    webhook.headers = {"Retry-After": "7"} if last in (429, 503) else {}
    teller.publish()
    errors = teller.tell(NIGHT)
    assert (len(webhook.requests), teller.pauses) == (tries, pauses)
    where = f"http://127.0.0.1:{webhook.port}"
    expected = [] if is_taken else [f"{where} did not take a notification: it answered with status {last}."]
    assert errors == expected


def test_workflow_of_teams_gets_cards_at_its_exact_url(webhook):
    teller = Teller(webhook.workflow_url, **cloud())
    digest = teller.publish()
    teller.tell(NIGHT)
    ((target, _, _),) = webhook.requests
    assert f"http://127.0.0.1:{webhook.port}{target}" == webhook.workflow_url
    (body,) = webhook.bodies
    (attachment,) = body["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    for card in (body, attachment["content"]):
        assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
        assert [block["text"] for block in card["body"]] == body["text"].split("\n")
        assert {block["type"] for block in card["body"]} == {"TextBlock"}
    assert body["items"][0]["manifest_sha256"] == digest


def test_body_has_no_field_that_a_chat_system_would_obey(teller, webhook):
    teller.tell(NIGHT, failures=[failed_run()])
    (body,) = webhook.bodies
    # Slack and Mattermost take these for the author, the place or the form of a message.
    obeyed = {"type", "channel", "username", "icon_url", "icon_emoji", "attachments", "blocks", "props", "priority"}
    assert obeyed.isdisjoint(body)


HOSTILE = "\x1b[31m<!channel> @here <@U1> [click](https://evil.example) ![x](http://e/x) *b* `c` \u202e\n& www.evil"


def test_others_text_is_neutral_for_people_and_exact_for_machines(teller, webhook):
    teller.publish()
    write_findings(teller, [finding(1, name=HOSTILE)])
    teller.tell(NIGHT)
    body = webhook.taken()["new_findings"]
    assert body["items"][0]["first"][0]["name"] == HOSTILE
    line = body["text"].split("\n", 1)[1]
    assert line == (
        "\u2022 alpha, 2026-11-23: 1 high: Named badly: \\x1b\uff3b31m\u2039!channel\u203a \uff20here "
        "\u2039\uff20U1\u203a \uff3bclick\uff3d(https:/\u2215evil.example) !\uff3bx\uff3d(http:/\u2215e/x) "
        "\u2217b\u2217 \u02cbc\u02cb \\u202e\\n& www\u2024evil"
    )


def test_reason_with_bytes_that_are_not_text_is_escaped(teller, webhook):
    teller.tell(NIGHT, failures=[failed_run("beta", "file \udc80\x1b")])
    assert webhook.bodies[0]["items"][0]["reason"] == "file \\udc80\\x1b"


def test_message_stays_small_however_much_fails(webhook):
    for url, most in ((webhook.url, 45_000), (webhook.workflow_url, 28_000)):
        teller = Teller(url, **cloud(lake=f"lake{most}"))
        failures = [failed_run(f"p{number:04}", f"{number} " + "x" * 2_000) for number in range(300)]
        teller.tell(NIGHT, failures=failures)
        (_, _, raw), body = webhook.requests[-1], webhook.bodies[-1]
        assert len(raw) < most
        assert body["total"] == 300
        assert body["text"].endswith("more")
        assert harmless("x" * 301) == "x" * 299 + "\u2026"


def test_secrets_of_the_url_are_neither_recorded_nor_shown(webhook, capsys):
    url = f"http://user-4713:pass-4714@127.0.0.1:{webhook.port}/hooks/path-4715?sig=query-4716"
    webhook.statuses = [400, 400]
    teller = Teller(f"{url} {url}", **cloud())
    teller.publish()
    errors = teller.tell(NIGHT)
    assert set(errors) == {
        f"http://127.0.0.1:{webhook.port}{number} did not take a notification: it answered with status 400."
        for number in ("", " (2)")
    }
    assert webhook.requests[0][1]["Authorization"] == "Basic dXNlci00NzEzOnBhc3MtNDcxNA=="
    written = b"".join(path.read_bytes() for path in teller.lake.root.all_files())
    shown = f"{errors} {teller.settings!r} {receivers([url])!r} {capsys.readouterr()}".encode()
    for secret in (b"user-4713", b"pass-4714", b"path-4715", b"query-4716"):
        assert secret not in written + shown
    assert [receiver.name for receiver in receivers([url, url])] == [
        f"http://127.0.0.1:{webhook.port}",
        f"http://127.0.0.1:{webhook.port} (2)",
    ]


def test_sample_data_is_called_so(webhook):
    teller = Teller(webhook.url)
    teller.tell(NIGHT, failures=[failed_run()])
    (body,) = webhook.bodies
    assert body["is_sandbox"] is True
    assert body["text"].startswith("image-snapshots: 1 run failed (sample data of the sandbox)\n")


def test_damaged_record_counts_as_none(teller, webhook):
    teller.publish()
    teller.tell(NIGHT)
    webhook.requests.clear()
    teller.lake.told().write_whole(b"{")
    assert teller.tell(NIGHT) == []
    assert webhook.taken().keys() == {"published"}


def test_damaged_manifest_does_not_hide_the_other_projects(teller, webhook):
    teller.publish("alpha")
    teller.publish("beta")
    teller.lake.manifest(Partition(DAY, "alpha")).write_whole(b"{")
    assert teller.tell() == []
    told = webhook.taken()
    assert [item["project"] for item in told["published"]["items"]] == ["beta"]
    assert told["missing"]["items"] == [{"project": "alpha", "date": "2026-11-23", "state": "damaged"}]


def test_nobody_to_tell_writes_nothing(tmp_path):
    teller = Teller(None)
    assert teller.tell(failures=[failed_run()]) == []
    assert not (tmp_path / "lake").exists()


def test_lake_that_cannot_be_written_is_a_warning(teller, webhook):
    teller.publish()
    (teller.lake.root.local / "_notifications").write_text("no directory")
    (error,) = teller.tell(NIGHT)
    assert error.startswith("Nothing was told: The lake cannot be used: ")


@pytest.mark.parametrize("value", ["https://a.example/x,https://b.example/y", "ftp://a.example", "hooks", "https://"])
def test_wrong_list_of_webhooks_is_refused_unquoted(monkeypatch, value):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_NOTIFY", f"https://good.example/h {value}")
    with pytest.raises(ConfigurationError, match=r"^The setting IMAGE_SNAPSHOTS_NOTIFY is wrong: ") as e:
        Settings.load()
    assert value not in str(e.value).replace("https://chat.example/hooks/...", "")


def test_documented_messages_have_the_fields_that_are_sent(teller, webhook):
    page = (ROOT / "docs" / "notifications.md").read_text()
    assert all(f"| `{event}` |" in page for event in Event)
    examples = [json.loads(found) for found in re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL)]
    documented = {tuple(sorted(example)) for example in examples}
    shown = next(example for example in examples if "items" in example)
    documented.add(tuple(sorted(shown["items"][0])))
    teller.tell(NIGHT, failures=[failed_run("beta")])
    teller.publish("beta", failed=1)
    teller.publish("alpha", DAY - dt.timedelta(days=1))
    write_findings(teller, [finding(1)], "beta")
    teller.tell(verification=Verification([("images/a.parquet", "The file is missing.")], True, False))
    teller.publish("beta")
    teller.tell()
    assert {body["event"] for body in webhook.bodies} == set(Event)
    for body in webhook.bodies:
        assert tuple(sorted(body)) in documented
        assert {tuple(sorted(item)) for item in body["items"]} <= documented, body["event"]
    first = {tuple(example["first"][0]) for example in examples if "first" in example}
    assert first == {tuple(row) for body in webhook.bodies for item in body["items"] for row in item.get("first", ())}
