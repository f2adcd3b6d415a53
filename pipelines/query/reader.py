"""Reads the lake for notebooks: each method of `LakeReader` is one question, answered as a frame.

A new question for analysts belongs here. The views that the questions use, and SQL by hand, belong to `views`.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import duckdb
import pandas as pd
import pyarrow as pa

from pipelines.engine.sql_text import quoted
from pipelines.errors import ConfigurationError, StorageError
from pipelines.inputs.environment import at_home
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import holds_sandbox, parse_manifest
from pipelines.query.views import connect_lake, on_days, select, sql_errors
from pipelines.settings import Settings, load_environment
from pipelines.tables import LIST_FIELDS, SEVERITIES

if TYPE_CHECKING:
    import polars as pl

Frame = TypeVar("Frame")
Day = dt.date | str

# Types of columns in pandas; text is `str`, times are `datetime64[us, UTC]`, days `datetime64[ms]`, decimals objects.
_PANDAS_TYPES: dict[pa.DataType, Any] = {
    pa.bool_(): pd.BooleanDtype(),
    **{getattr(pa, name.lower())(): getattr(pd, f"{name}Dtype")() for name in ("Int8", "Int16", "Int32", "Int64")},
    **{getattr(pa, name.lower())(): getattr(pd, f"{name}Dtype")() for name in ("UInt8", "UInt16", "UInt32", "UInt64")},
}

# What a sum of whole numbers is in Arrow.
_SUM = pa.decimal128(38, 0)

# What costs can be added up by.
_COSTS_BY = (
    *("project", "snapshot_date", "owner", "cost_center", "environment"),
    *("namespace", "registry", "type", "id", "name"),
)
_SAME_DAY = "{0}.project = image_days.project AND {0}.charge_date = image_days.snapshot_date AND {0}.id = image_days.id"


@dataclass(frozen=True)
class ResponseProof:
    """What the API sent for an image on a day, and what proves it.

    `body` is byte for byte what came, or None; `body_sha256` is its hash, as the table `responses` has it. `manifest`
    is the published manifest of the day, and `manifest_sha256` the hash of its file, which the project's next manifest
    states as its `previous`.
    """

    project: str
    day: dt.date
    image_id: str
    outcome: str
    http_status: int | None
    observed_at: dt.datetime
    body: bytes | None = field(repr=False)
    body_sha256: str | None
    manifest: dict[str, Any] = field(repr=False)
    manifest_sha256: str


def open_lake(place: str | Path | None = None, *, include_incomplete: bool = False) -> "LakeReader[pd.DataFrame]":
    """Open a lake for reading; nothing is read before the first question.

    `place` is a directory or an address such as `s3://bucket/lake`; None: the setting IMAGE_SNAPSHOTS_LAKE.
    Incomplete days are left out unless `include_incomplete`.

        lake = open_lake()
        lake.images(as_of="2026-11-01")

    Raises:
        ConfigurationError: a setting is wrong, or the place cannot be opened.
    """
    if place is None:
        root = Settings.load().lake
    else:
        # The access to an object store may be stated in `.env`.
        load_environment()
        root = at_home(str(place))
    if "\0" in root:
        raise ConfigurationError(f"The path of the lake has a null byte: {root!r}.")
    return LakeReader(Lake(root), _to_pandas, include_incomplete=include_incomplete)


class LakeReader(Generic[Frame]):
    """Questions to a lake, each answered as one frame; made by `open_lake`, read-only, closed by `close` or `with`.

    Frames are pandas frames: text is `str`, times are `datetime64[us, UTC]`, days `datetime64[ms]`, whole numbers and
    booleans the nullable `Int64` and `boolean`, decimals `decimal.Decimal`. The columns are those of the data
    dictionary, with the project's key as `project`. `attrs` of a frame says what it rests on: `lake`, `is_sandbox`
    (the images are invented), `includes_incomplete`, and `incomplete_days`, the incomplete days of the lake as
    `project day`, which it leaves out or, with `includes_incomplete`, may include. `arrow()` and `polars()` answer the
    same questions as other frames.

    A reader sees the days that the lake has when it is first asked. All methods raise ConfigurationError, with one
    sentence, if nothing is published in the lake, if it may not be read, or if an argument is wrong; and StorageError
    if a file is damaged or the storage fails.
    """

    def __init__(self, lake: Lake, convert: Callable[[pa.Table], Frame], *, include_incomplete: bool) -> None:
        self._lake = lake
        self._convert = convert
        self._include_incomplete = include_incomplete

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<reader of the lake {self._lake.root}>"

    def close(self) -> None:
        """Close the connection; a later question opens another one, which sees the lake's days of then."""
        if connection := self.__dict__.pop("_connection", None):
            connection.close()
        for known in ("_facts", "_published"):
            self.__dict__.pop(known, None)

    def arrow(self) -> "LakeReader[pa.Table]":
        """The same lake, with Arrow tables for frames."""
        return LakeReader(self._lake, lambda table: table, include_incomplete=self._include_incomplete)

    def polars(self) -> "LakeReader[pl.DataFrame]":
        """The same lake, with Polars frames.

        Raises:
            ConfigurationError: the package polars is not installed.
        """
        try:
            import polars as pl  # noqa: PLC0415  (not one of our packages)
        except ImportError:
            raise ConfigurationError("Polars frames need the package polars: install it with pip.") from None

        def to_polars(table: pa.Table) -> pl.DataFrame:
            return pl.DataFrame(table)

        return LakeReader(self._lake, to_polars, include_incomplete=self._include_incomplete)

    def days(self) -> Frame:
        """The published days, incomplete ones too, as the view `days` has them; one row per project and day."""
        return self._frame("SELECT * FROM days ORDER BY project, snapshot_date", of_all_days=True)

    def images(self, as_of: Day | None = None, *, project: str | None = None, explode: str | None = None) -> Frame:
        """The living images on a day, or on each project's last complete day; one row per image.

        They rest on complete days alone, even for a reader that includes incomplete ones: `rests_on` is the complete
        day. Columns are those of `image_history`, then `owner`, `cost_center` and `environment` on that day.
        `explode` names a list field, such as `dev_services`: one row per element, and one without an element for an
        image that has none.

        Raises:
            ConfigurationError: no complete day covers `as_of`, or `explode` is not a list field.
        """
        if explode is not None and explode not in LIST_FIELDS:
            raise ConfigurationError(f"explode={explode!r} is not a list field: use one of {', '.join(LIST_FIELDS)}.")
        of_project = "NULL" if (key := self._known(project)) is None else quoted(key)
        days = "SELECT project, MAX(snapshot_date) AS snapshot_date FROM history_days"
        if as_of is None:
            living = (
                "SELECT image_history.*, rests_on FROM image_history INNER JOIN "  # noqa: S608
                "(SELECT project, MAX(snapshot_date) AS rests_on FROM history_days GROUP BY project) USING (project) "
                f"WHERE valid_to IS NULL AND NOT is_deleted AND ({of_project} IS NULL OR project = {of_project})"
            )
        else:
            until = quoted(str(_day(as_of, "as_of")))
            living = f"FROM images_as_of({until}, {of_project})"
            days = f"{days} WHERE snapshot_date <= DATE {until}"
        elements = ""
        if explode is not None:
            # An element that holds the separator itself is divided, too; `image_values` has the elements as sent.
            split = f"string_split(NULLIF(living.{explode}, ''), '|')"
            elements = f" REPLACE (UNNEST(COALESCE({split}, [NULL])) AS {explode})"
        costs = on_days("image_costs", self._days(f"{days} GROUP BY project", project))
        return self._frame(
            f"SELECT living.*{elements}, costs.owner, costs.cost_center, costs.environment FROM ({living}) AS living "  # noqa: S608
            f"LEFT JOIN ({costs}) AS costs "
            "ON costs.project = living.project AND costs.snapshot_date = living.rests_on "
            "AND costs.id = living.id ORDER BY living.project, living.id"
        )

    def changes(self, since: Day | None = None, until: Day | None = None, *, project: str | None = None) -> Frame:
        """What changed from one complete day to the next, both days included; one row per changed field of an image."""
        rows = self._days_of("image_changes", since, until, project)
        return self._frame(f"{rows} ORDER BY snapshot_date, project, id, field")

    def findings(self, severity: str | Collection[str] | None = None, *, project: str | None = None) -> Frame:
        """The open findings of each project's last day, with the advice of their rules, without suppressed ones.

        Raises:
            ConfigurationError: there is no such severity.
        """
        wanted = _names(severity, SEVERITIES, "severity") if severity is not None else list(SEVERITIES)
        order = ", ".join(map(quoted, SEVERITIES))
        rows = on_days("open_findings", self._days("FROM latest_days", project))
        return self._frame(
            f"SELECT * FROM ({rows}) WHERE severity IN (SELECT UNNEST($wanted)) "  # noqa: S608
            f"ORDER BY LIST_POSITION([{order}], severity), days_open DESC, rule, project, id",
            {"wanted": wanted},
        )

    def costs(
        self,
        by: str | Collection[str] = ("owner",),
        since: Day | None = None,
        until: Day | None = None,
        *,
        project: str | None = None,
    ) -> Frame:
        """Estimated and billed costs of the days of a period, added up; one row per group and currency.

        `by`: columns of `image_costs`, or `project`. Columns: those, `currency`, `image_days` (an image on a day),
        `image_days_without_estimate` (of unknown size or price, not in the sum), `estimated_cost` (float), and from the
        newest bill of each of these days: `image_days_without_bill`, `billed_cost`, and of that the registry's lines,
        which the estimate compares with, as `billed_registry_cost` (decimals, null where no bill is known). What a bill
        has that belongs to no image is in the view `billed_images`. A bill in another currency than the estimate has
        rows of its own, without image days.

        Raises:
            ConfigurationError: costs cannot be added up by such a column.
        """
        groups = _names(by, _COSTS_BY, "by")
        names, of_days = ", ".join(groups), ", ".join(f"image_days.{name}" for name in groups)
        rows = self._days_of("image_costs", since, until, project)
        return self._frame(
            f"WITH image_days AS ({rows}), "  # noqa: S608
            "bills AS (SELECT * FROM billed_images WHERE allocation = 'image'), "
            "billed AS (SELECT DISTINCT project, charge_date, id FROM bills), "
            f"amounts AS (SELECT {of_days}, image_days.currency, 1 AS image_days, estimated_cost, "
            "estimated_cost IS NULL AS lacks_estimate, billed.id IS NULL AS lacks_bill, "
            "NULL AS billed_cost, NULL AS billed_registry_cost FROM image_days "
            f"LEFT JOIN billed ON {_SAME_DAY.format('billed')} "
            f"UNION ALL SELECT {of_days}, bills.currency, 0, NULL, FALSE, FALSE, "
            "bills.billed_cost, bills.billed_registry_cost FROM image_days "
            f"INNER JOIN bills ON {_SAME_DAY.format('bills')}) "
            f"SELECT {names}, currency, CAST(SUM(image_days) AS BIGINT) AS image_days, "
            "COUNT(*) FILTER (WHERE lacks_estimate) AS image_days_without_estimate, "
            "SUM(estimated_cost) AS estimated_cost, "
            "COUNT(*) FILTER (WHERE lacks_bill) AS image_days_without_bill, "
            "CAST(SUM(billed_cost) AS DECIMAL(28, 12)) AS billed_cost, "
            "CAST(SUM(billed_registry_cost) AS DECIMAL(28, 12)) AS billed_registry_cost "
            f"FROM amounts GROUP BY {names}, currency ORDER BY currency, estimated_cost DESC NULLS LAST, {names}"
        )

    def usage(self, *, project: str | None = None) -> Frame:
        """Who uses each image on each project's last day, as far as was looked; one row per image."""
        return self._last_day("image_usage", project)

    def storage(self, *, project: str | None = None) -> Frame:
        """What the registry stores for each image on each project's last day, by layers; one row per image.

        Bytes are null where they are not known, which `state` says; no row if the registry was not read.
        """
        return self._last_day("image_storage", project)

    def history(self, image_id: str, *, project: str | None = None) -> Frame:
        """Every version of an image, oldest first; no row if it was never seen."""
        return self._frame(
            "SELECT * FROM image_history WHERE id = $id AND ($project IS NULL OR project = $project) "
            "ORDER BY project, valid_from",
            {"id": _id(image_id), "project": self._known(project)},
        )

    def evidence(self, image_id: str, day: Day, *, project: str | None = None) -> ResponseProof:
        """The exact response for an image on a published day, complete or not, with what proves it.

        Raises:
            ConfigurationError: no response for the image is stored for that day, or several projects have one.
        """
        id_, date = _id(image_id), _day(day, "day")
        rows = self._table(
            "SELECT project, outcome, http_status, observed_at, body, body_sha256 FROM responses "
            "WHERE snapshot_date = $day AND id = $id AND ($project IS NULL OR project = $project) ORDER BY project",
            {"day": date, "id": id_, "project": self._known(project)},
        ).to_pylist()
        if not rows:
            of_project = f" of the project {project}" if project else ""
            raise ConfigurationError(
                f"No response for the image {id_!r} is stored for {date}{of_project}: days() lists the published days."
            )
        if len(rows) > 1:
            keys = ", ".join(row["project"] for row in rows)
            raise ConfigurationError(f"Several projects have a response for {id_!r} on {date}: name one of {keys}.")
        (row,) = rows
        path = self._lake.manifest(Partition(date, row["project"]))
        manifest = path.read_whole()
        parse_manifest(manifest, path)
        return ResponseProof(
            day=date,
            image_id=id_,
            manifest=json.loads(manifest),
            manifest_sha256=hashlib.sha256(manifest).hexdigest(),
            **row,
        )

    def sql(self, query: str, /, **parameters: Any) -> Frame:
        """The rows of one read-only SQL statement on the tables and views of the lake; `$name` stands for a parameter.

        Tables have all days, incomplete ones too; `latest_days` and the views made of it have those of the reader.

        Raises:
            ConfigurationError: the statement is wrong, or does more than read.
        """
        return self._frame(_text(query, "SQL"), parameters, of_all_days=True)

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        return connect_lake(self._lake, include_incomplete=self._include_incomplete)

    @cached_property
    def _published(self) -> list[tuple[str, dt.date, bool]]:
        """The project, date and completeness of each published day, in order."""
        connection = self._connection
        try:
            return connection.sql("SELECT project, snapshot_date, is_complete FROM days ORDER BY ALL").fetchall()
        except duckdb.Error as error:
            raise StorageError(
                "A manifest of the lake may be damaged: `image-snapshots verify --quick` says which."
            ) from error

    @cached_property
    def _facts(self) -> dict[str, Any]:
        """What `attrs` of a frame says."""
        return {
            "lake": str(self._lake.root),
            "is_sandbox": holds_sandbox(self._lake),
            "includes_incomplete": self._include_incomplete,
            "incomplete_days": [f"{project} {date}" for project, date, complete in self._published if not complete],
        }

    def _known(self, project: str | None) -> str | None:
        """A project's key, or None for all.

        Raises:
            ConfigurationError: the lake has no day of it.
        """
        known = sorted({key for key, _, _ in self._published})
        if project is not None and _text(project, "project") not in known:
            raise ConfigurationError(f"project={project!r} has no days in the lake: use {', '.join(known)}.")
        return project

    def _days_of(self, table: str, since: Day | None, until: Day | None, project: str | None) -> str:
        """SQL for the rows of a table in a period."""
        rows = f"SELECT {table}.* FROM {table} INNER JOIN days USING (project, snapshot_date)"  # noqa: S608
        conditions = ["TRUE"] if self._include_incomplete else ["is_complete"]
        # A comparison of the column with a constant lets the engine skip the files of other days unopened.
        first = _day(since, "since") if since is not None else None
        last = _day(until, "until") if until is not None else None
        if first is not None and last is not None and last < first:
            raise ConfigurationError(f"until={last} is before since={first}: exchange them.")
        if first is not None:
            conditions.append(f"{table}.snapshot_date >= DATE {quoted(str(first))}")
        if last is not None:
            conditions.append(f"{table}.snapshot_date <= DATE {quoted(str(last))}")
        if (key := self._known(project)) is not None:
            conditions.append(f"{table}.project = {quoted(key)}")
        return f"{rows} WHERE {' AND '.join(conditions)}"

    def _last_day(self, table: str, project: str | None) -> Frame:
        rows = on_days(table, self._days("FROM latest_days", project))
        return self._frame(f"SELECT * FROM ({rows}) ORDER BY project, id")  # noqa: S608

    def _days(self, query: str, project: str | None) -> list[Partition]:
        """The days (project, snapshot_date) that a query returns, of one project or of all."""
        key = self._known(project)
        return [
            Partition(row["snapshot_date"], row["project"])
            for row in self._table(query, {}).to_pylist()
            # A project without a history has no day there.
            if row["snapshot_date"] is not None and key in (None, row["project"])
        ]

    def _frame(self, query: str, parameters: dict[str, Any] | None = None, *, of_all_days: bool = False) -> Frame:
        frame = self._convert(self._table(query, parameters or {}))
        if isinstance(frame, pd.DataFrame):
            frame.attrs.update(self._facts)
            frame.attrs["includes_incomplete"] |= of_all_days
        return frame

    def _table(self, query: str, parameters: dict[str, Any]) -> pa.Table:
        rows = select(self._connection, query, parameters)
        with sql_errors():
            table = rows.to_arrow_table()
        # The engine adds up whole numbers in 128 bits, which would come out as decimals.
        for position, column in enumerate(table.schema):
            if column.type == _SUM:
                with suppress(pa.ArrowInvalid):  # a number that does not fit stays a decimal
                    table = table.set_column(position, column.name, table.column(position).cast(pa.int64()))
        return table


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas(types_mapper=_PANDAS_TYPES.get, date_as_object=False)
    return frame


def _day(value: Day, name: str) -> dt.date:
    try:
        return dt.date.fromisoformat(value) if isinstance(value, str) else dt.date(value.year, value.month, value.day)
    except (ValueError, AttributeError, TypeError):
        raise ConfigurationError(f"{name}={value!r} is not a day: write it as YYYY-MM-DD.") from None


def _id(stated: str) -> str:
    return _text(stated, "The id of an image").strip().lower()


def _text(stated: object, what: str) -> str:
    if not isinstance(stated, str):
        raise ConfigurationError(f"{what} is text, not {type(stated).__name__}.")
    return stated


def _names(stated: str | Collection[str], known: Collection[str], argument: str) -> list[str]:
    names = list(stated) if isinstance(stated, Collection) and not isinstance(stated, str) else [stated]
    for name in names:
        if name not in known:
            raise ConfigurationError(f"{argument}={name!r} is not known: use {', '.join(known)}.")
    if not names:
        raise ConfigurationError(f"{argument} is empty: use {', '.join(known)}.")
    return names
