"""The run that takes a snapshot: its options, and the checks that keep a wrong run out of a lake."""

import contextlib
import datetime as dt
import os
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.cloud.credentials import PasswordLogin
from pipelines.cloud.discovery import regional
from pipelines.errors import ConfigurationError
from pipelines.inputs.credential_variables import stated_credentials
from pipelines.inputs.endpoints import is_on_loopback
from pipelines.inputs.projects import Project
from pipelines.lake.clock import check_clock
from pipelines.lake.layout import Partition
from pipelines.lake.manifests import Attempt, Manifest, newest_manifests, parse_manifest
from pipelines.lake.storage import LakePath
from pipelines.run import Run, utc_now
from pipelines.settings import Settings
from pipelines.snapshot.connection import Connection, connect, project_credentials, project_environment


@dataclass(frozen=True, slots=True)
class SnapshotRun(Run):
    """A run that takes a snapshot, or rebuilds one.

    `is_played`: the clock is set to a day that the sandbox plays, so the wall clock gives the time of publication. The
    operator states the next three. `is_fresh`: responses of an open attempt do not count. `accepts_shrunk`: an
    inventory that has shrunk is right. `is_moved`: the project has another id or endpoint than on the days before.
    `connect` opens a connection to the endpoint; steps of one run may share it.
    """

    is_played: bool = False
    is_fresh: bool = False
    accepts_shrunk: bool = False
    is_moved: bool = False
    connect: Callable[[Settings, Partition], contextlib.AbstractContextManager[Connection]] = connect

    def staged(self, name: str) -> LakePath:
        """The file of a table in the open attempt."""
        return self.lake.staging(self.partition) / f"{name}.parquet"

    def check_date(self, attempt: Attempt | None) -> None:
        """Refuse to fetch for any day but today, because the API cannot say what existed on another day.

        Raises:
            ConfigurationError: the day has not begun, or it is over and no run that began on it may still continue.
        """
        now, date = self.now(), self.partition.date
        if date == now.date():
            return
        if date > now.date():
            raise ConfigurationError(
                f"{date} has not begun (UTC now: {now:%Y-%m-%d %H:%M}): run without a date for today."
            )
        late = dt.timedelta(hours=self.settings.late_fetch_hours)
        end = dt.datetime.combine(date + dt.timedelta(days=1), dt.time(), dt.UTC)
        began_on_its_day = attempt is not None and attempt.started_at.date() == date
        if began_on_its_day and now < end + late:
            return
        raise ConfigurationError(
            f"{date} is over, and the API cannot say what existed then: nothing was fetched. Run without a date for "
            "today; `image-snapshots rebuild` derives an old day again from the responses stored on that day."
        )

    @property
    def observed_by(self) -> Callable[[], dt.datetime]:
        """The clock that sets `observed_at`: the wall clock, or the set clock on a day that the sandbox plays."""
        return self.now if self.is_played else utc_now

    def publication_time(self) -> dt.datetime:
        """The time of publication for a manifest that is written now."""
        return utc_now() if self.is_played else self.now()

    def check_clock(self) -> None:
        """Refuse to publish if the clock is behind the lake.

        Raises:
            ConfigurationError: the clock is behind; the message names both times.
        """
        check_clock(self.lake, self.partition.project, self.publication_time())

    def check_source(self) -> None:
        """Refuse a run that would take invented images for real ones, as far as is known before any request.

        Raises:
            ConfigurationError: cloud credentials are set without an endpoint and without a region; or the lake holds
                days of a cloud and this run would add days of the sandbox, or the other way round.
        """
        endpoint = self.settings.endpoint
        if self.settings.derives_endpoint:
            key = self.partition.project
            project = (self.settings.projects or {}).get(key, Project())
            names = ", ".join(stated_credentials(project_environment(project, os.environ)))
            if project.cloud is not None:
                names = f"`cloud` of project {key!r} in the projects file"
            if not names:
                raise ConfigurationError(
                    f"Project {key!r} states `region` in the projects file, and there are no credentials for it: state "
                    "`cloud` there, or set OS_ACCESS_KEY and OS_SECRET_KEY, or other credentials."
                )
            stated = f"Credentials of a cloud are stated ({names}) and no endpoint"
            try:
                credentials = project_credentials(key, project, os.environ)
            except ConfigurationError as error:
                if project.cloud is not None or project.region is not None:
                    # It says that a cloud is meant.
                    raise
                raise ConfigurationError(
                    f"{stated}, and they cannot be used: {str(error).removesuffix('.')}; or set "
                    "IMAGE_SNAPSHOTS_ENDPOINT to `sandbox` where the sandbox is meant."
                ) from None
            if isinstance(credentials, PasswordLogin):
                # The catalogue of its token may name any endpoint.
                return
            found = regional(credentials)
            if found is None:
                raise ConfigurationError(
                    f"{stated} and no region, so invented images of the sandbox would be taken: set OS_REGION_NAME "
                    "(region_name in clouds.yaml, `region` in the projects file), or IMAGE_SNAPSHOTS_ENDPOINT "
                    "(`endpoint` in the projects file) to the cloud's ModelArts endpoint, or to `sandbox` where the "
                    "sandbox is meant."
                )
            endpoint = found.url
        # A server on this machine may be a sandbox, too. Its responses say so before anything is published.
        if self.settings.uses_sandbox or not is_on_loopback(endpoint or ""):
            self.check_kind(is_sandbox=self.settings.uses_sandbox)

    def check_kind(self, *, is_sandbox: bool) -> None:
        """Refuse a day of the sandbox in a lake with days of a cloud, and the other way round.

        Raises:
            ConfigurationError: a project's days are of the other kind.
        """
        for last in newest_manifests(self.lake):
            if last.fetch.is_sandbox and not is_sandbox:
                raise ConfigurationError(
                    f"The lake {self.lake.root} holds days of the sandbox (project {last.project}), which would pass "
                    "for real ones: set IMAGE_SNAPSHOTS_LAKE to another directory, or remove this one."
                )
            if is_sandbox and not last.fetch.is_sandbox:
                raise ConfigurationError(
                    f"The lake {self.lake.root} holds days of {last.fetch.endpoint_host} (project {last.project}), and "
                    "these would be invented ones of the sandbox: set IMAGE_SNAPSHOTS_ENDPOINT, or "
                    "IMAGE_SNAPSHOTS_LAKE to another directory for the sandbox's days."
                )

    def check_project(self, project_id: str, host: str) -> None:
        """Refuse to mix the images of two projects: those of the first would then count as removed.

        Raises:
            ConfigurationError: the project's last day has another project id or endpoint, and the operator did not
                state that the project moved.
        """
        last = self._last_published()
        if last is None or self.is_moved:
            return
        before = last.fetch
        # The embedded sandbox uses another port each time.
        same_host = before.endpoint_host.lower() == host.lower() or (before.is_sandbox and self.settings.uses_sandbox)
        if before.project_id == project_id and same_host:
            return
        raise ConfigurationError(
            f"The days of project {self.partition.project!r} in {self.lake.root} are those of the project id "
            f"{before.project_id} at {before.endpoint_host} (the last is {last.snapshot_date}), and this run would ask "
            f"for the project id {project_id} at {host}, so nothing was asked or written: correct the endpoint, "
            "IMAGE_SNAPSHOTS_PROJECTS or the credentials, give the other project a key of its own in "
            "IMAGE_SNAPSHOTS_PROJECTS, or, if this project has moved, say so once with `image-snapshots run "
            "--project-moved`."
        )

    def _last_published(self) -> Manifest | None:
        contents = self.lake.contents.manifests(self.partition.project)
        if not contents:
            return None
        last = max(contents)
        return parse_manifest(contents[last], self.lake.manifest(last))
