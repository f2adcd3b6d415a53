"""The partitions that all assets share: day (UTC, the date of capture) x project."""

import datetime as dt

import dagster as dg

from pipelines.lake.layout import Partition
from pipelines.settings import Settings

DATE, PROJECT = "date", "project"


def partition_grid(settings: Settings) -> dg.MultiPartitionsDefinition:
    """The partitions of all assets; the current day is the last."""
    days = dg.DailyPartitionsDefinition(start_date=settings.first_day.isoformat(), timezone="UTC", end_offset=1)
    return dg.MultiPartitionsDefinition({DATE: days, PROJECT: dg.StaticPartitionsDefinition(settings.project_keys)})


def partition_key(partition: Partition) -> dg.MultiPartitionKey:
    """Dagster's key for a partition of the lake."""
    return dg.MultiPartitionKey({DATE: partition.date.isoformat(), PROJECT: partition.project})


def parsed_key(key: str) -> Partition:
    """The partition of the lake of Dagster's key, such as `2026-11-23|default`."""
    date, _, project = key.partition("|")
    return Partition(dt.date.fromisoformat(date), project)


def partition_of(context: dg.AssetExecutionContext) -> Partition:
    """The lake's partition that a step of a run works on."""
    return parsed_key(context.partition_key)
