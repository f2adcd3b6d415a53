"""What every audit rule must be, whatever engine applies it.

The process that applies rules imports this, so nothing but the standard library belongs here.
"""

ONE_SELECT = "The file must hold one SELECT statement and nothing else."
# Counts rows without an id and ids that come more than once, of the relation `matches`.
COUNT_IDS = (
    "SELECT COUNT(*) - COUNT(id) AS nulls, COUNT(id) - COUNT(DISTINCT LOWER(CAST(id AS VARCHAR))) AS repeated, "
    "MODE(LOWER(CAST(id AS VARCHAR))) AS most_frequent FROM matches"
)


class RuleError(Exception):
    """A rule cannot be applied; the message is the sentence that `audit_rules` shows."""


def check_columns(columns: list[str]) -> None:
    """Refuse a SELECT whose columns are not an id and what shows why the image is found.

    Raises:
        RuleError: says what is wrong.
    """
    if columns[0].lower() != "id":
        raise RuleError(f"The first column must be called id, not {columns[0]}.")
    if len(columns) == 1:
        raise RuleError("The SELECT returns id alone: add at least one column that shows why the image is found.")


def check_ids(nulls: int, repeated: int, most_frequent: str | None) -> None:
    """Refuse rows without an id, and images that come more than once.

    Raises:
        RuleError: says what is wrong.
    """
    if nulls:
        raise RuleError("The SELECT returns a row whose id is null.")
    if repeated:
        raise RuleError(
            f"The SELECT returns an image more than once, such as {most_frequent}: return one row for each."
        )


def failed(reason: str) -> RuleError:
    """The error of a rule of which the engine says why it fails, in a line without a full stop."""
    return RuleError(f"The SQL fails: {reason}.")
