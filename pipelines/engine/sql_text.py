"""Text and names as SQL writes them, whatever they hold."""


def quoted(text: str) -> str:
    """A string literal."""
    return "'" + text.replace("'", "''") + "'"


def quoted_name(name: str) -> str:
    """The name of a column, table or view."""
    return '"' + name.replace('"', '""') + '"'
