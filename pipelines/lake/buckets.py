"""A bucket of an object store that speaks S3 (OBS, AWS, MinIO, ...): requests by key, and their errors.

Addresses and credentials are those that the S3 tools of all vendors read (`AWS_*`). What a lake does with objects
belongs to `object_storage`, holding something against others to `leases`.
"""

import datetime as dt
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import S3Store

from pipelines.errors import ConfigurationError, StorageError, StorageUnreachableError
from pipelines.inputs.endpoints import SCHEME, check_endpoint
from pipelines.inputs.secret_files import SUFFIX, with_secret_files
from pipelines.lake.object_connection import VARIABLES, connection_options

REQUEST_SECONDS = 30
# How long a request that failed for a moment (503 SlowDown, a reset) is sent again, with growing pauses.
RETRY_SECONDS = 45
_RETRIES = 10

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
# Each may be a file, which only we read, and the option of the library that has its value then.
_SECRETS = {
    "AWS_ACCESS_KEY_ID": "access_key_id",
    "AWS_SECRET_ACCESS_KEY": "secret_access_key",
    "AWS_SESSION_TOKEN": "session_token",
}
_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"non-2xx status code: (\d{3})")


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """What an object store knows of an object, under the names of `os.stat_result`, and its version."""

    st_size: int
    st_mtime: float
    e_tag: str | None


class Bucket:
    """One bucket; made by `open_bucket`.

    Its methods ask nobody: `announce_write` comes before all writes but those of the claims themselves.
    """

    def __init__(self, name: str, endpoint: str | None, secrets: Mapping[str, str]) -> None:
        self.name = name
        # The rest (region, credentials outside of files, virtual-hosted style) is read from the environment.
        address = {"endpoint": endpoint} if endpoint else {}
        self.store = S3Store(
            name,
            **address,  # type: ignore[arg-type]  # the union of all of its options
            **secrets,  # type: ignore[arg-type]
            # Some stores lack it, and some want a checksum with it that others do not know.
            disable_bulk_delete=True,
            client_options={
                # `check_endpoint` has refused http beyond this machine.
                "allow_http": bool(endpoint and endpoint.startswith("http://")),
                "timeout": dt.timedelta(seconds=REQUEST_SECONDS),
                "connect_timeout": dt.timedelta(seconds=REQUEST_SECONDS / 3),
                **connection_options(endpoint),
            },
            retry_config={"max_retries": _RETRIES, "retry_timeout": dt.timedelta(seconds=RETRY_SECONDS)},
        )
        # Each hold in the bucket checks here that it was not lost.
        self.before_write: list[Callable[[], None]] = []
        # Contents of small objects by key and version.
        self.small: dict[tuple[str, str | None], bytes] = {}

    def url(self, key: str) -> str:
        """The address of an object."""
        return f"{SCHEME}{self.name}/{key}".rstrip("/")

    def announce_write(self) -> None:
        """Ask what is held in the bucket whether it may still be written to.

        Raises:
            StorageError: a hold was lost.
        """
        for check in self.before_write:
            check()

    def stat(self, key: str) -> ObjectStat:
        """Size, time and version of an object."""
        with object_errors(self.url(key)):
            return _stat(obstore.head(self.store, key))

    def is_there(self, key: str) -> bool:
        """Whether there is an object of this key."""
        try:
            self.stat(key)
        except FileNotFoundError:
            return False
        return True

    def get(self, key: str) -> bytes:
        """A whole object; for small ones."""
        with object_errors(self.url(key)):
            return bytes(obstore.get(self.store, key).bytes())

    def put(self, key: str, content: bytes) -> None:
        """Put a small object in the place of the one of this key; it appears whole or not at all."""
        with object_errors(self.url(key)):
            obstore.put(self.store, key, content, use_multipart=False)

    def delete(self, keys: Sequence[str], where: str) -> None:
        """Remove objects, if they are there; `where` they are, for the error."""
        with object_errors(self.url(where)):
            obstore.delete(self.store, keys)

    def below(self, key: str) -> Iterator[tuple[str, ObjectStat]]:
        """All objects whose keys are below this one, by key."""
        with object_errors(self.url(key)):
            for page in obstore.list(self.store, key + "/"):
                for found in page:
                    yield found["path"], _stat(found)


def _stat(found: "obstore.ObjectMeta") -> ObjectStat:
    return ObjectStat(found["size"], found["last_modified"].timestamp(), found["e_tag"])


def open_bucket(name: str) -> Bucket:
    """The bucket of this name, at the address and with the credentials that the environment states.

    Raises:
        ConfigurationError: there are no credentials, or they may not be sent to the endpoint; or a file of them is
            unusable.
    """
    in_files = [key for key in _SECRETS if os.environ.get(f"{key}{SUFFIX}", "").strip()]
    env = with_secret_files(os.environ, in_files)
    stated = tuple((key, env[key]) for key in sorted(env) if key.startswith("AWS_") or key in VARIABLES)
    return _open_bucket(name, stated, tuple(in_files))


@cache
def _open_bucket(name: str, stated: tuple[tuple[str, str], ...], in_files: tuple[str, ...]) -> Bucket:
    variables = dict(stated)
    secrets = {_SECRETS[key]: variables[key].strip() for key in in_files}
    if not any(variables.get(key) for key in _CREDENTIALS):
        # Otherwise the library would look for an instance's own credentials, and time out where there are none.
        raise ConfigurationError(
            f"There are no credentials for the lake {SCHEME}{name}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    endpoint = next((key for key in _ENDPOINTS if variables.get(key)), None)
    if endpoint is None:
        return Bucket(name, None, secrets)
    try:
        return Bucket(name, check_endpoint(variables[endpoint], "https://obs.eu-de.otc.t-systems.com"), secrets)
    except ValueError as error:
        raise ConfigurationError(f"The variable {endpoint} is wrong: it {error}.") from None


@contextmanager
def object_errors(where: object) -> Iterator[None]:
    """Turn an error of the object store, or the lack of an answer, into one sentence without anything it sent.

    Raises:
        ConfigurationError: it refuses the credentials, or has no such bucket.
        StorageUnreachableError: it cannot be reached, or is overloaded.
        StorageError: it failed, or an object was replaced while it was read.
        FileNotFoundError: the object does not exist.
    """
    try:
        yield
    except (BaseError, FileNotFoundError) as error:
        raise _sentence(error, where) from None


def _sentence(error: Exception, where: object) -> Exception:
    text = str(error)
    found, status = _CODE.search(text), _STATUS.search(text)
    code = found[1] if found else f"status {status[1]}" if status else None
    if code == "NoSuchBucket":
        return ConfigurationError(f"{where} cannot be used: there is no such bucket. Correct IMAGE_SNAPSHOTS_LAKE.")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(f"{where} does not exist")
    if isinstance(error, PreconditionError):
        return StorageError(f"{where} was replaced while it was read: run again.")
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or (status and status[1] in ("401", "403")):
        return ConfigurationError(
            f"The object store refuses access to {where} ({code or 'no reason given'}): correct AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or what they may do."
        )
    if status and (status[1] in ("429", "503")):
        return StorageUnreachableError(f"The object store is overloaded at {where} ({code}): run again later.")
    if status:
        return StorageError(f"The object store failed at {where} ({code}): run again.")
    return StorageUnreachableError(
        f"The object store cannot be reached at {where}: correct AWS_ENDPOINT_URL, or run again when it can."
    )
