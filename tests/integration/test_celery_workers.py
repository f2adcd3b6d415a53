"""Runs on two Celery workers, one of which is killed (deploy/dagster-workers.yaml), as in docs/scale-out.md."""

from dataclasses import asdict

import pytest
from redis_fixture import RedisServer

from benchmarks.workers import rehearse

PROJECTS, IMAGES, RATE = 3, 150, 30


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_worker_costs_no_response_and_the_shared_limit_holds(postgres, redis_server: RedisServer, tmp_path):
    outcome = rehearse(
        tmp_path,
        postgres.new_database(),
        redis_server.url,
        projects=PROJECTS,
        images=IMAGES,
        rate=RATE,
        poll_seconds=2,
    )
    assert outcome.complete == PROJECTS, asdict(outcome)
    assert outcome.problems == []
    # One run was killed, and one was started instead.
    assert sorted(outcome.runs) == ["FAILURE"] + ["SUCCESS"] * PROJECTS
    assert 0 < outcome.stored < outcome.ids
    assert outcome.asked_again == 0
    assert outcome.taken_over >= outcome.stored
    assert outcome.refused == 0
    # At most those of 100 ms may be caught up (ten requests, and those of 50 ms); the times are rounded.
    assert outcome.left_in_a_second <= 1.1 * RATE + 2
    assert outcome.requests >= PROJECTS * IMAGES
