"""The command `notify`, and what the other commands tell through it when their work is done.

Whatever becomes of a notification, it changes neither the work nor the exit status: what goes wrong is a warning.
"""

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from assets.terminal import COMPLETE, FAILED, open_lake, print_line, print_warning
from pipelines.errors import ConfigurationError
from pipelines.lake.layout import Partition
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.notify.events import Verification


def notify() -> None:
    """Tell the webhooks of IMAGE_SNAPSHOTS_NOTIFY what is new in the lake; for cron, at the hour when days are due.

    A run does this itself at its end. Exit status 1 if a webhook did not take a message; it is sent again next time.
    """
    settings = Settings.load()
    if settings.notify is None:
        raise ConfigurationError("There is nobody to tell: set IMAGE_SNAPSHOTS_NOTIFY to the URL of a webhook.")
    # A wrong setting of the lake is an error of its own.
    open_lake(settings)
    errors = tell_news(settings)
    if not errors:
        print_line("Everything is told.")
    raise typer.Exit(FAILED if errors else COMPLETE)


def tell_news(
    settings: Settings,
    failures: Sequence[tuple[Partition, str | None, str]] = (),
    verification: "Verification | None" = None,
) -> list[str]:
    """Tell what is new, if anybody is to be told, and warn of what was not taken; returns these warnings.

    `failures`: partition, step and sentence of each run that failed.
    """
    if settings.notify is None:
        return []
    # Imported here, because it takes long.
    from pipelines.notify.events import FailedRun
    from pipelines.notify.telling import tell

    runs = [FailedRun(partition, None, step, sentence) for partition, step, sentence in failures]
    errors = tell(settings, dt.datetime.now(dt.UTC), failures=runs, verification=verification)
    for error in errors:
        print_warning(error)
    return errors
