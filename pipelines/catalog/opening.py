"""Opens the Iceberg catalog that the setting names, and turns the errors of its libraries into one sentence.

PyIceberg is optional: only this room imports it. What is in the tables belongs to `schemas`, loading to `loading`.
"""

import functools
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

import pyarrow as pa

from pipelines.errors import ConfigurationError, EndpointUnreachableError, PartitionBusyError, StorageError
from pipelines.inputs.catalog_places import CatalogPlace, parse_catalog
from pipelines.inputs.secret_urls import parse_secret_url
from pipelines.lake.layout import Lake

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

# A REST catalog that accepts a connection and then says nothing would hold a run for ever.
_REST_SECONDS = 60
# How long the SQLite file of a catalog in a directory is waited for.
_SQLITE_SECONDS = 60
_FILE = "catalog.db"
_LONGEST = 300
# Names of options whose values are secret.
_SECRET = re.compile(r"token|secret|passw|credential|key|auth|header|account|sas", re.IGNORECASE)
# The words of errors that a server refuses a statement or a login with.
_REFUSED = re.compile(r"authentication failed|no password supplied|does not exist|denied|unable to open", re.IGNORECASE)
_KINDS = ("sql", "rest", "glue", "hive", "dynamodb", "bigquery")


@dataclass(frozen=True, slots=True)
class CatalogAccess:
    """How a catalog is reached: its kind, and the options for PyIceberg, which may be secret."""

    place: CatalogPlace
    kind: str
    options: Mapping[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """The name for messages and reports, without any secret."""
        return self.place.directory or f"{self.place.name}.{self.place.namespace}"

    def hide(self, said: str) -> str:
        """A library's message with each secret of the options replaced, in any spelling."""
        secrets = set(_secrets(self.options))
        for secret in sorted(secrets | {quote(secret, safe="") for secret in secrets}, key=len, reverse=True):
            said = said.replace(secret, "***")
        return re.sub(r"://[^/@\s]*@", "://***@", said)


def _secrets(options: Mapping[str, Any], *, all_of_them: bool = False) -> Iterator[str]:
    for name, value in options.items():
        is_secret = all_of_them or _SECRET.search(name) is not None
        if isinstance(value, Mapping):
            yield from _secrets(value, all_of_them=is_secret)
        elif is_secret and value:
            yield str(value)
            # A REST catalog's credential is an id and a secret.
            yield from filter(None, str(value).partition(":")[2:])
        elif name == "uri" and (password := urlsplit(str(value)).password):
            yield from (password, unquote(password))


def catalog_access(setting: str, lake: Lake) -> CatalogAccess:
    """How the catalog of a setting is reached; connects to nothing.

    Raises:
        ConfigurationError: PyIceberg is not installed, its configuration lacks this catalog or is wrong, or the catalog
            would lie inside the lake.
    """
    try:
        place = parse_catalog(setting)
    except ValueError as reason:
        raise ConfigurationError(f"The setting IMAGE_SNAPSHOTS_CATALOG is wrong: it {reason}.") from None
    if place.directory is not None:
        access = CatalogAccess(place, "sql", _options_of_directory(Path(place.directory).absolute()))
    else:
        access = _configured(place)
    check_outside(lake, str(access.options.get("warehouse", "")), access, may_be_above=True)
    if access.kind == "sql" and (file := _sqlite_file(str(access.options.get("uri", "")))):
        check_outside(lake, file, access)
    return access


def _options_of_directory(directory: Path) -> dict[str, str]:
    _import_pyiceberg()
    from sqlalchemy import URL  # noqa: PLC0415  (slow to import)

    file = URL.create("sqlite", database=str(directory / _FILE), query={"timeout": str(_SQLITE_SECONDS)})
    return {"uri": file.render_as_string(), "warehouse": f"file://{directory}"}


def _sqlite_file(uri: str) -> str:
    return unquote(urlsplit(uri).path.removeprefix("/")) if uri.startswith("sqlite") else ""


def _import_pyiceberg() -> None:
    try:
        import pyiceberg.catalog.sql  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(
            "IMAGE_SNAPSHOTS_CATALOG needs the package pyiceberg with sql-sqlite: install image-snapshots with the "
            "extra `iceberg`."
        ) from None
    del pyiceberg


def _configured(place: CatalogPlace) -> CatalogAccess:
    """The catalog of this name in PyIceberg's configuration: `.pyiceberg.yaml`, and variables, which win."""
    _import_pyiceberg()
    from pyiceberg.catalog import infer_catalog_type  # noqa: PLC0415
    from pyiceberg.utils.config import Config  # noqa: PLC0415

    variable = f"PYICEBERG_CATALOG__{place.name.upper()}__"
    try:
        # PyIceberg's own copy was read when it was imported.
        options = Config().get_catalog_config(place.name)
    except (ValueError, OSError, AttributeError):
        options = None
    if not options:
        raise ConfigurationError(
            f"PyIceberg's configuration has no catalog {place.name!r} (setting IMAGE_SNAPSHOTS_CATALOG): set "
            f"{variable}URI, or write it in .pyiceberg.yaml; a directory is written with a slash, as ./{place.name}."
        )
    stated = str(options.get("type") or "").lower()
    if stated and stated not in _KINDS:
        raise ConfigurationError(
            f"The catalog {place.name!r} has a type that is not known: {variable}TYPE must be one of "
            f"{', '.join(_KINDS)}."
        )
    if not stated:
        try:
            inferred = infer_catalog_type(place.name, options)
        except ValueError:
            inferred = None
        if inferred is None:
            raise ConfigurationError(
                f"The kind of the catalog {place.name!r} is not known: set {variable}TYPE to one of "
                f"{', '.join(_KINDS)}, and {variable}URI to its address."
            )
        stated = inferred.value
    if stated in ("rest", "sql", "hive") and not options.get("uri"):
        raise ConfigurationError(f"The catalog {place.name!r} has no address: set {variable}URI.")
    if stated == "rest":
        _check_rest_address(str(options["uri"]), f"{variable}URI")
    return CatalogAccess(place, stated, options)


def _check_rest_address(uri: str, variable: str) -> None:
    try:
        parse_secret_url(uri, "https://catalog.example/path", ("https", "http"))
    except ValueError as reason:
        raise ConfigurationError(f"The address of the REST catalog in {variable} {reason}.") from None


def check_outside(lake: Lake, location: str, access: CatalogAccess, *, may_be_above: bool = False) -> None:
    """Check that neither of a location of the catalog and the lake lies inside the other.

    Whoever cleans up a catalog removes files below its locations, and the lake's files are evidence. Only a root of
    several tables, such as a bucket, `may_be_above` the lake.

    Raises:
        ConfigurationError: one of them does.
    """
    here, there = _parts(location), _parts(lake.root.uri if lake.root.local is None else str(lake.root.local))
    if here[: len(there)] == there or (not may_be_above and there[: len(here)] == here):
        raise ConfigurationError(
            f"The catalog {access.name} would keep files at {location}, and the lake is {lake.root}: neither may lie "
            "inside the other, because maintenance of a catalog removes files, and those of the lake are evidence."
        )


def _parts(location: str) -> tuple[str, ...]:
    """The parts of a location, the kind of storage first; a place that is no path has one part."""
    scheme, separator, rest = location.partition("://")
    if not separator and location.startswith(("/", "file:/")):
        scheme, rest = "file", location.removeprefix("file:")
    if scheme == "file":
        return ("file", *PurePosixPath(os.path.realpath(rest)).parts)
    return ("s3", *PurePosixPath(rest).parts) if scheme in ("s3", "s3a", "s3n") else (location,)


def open_catalog(access: CatalogAccess) -> "Catalog":
    """Connect to the catalog; errors are those of `catalog_errors`, which must be around it."""
    from pyiceberg.catalog import load_catalog  # noqa: PLC0415

    # Its threads share one evaluator of manifests, so several overlook files that are to be replaced.
    os.environ["PYICEBERG_MAX_WORKERS"] = "1"
    if access.place.directory is not None:
        Path(access.place.directory).mkdir(parents=True, exist_ok=True)
    if access.kind != "rest":
        return load_catalog(access.place.name, **{**access.options, "type": access.kind})
    from pyiceberg.catalog.rest import RestCatalog  # noqa: PLC0415
    from requests import Session  # noqa: PLC0415

    class PatientCatalog(RestCatalog):
        """A REST catalog whose requests end."""

        def _config_headers(self, session: Session) -> None:
            super()._config_headers(session)
            session.request = functools.partial(session.request, timeout=_REST_SECONDS)  # type: ignore[method-assign]

    return PatientCatalog(access.place.name, **access.options)


@contextmanager
def catalog_errors(access: CatalogAccess) -> Iterator[None]:
    """Turn the errors of PyIceberg and of the libraries below it into one sentence without secrets.

    Raises:
        ConfigurationError: the catalog refuses the access or an operation, or a package is missing.
        EndpointUnreachableError: it does not answer, or broke off; whether the last commit arrived is not known.
        PartitionBusyError: another program changed the same partition at the same time.
        StorageError: a file of the catalog cannot be written or read.
    """
    from pyiceberg import exceptions  # noqa: PLC0415
    from sqlalchemy.exc import OperationalError  # noqa: PLC0415

    def said(error: BaseException) -> str:
        text = " ".join(access.hide(_innermost(error)).split()) or type(error).__name__
        return text[:_LONGEST].rstrip(".?")

    try:
        yield
    except (exceptions.NotInstalledError, ImportError) as error:
        raise ConfigurationError(
            f"The catalog {access.name} needs a package that is not installed: {said(error)}."
        ) from None
    except (exceptions.CommitFailedException, exceptions.ValidationException) as error:
        raise PartitionBusyError(
            f"Another program changed the same partition of the catalog {access.name} ({said(error)}), so it was left "
            "as it is: load again when that has ended."
        ) from None
    except _no_answers() as error:
        raise _unreachable(access, said(error)) from None
    except OperationalError as error:
        reason = said(error.orig or error)
        if _REFUSED.search(reason):
            raise _refused(access, reason) from None
        raise _unreachable(access, reason) from None
    except _refusals() as error:
        raise _refused(access, said(error)) from None
    except OSError as error:
        raise _unwritable(access, said(error)) from None


def _no_answers() -> tuple[type[Exception], ...]:
    import requests  # noqa: PLC0415
    from pyiceberg import exceptions  # noqa: PLC0415

    return (
        requests.ConnectionError,
        requests.Timeout,
        exceptions.ServiceUnavailableError,
        exceptions.ServerError,
        exceptions.TooManyRequestsError,
        exceptions.CommitStateUnknownException,
        *_raised_by("botocore.exceptions", "ConnectionError", "HTTPClientError"),
        *_raised_by("thrift.transport.TTransport", "TTransportException"),
    )


def _refusals() -> tuple[type[Exception], ...]:
    from pyiceberg import exceptions  # noqa: PLC0415
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    return (
        exceptions.RESTError,
        exceptions.NoSuchTableError,
        exceptions.NoSuchNamespaceError,
        exceptions.NoSuchPropertyException,
        exceptions.SignError,
        exceptions.ResolveError,
        SQLAlchemyError,
        pa.ArrowException,
        # What a server sent is not of the protocol; and an operation that it lacks.
        ValueError,
        NotImplementedError,
        *_raised_by("botocore.exceptions", "ClientError", "BotoCoreError"),
        *_raised_by("thrift.Thrift", "TException"),
    )


def _innermost(error: BaseException) -> str:
    """What the system said if an error is about a connection, else what the error says itself."""
    cause = error
    while (before := cause.__cause__ or cause.__context__) is not None:
        cause = before
    return cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error)


def _raised_by(module: str, *names: str) -> tuple[type[Exception], ...]:
    """Exceptions of a library that only some kinds of catalogs use."""
    loaded = sys.modules.get(module)
    return tuple(getattr(loaded, name) for name in names) if loaded is not None else ()


def _refused(access: CatalogAccess, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"The catalog {access.name} refused: {reason}. Check IMAGE_SNAPSHOTS_CATALOG and PyIceberg's configuration."
    )


def _unreachable(access: CatalogAccess, reason: str) -> EndpointUnreachableError:
    return EndpointUnreachableError(f"The catalog {access.name} does not answer: {reason}. Load again when it is up.")


def _unwritable(access: CatalogAccess, reason: str) -> StorageError:
    return StorageError(f"A file of the catalog {access.name} cannot be written or read: {reason}.")
