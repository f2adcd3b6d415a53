"""Text and names as SQL writes them, whatever they hold."""

# Functions that run a statement which they are given as text: what it does does not show in the statement around it.
# The engine refuses writing in the text of its other such function, `query`.
RUNNING_TEXT = frozenset({"json_execute_serialized_sql"})


def quoted(text: str) -> str:
    """A string literal."""
    return "'" + text.replace("'", "''") + "'"


def quoted_name(name: str) -> str:
    """The name of a column, table or view."""
    return '"' + name.replace('"', '""') + '"'
