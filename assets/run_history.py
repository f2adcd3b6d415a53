"""Dagster's storage of runs, for a run in this process: set up by one process at a time, and done without when broken.

The snapshot is the lake's. What Dagster keeps of runs is for the UI, so nothing that is wrong with it may keep a day
from being taken.
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
"""
# Else two processes for each stream of a step copy what it prints, and Ctrl-C reaches them, too. The terminal has it.
_OVERRIDES = {
    "compute_logs": {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
}


def use_instance_home() -> Path:
    """Make sure that DAGSTER_HOME is set and there: `.dagster` in the working directory unless stated.

    Raises:
        ConfigurationError: it cannot be created or written.
    """
    try:
        home = _home()
    except ValueError as reason:
        raise ConfigurationError(f"The variable DAGSTER_HOME {reason}.") from None
    try:
        home.mkdir(parents=True, exist_ok=True)
        settings = home / "dagster.yaml"
        if not local_files.exists(settings):
            # Whole at once: another first run may read it.
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
    """The same place under a name in which Dagster, which looks its settings up by a pattern, can find none."""
    if not glob.has_magic(str(home)):
        return home
    # Stays there for the processes that this one starts or becomes.
    link = Path(tempfile.gettempdir()) / f"image-snapshots-{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}"
    try:
        if not link.is_symlink():
            link.symlink_to(home)
        if link.readlink() != home or link.lstat().st_uid != os.geteuid():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    except OSError as error:
        raise ConfigurationError(
            f"The path of Dagster's storage {home} holds one of * ? [, which Dagster takes for a pattern, and the link "
            f"{link} in its place cannot be made ({error.strerror}): set DAGSTER_HOME to another directory."
        ) from None
    return link


@contextmanager
def open_run_history(warn: Callable[[str], None]) -> Iterator[dg.DagsterInstance]:
    """Open the storage that DAGSTER_HOME names, or one in memory when that cannot be used, and `warn` why."""
    try:
        instance = _open()
    except Exception as error:  # noqa: BLE001  (whatever is wrong with it, the snapshot is taken)
        warn(why_not_kept(error))
        instance = dg.DagsterInstance.ephemeral()
    with instance:
        yield instance


def _open() -> dg.DagsterInstance:
    home = use_instance_home()
    # Two first runs at once would each set it up, and leave it in a state that no later run can use.
    with locks.held(LocalPath(home / ".setup.lock"), f"Dagster's storage {home}", "a run that opens it", may_wait=True):
        instance = dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home), overrides=_OVERRIDES))
        try:
            # What is there, but not whole, shows when it is asked.
            instance.get_runs(limit=1)
        except Exception:
            instance.dispose()
            raise
    return instance


def why_not_kept(error: Exception) -> str:
    """What to say of a storage that cannot be used; without the error's own words, which may quote a password."""
    if isinstance(error, PipelineError):
        return f"{error} This run is not kept in Dagster's own storage, and does not show in `image-snapshots ui`."
    kind = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return (
        f"Dagster's own storage {_home()} cannot be used ({kind}), so this run is not kept there and does not show in "
        "`image-snapshots ui`: check its dagster.yaml, the variables that this names, and that its database is up. "
        "When it has no other database, remove its directory `history` to begin anew."
    )
