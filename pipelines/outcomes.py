"""What became of the question for one image: the vocabulary of answers, tables and reports."""

from enum import StrEnum


class Outcome(StrEnum):
    """What is known about one inventory id after it was asked for."""

    OK = "ok"
    DELETED = "deleted"
    NOT_FOUND = "not_found"
    FORBIDDEN = "forbidden"
    FAILED = "failed"
    INVALID_ID = "invalid_id"
