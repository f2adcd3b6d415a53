"""The last failure of each partition, kept in its staging, so that the lake alone shows why a day is missing.

A note is for the operator and proves nothing. A note that cannot be written or removed does not change how a run ends.
"""

import logging

from pydantic import AwareDatetime

from pipelines.errors import PipelineError
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.records import Facts, read_record, write_record

_logger = logging.getLogger(__name__)


class Failure(Facts):
    """Why a run of a partition ended; `step` is the one that failed, None when the run did not get that far.

    `is_tried_again`: the run has not ended, but tries the step again in some minutes.
    """

    at: AwareDatetime
    run_id: str
    step: str | None
    sentence: str
    is_tried_again: bool = False


def note_failure(lake: Lake, partition: Partition, failure: Failure) -> None:
    """Keep a failure in the place of the one before it; the partition must be held."""
    path = lake.failure(partition)
    try:
        write_record(path, failure)
    except PipelineError as error:
        # The failure itself is reported, and a full disk is often its reason.
        _logger.debug("The failure of %s was not noted: %s", partition, error)


def last_failures(lake: Lake) -> dict[Partition, Failure]:
    """The noted failures, by partition; any other file is left out.

    Raises:
        StorageError: the storage failed.
    """
    found = {}
    for partition, path in lake.contents.failures().items():
        if (failure := read_record(Failure, path)) is not None:
            found[partition] = failure
    return found


def forget_failure(lake: Lake, partition: Partition, step: str, *, of_all_days: bool) -> None:
    """Drop the note that a step failed, once it succeeded; `of_all_days`: that mends the project's other days, too."""
    try:
        for noted, path in lake.contents.failures().items():
            is_due = noted == partition or (of_all_days and noted.project == partition.project)
            if is_due and (failure := read_record(Failure, path)) is not None and failure.step == step:
                lake.remove(path)
    except PipelineError as error:
        # The step has done its work; the next read or write there reports what is wrong.
        _logger.debug("The failure of %s was not forgotten: %s", partition, error)
