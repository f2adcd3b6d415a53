"""Opens Dagster's run storage for a run in this process; if it is broken, the run continues without it.

Snapshots are in the lake; Dagster's storage serves only the UI, so its faults must not prevent a snapshot. One process
at a time sets it up.
"""

import errno
import glob
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.instance.ref import InstanceRef

from pipelines.errors import ConfigurationError, PipelineError
from pipelines.inputs import local_files
from pipelines.inputs.environment import at_home
from pipelines.lake import locks
from pipelines.lake.local_storage import LocalPath

_SETTINGS = """\
# Dagster's own storage for runs started here. For production see deploy/dagster.yaml.
telemetry:
  enabled: false
nux:
  enabled: false
# A backfill of rebuild_images takes a project's days one after the other.
concurrency:
  runs:
    tag_concurrency_limits:
      - key: image_snapshots/in_order
        value:
          applyLimitPerUniqueValue: true
        limit: 1
"""
# Otherwise two processes copy each step's output, and Ctrl-C reaches them, too. The terminal shows the output anyway.
_OVERRIDES = {
    "compute_logs": {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
}


def use_instance_home() -> Path:
    """Make sure that DAGSTER_HOME is set and exists; the default is `.dagster` in the working directory.

    Raises:
        ConfigurationError: the directory cannot be created or written.
    """
    try:
        home = _home()
    except ValueError as reason:
        raise ConfigurationError(f"The variable DAGSTER_HOME {reason}.") from None
    try:
        home.mkdir(parents=True, exist_ok=True)
        settings = home / "dagster.yaml"
        if not local_files.exists(settings):
            # Write it atomically: another first run may read it.
            part = settings.with_name(f".{settings.name}.{os.getpid()}.part")
            part.write_text(_SETTINGS)
            part.replace(settings)
    except OSError as error:
        raise ConfigurationError(
            f"Dagster's storage {home} cannot be written ({error.strerror}): set DAGSTER_HOME to a directory that "
            "this user may write."
        ) from None
    home = _without_pattern(home)
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def _home() -> Path:
    return Path(at_home(os.environ.get("DAGSTER_HOME") or ".dagster")).absolute()


def _without_pattern(home: Path) -> Path:
    """The same place under a name without wildcards, because Dagster finds its settings by a pattern."""
    if not glob.has_magic(str(home)):
        return home
    # The link stays for the processes that this one starts or becomes.
    link = Path(tempfile.gettempdir()) / f"image-snapshots-{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}"
    try:
        if not link.is_symlink():
            link.symlink_to(home)
        if link.readlink() != home or link.lstat().st_uid != os.geteuid():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    except OSError as error:
        raise ConfigurationError(
            f"The path of Dagster's storage {home} holds one of * ? [, which Dagster reads as a pattern, and the link "
            f"{link} cannot be made instead ({error.strerror}): set DAGSTER_HOME to another directory."
        ) from None
    return link


@contextmanager
def open_run_history(warn: Callable[[str], None]) -> Iterator[dg.DagsterInstance]:
    """Open the storage that DAGSTER_HOME names; if that fails, `warn` with the reason and use one in memory."""
    try:
        instance = _open()
    except Exception as error:  # noqa: BLE001  (whatever is wrong with it, the snapshot is taken)
        warn(why_not_kept(error))
        instance = dg.DagsterInstance.ephemeral()
    with instance:
        yield instance


def _open() -> dg.DagsterInstance:
    home = use_instance_home()
    # Two first runs at once would both set it up, and leave it unusable for later runs.
    with locks.held(LocalPath(home / ".setup.lock"), f"Dagster's storage {home}", "a run that opens it", may_wait=True):
        instance = dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home), overrides=_OVERRIDES))
        try:
            # A damaged storage shows only when it is read.
            instance.get_runs(limit=1)
        except Exception:
            instance.dispose()
            raise
    return instance


def why_not_kept(error: Exception) -> str:
    """The warning for an unusable storage; without the error's own text, which may quote a password."""
    if isinstance(error, PipelineError):
        return f"{error} This run is not kept in Dagster's own storage, and does not appear in `image-snapshots ui`."
    kind = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return (
        f"Dagster's own storage {_home()} cannot be used ({kind}), so this run is not kept and does not appear in "
        "`image-snapshots ui`: check its dagster.yaml, the variables named there, and that its database is up. "
        "If it has no other database, remove its directory `history` to start again."
    )
