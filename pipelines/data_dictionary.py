"""Writes the data dictionary as Markdown, from `tables`.

`python -m pipelines.data_dictionary > docs/data-dictionary.md` updates the page.
"""

import sys

from pipelines.tables import ANALYSIS_TABLES, KNOWN_VALUES, SCHEMA_VERSION, TABLES, Table

_ORIGINS = {
    "key": "identifies the row",
    "inventory": "stated by the inventory",
    "api": "sent by the API, under its own name",
    "derived": "computed from other columns",
    "provenance": "how the row came to be",
}


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _links(tables: dict[str, Table]) -> str:
    return ", ".join(f"[`{name}`](#{name})" for name in tables)


def _section(table: Table) -> list[str]:
    return [
        f"## `{table.name}`",
        "",
        f"{table.meaning} Identified by {', '.join(f'`{name}`' for name in table.key)}.",
        "",
        "| column | type | null | origin | meaning |",
        "|---|---|---|---|---|",
        *(
            f"| `{c.name}` | {c.type} | {'no' if c.required else 'yes'} | {c.origin} | {_cell(c.meaning)} |"
            for c in table.columns
        ),
        "",
    ]


def markdown() -> str:
    """The whole page."""
    lines = [
        "# Data dictionary",
        "",
        "Made from `pipelines/tables/`; do not edit by hand.",
        "",
        f"Schema version {SCHEMA_VERSION}. A table is `<lake>/<table>/dt=<day>/project=<key>/<table>.parquet`;",
        "the directory keys `dt` and `project` are not columns of the files. New columns are added at the end.",
        "",
        "Named in the day's manifest: " + _links(TABLES) + ".",
        "Derived from the published tables of several days, and derivable again at any time: "
        + _links(ANALYSIS_TABLES)
        + ";",
        "`image_history` is one file per project, `<lake>/image_history/project=<key>/image_history.parquet`.",
        "",
        "Origins: " + "; ".join(f"*{name}*: {meaning}" for name, meaning in _ORIGINS.items()) + ".",
        "",
    ]
    for table in (*TABLES.values(), *ANALYSIS_TABLES.values()):
        lines += _section(table)
    lines += [
        "## Known values",
        "",
        "The API's enumerations are open: other values are kept as sent and named in `anomalies`. Letter case varies.",
        "",
        "| field | values |",
        "|---|---|",
        *(f"| `{field}` | {', '.join(sorted(values))} |" for field, values in KNOWN_VALUES.items()),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(markdown())
