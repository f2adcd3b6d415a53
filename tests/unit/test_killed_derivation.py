"""A derivation killed between any two file operations: `verify` reports no tampering, and the next run repairs it."""

import pytest
from cut_off import was_killed
from proved_days import A, B, C, proved_day, publish_proved

from pipelines.derive.days import derive_days
from pipelines.lake.layout import Lake
from pipelines.maintenance.verify import verify
from pipelines.settings import Settings


@pytest.fixture
def lake(tmp_path):
    publish_proved(proved_day("2025-10-01"), {A: "PUBLIC", B: "PUBLIC"})
    derive_days(proved_day("2025-10-01"))
    publish_proved(proved_day("2025-10-02"), {A: "PUBLIC"})
    derive_days(proved_day("2025-10-02"))
    # The second is derived but outdated; the third is not derived yet.
    publish_proved(proved_day("2025-10-02"), {A: "PUBLIC", B: "PRIVATE"}, hour=13)
    publish_proved(proved_day("2025-10-03"), {A: "PUBLIC", C: "PUBLIC"})
    return Lake("lake")


def sentences(lake):
    found = verify(lake, lake.contents.partitions(), settings=Settings(lake="lake"), is_whole_lake=True)
    return [f"{problem.path}: {problem.sentence}" for problem in found]


@pytest.mark.slow
def test_killed_derivation_is_not_reported_as_tampering_and_is_repaired(lake):
    operations, seen = 0, set()
    while was_killed(operations, lambda: derive_days(proved_day("2025-10-03"))):
        seen.update(sentences(lake))
        operations += 1
    assert operations > 10
    assert [one for one in sorted(seen) if "was changed" in one or "backup" in one or "added" in one] == []
    assert sentences(lake) == []
