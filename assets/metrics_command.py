"""The command `metrics`, and the file of metrics that is written after each run.

A file that cannot be written is a warning after a run, and an error of the command.
"""

import datetime as dt
from pathlib import Path
from typing import Annotated

import typer

from assets.terminal import open_lake, print_line
from pipelines.errors import ConfigurationError, PipelineError
from pipelines.lake.layout import Lake
from pipelines.settings import Settings

SETTING = "IMAGE_SNAPSHOTS_METRICS"


def metrics(
    output: Annotated[Path | None, typer.Option("--output", help="File to write; its name must end in .prom.")] = None,
) -> None:
    """Write the last days as metrics for Prometheus: age, images, outcomes, requests, seconds, bytes, findings.

    Without --output and IMAGE_SNAPSHOTS_METRICS they are printed.
    """
    from pipelines.maintenance.metrics import metrics_text, write_metrics

    settings = Settings.load()
    lake, now = open_lake(settings), dt.datetime.now(dt.UTC)
    if output is not None and output.suffix != ".prom":
        raise ConfigurationError(f"--output {output} must end in .prom, because the collector reads no other files.")
    path, stated = (settings.metrics, SETTING) if output is None else (output, "--output")
    if path is None:
        typer.echo(metrics_text(lake, settings.project_keys, now), nl=False)
    else:
        write_metrics(lake, settings.project_keys, now, path, stated)
        print_line(str(path))


def measure(settings: Settings, lake: Lake) -> list[str]:
    """Write the file that the settings name, if any; returns what went wrong, as sentences."""
    if settings.metrics is None:
        return []
    from pipelines.maintenance.metrics import write_metrics

    try:
        write_metrics(lake, settings.project_keys, dt.datetime.now(dt.UTC), settings.metrics, SETTING)
    except PipelineError as error:
        return [str(error)]
    return []
