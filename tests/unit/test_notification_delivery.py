"""Webhooks that are slow, away or not to be trusted, a lake that cannot be written, and many messages at once."""

import asyncio
import datetime as dt
import ssl
import threading
import time

import pytest
import trustme
from scripted_server import http, serving
from teller import DAY, NIGHT, Teller, cloud, failed_run
from virtual_clock import by_virtual_clock
from webhook_server import webhook_server

from pipelines.lake.failures import Failure, note_failure
from pipelines.lake.layout import Partition
from pipelines.notify.delivery import DeliveryError, deliver, receivers
from pipelines.notify.events import Verification
from pipelines.notify.messages import harmless
from pipelines.settings import Settings


async def refusal(server, **options):
    """The sentence of a delivery that fails."""
    (receiver,) = receivers([f"{server.url}/hooks/secret-hook-4711"])
    with pytest.raises(DeliveryError) as caught:
        await deliver(receiver, b"{}", **options)
    return str(caught.value).removeprefix(f"{server.url} did not take a notification: ")


@by_virtual_clock
async def test_server_that_sends_byte_after_byte_is_given_up_in_time():
    async def trickle(request, writer):
        for byte in http(200):
            writer.write(bytes([byte]))
            await asyncio.sleep(9)

    async with serving(trickle) as server:
        began = time.monotonic()
        assert await refusal(server) == "no complete response came in time."
        assert len(server.requests) == 3
    # Three tries of ten seconds, and the pauses between them.
    assert time.monotonic() - began == pytest.approx(35, abs=0.1)


async def test_body_without_an_end_is_not_read():
    async def endless(request, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x" * 65_536)
            await writer.drain()

    async with serving(endless) as server:
        (receiver,) = receivers([server.url])
        await deliver(receiver, b"{}")


async def test_certificate_that_is_not_trusted_is_named_and_tried_once(tmp_path):
    authority, theirs, bundle = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tmp_path / "ca.pem"
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    authority.cert_pem.write_to_path(str(bundle))

    async def take(request, writer):
        writer.write(http(200))

    async with serving(take, theirs) as server:
        why = "its certificate is not trusted: name the authority to trust in IMAGE_SNAPSHOTS_CA_BUNDLE."
        assert await refusal(server) == why
        assert server.connections <= 1
        (receiver,) = receivers([server.url])
        await deliver(receiver, b"{}", bundle)
        gone = tmp_path / "gone.pem"
        why = await refusal(server, ca_bundle=gone)
        assert why.startswith(f"The certificate authorities in {gone} cannot be read: ")


def test_failure_is_told_though_the_lake_cannot_be_written(webhook):
    teller = Teller(webhook.url, **cloud())
    teller.publish()
    (teller.lake.root.local / "_notifications").write_text("no directory")
    problem = ("images/a.parquet", "The file is missing.")
    (error,) = teller.tell(NIGHT, failures=[failed_run()], verification=Verification([problem], True, False))
    assert error.startswith("Only what this process did was told: The lake cannot be used: ")
    told = webhook.taken()
    assert told.keys() == {"failed", "verify_failed"}
    assert told["failed"]["items"][0]["reason"] == "host cannot be reached."


def test_failure_is_told_though_there_is_no_such_lake(webhook):
    settings = Settings(notify=webhook.url, lake="s3://", projects={"beta": "p1"})
    teller = Teller(webhook.url, **cloud())
    teller.settings = settings
    (error,) = teller.tell(NIGHT, failures=[failed_run()])
    assert error.startswith("Only what this process did was told: ")
    assert webhook.taken().keys() == {"failed"}


@pytest.mark.parametrize("kind", ["url", "workflow_url"])
def test_every_manifest_is_told_however_many_days_are_published(webhook, kind):
    projects = {f"p{number:02}": "p1" for number in range(60)}
    teller = Teller(getattr(webhook, kind), **cloud(projects=projects))
    digests = {teller.publish(project) for project in projects}
    assert teller.tell(NIGHT) == []
    assert {item["manifest_sha256"] for body in webhook.bodies for item in body["items"]} == digests
    for body in webhook.bodies:
        assert (body["event"], body["total"]) == ("published", len(body["items"]))
        assert all(item["manifest_sha256"] in body["text"] for item in body["items"])
    assert sum(body["total"] for body in webhook.bodies) == 60
    webhook.requests.clear()
    assert teller.tell(NIGHT) == []
    assert webhook.requests == []


def test_step_that_is_tried_again_has_not_failed_yet(webhook):
    teller = Teller(webhook.url, **cloud())
    note = Failure(at=NIGHT, run_id="run-3", step="image_responses", sentence="It cannot be reached.")
    partition = Partition(DAY, "beta")
    note_failure(teller.lake, partition, note.model_copy(update={"is_tried_again": True}))
    teller.tell(NIGHT)
    assert webhook.taken() == {}
    note_failure(teller.lake, partition, note)
    teller.tell(NIGHT)
    assert webhook.taken().keys() == {"failed"}


def test_recovery_names_the_first_day_of_the_trouble(webhook):
    teller = Teller(webhook.url, **cloud())
    for back in (3, 2, 1):
        date = DAY - dt.timedelta(days=back)
        teller.tell(NIGHT - dt.timedelta(days=back), failures=[failed_run(date=date)])
    teller.publish("beta")
    webhook.requests.clear()
    teller.tell(NIGHT)
    (item,) = webhook.taken()["recovered"]["items"]
    assert item == {"project": "beta", "date": "2026-11-23", "was": "failed", "since": "2026-11-20"}

    problems = Verification([("images/a.parquet", "The file is missing.")], True, False)
    for back in (14, 7):
        teller.tell(NIGHT - dt.timedelta(days=back), verification=problems)
    webhook.requests.clear()
    teller.tell(NIGHT, verification=Verification([], True, False))
    assert webhook.taken()["recovered"]["items"] == [{"was": "verify_failed", "since": "2026-11-09"}]


def test_past_day_tried_in_vain_is_no_trouble_of_a_project_that_is_well(webhook):
    teller = Teller(webhook.url, **cloud())
    teller.publish("beta")
    teller.tell(NIGHT)
    webhook.requests.clear()
    teller.tell(NIGHT, failures=[failed_run(date=DAY - dt.timedelta(days=3))])
    assert webhook.taken().keys() == {"failed"}


def test_verification_without_witnesses_is_no_recovery_from_one_with_them(webhook):
    teller = Teller(webhook.url, **cloud())
    lost = ("_manifests", "No record has the noted SHA-256 0.")
    teller.tell(NIGHT, verification=Verification([lost], True, False, is_witnessed=True))
    webhook.requests.clear()
    teller.tell(NIGHT, verification=Verification([], True, False))
    assert webhook.taken() == {}
    teller.tell(NIGHT, verification=Verification([], True, False, is_witnessed=True))
    assert webhook.taken().keys() == {"recovered"}


def test_day_that_is_incomplete_again_is_told_again(webhook):
    teller = Teller(webhook.url, **cloud())
    for minutes, failed in enumerate((1, 0, 1, 0)):
        teller.publish(failed=failed)
        teller.tell(NIGHT + dt.timedelta(minutes=minutes))
        assert webhook.taken().keys() == {"incomplete" if failed else "recovered", "published"}


def test_receiver_that_hangs_delays_no_other(webhook):
    with webhook_server() as other:
        # It answers when the other was told.
        webhook.answers_after = other.asked
        teller = Teller(f"{webhook.url} {other.url}", **cloud())
        teller.publish()
        assert teller.tell(NIGHT) == []
        assert len(other.requests) == len(webhook.requests) == 1


def test_what_waited_for_a_wrong_host_is_sent_to_the_corrected_one_alone(webhook):
    with webhook_server() as other:
        teller = Teller(f"{other.url} http://127.0.0.1:1/hooks/x", **cloud())
        digest = teller.publish()
        assert len(teller.tell(NIGHT)) == 1
        other.requests.clear()
        teller.settings = Teller(f"{other.url} {webhook.url}", **cloud()).settings
        assert teller.tell(NIGHT) == []
        assert other.requests == []
    assert webhook.taken()["published"]["items"][0]["manifest_sha256"] == digest
    assert teller.tell(NIGHT) == []
    assert webhook.requests == []


def test_receiver_that_never_answers_holds_nobody_for_long(webhook):
    webhook.answers_after = threading.Event()
    teller = Teller(webhook.url, **cloud())
    digest = teller.publish()
    where = f"http://127.0.0.1:{webhook.port}"
    assert teller.tell(NIGHT, most_seconds=0.1) == [f"{where} did not take all notifications within 0.1 seconds."]
    webhook.answers_after.set()
    webhook.requests.clear()
    assert teller.tell(NIGHT) == []
    assert webhook.taken()["published"]["items"][0]["manifest_sha256"] == digest


def test_emphasis_and_hashtags_of_names_are_plain_and_paths_stay_as_they_are():
    assert harmless("_a_ my_image_2 __b__ #tag") == "\u02cda\u02cd my_image_2 \u02cd\u02cdb\u02cd\u02cd \uff03tag"
    assert harmless("lake/_locks/dt=1/project=a_b: _staging") == "lake/_locks/dt=1/project=a_b: _staging"
