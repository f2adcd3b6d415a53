"""The weekly verification: an asset without partitions that proves the whole lake; its checks, job and schedule.

What is checked belongs to `pipelines.maintenance.verify`. A problem fails a check and is told; the run succeeds.
"""

import dagster as dg

from assets.common import check_result, made_by
from assets.metadata import rows_metadata
from assets.resources import EXIT_STATUS
from pipelines.errors import PipelineError
from pipelines.inputs import local_files
from pipelines.lake.layout import Lake
from pipelines.lake.manifests import chain_head
from pipelines.lake.witnesses import read_witnesses
from pipelines.maintenance.verify import Note, verify
from pipelines.notify.events import Verification
from pipelines.notify.telling import tell
from pipelines.plain_text import visible
from pipelines.run import utc_now
from pipelines.settings import Settings
from pipelines.tables import IMAGE_COSTS

VERIFY_JOB = "verify_lake"
_ASSET = "lake_verification"
_UNCHANGED, _WITNESSED = "lake_is_as_published", "noted_manifests_are_there"
_MOST_SHOWN = 50
_LOST = (
    "The witness file is not there, though days are published: it was removed, or its file system is not mounted. "
    "Restore it, or correct IMAGE_SNAPSHOTS_WITNESS."
)


class VerifyConfig(dg.Config):
    """What a run may state in the launchpad. `quick`: check only hashes, places and chains; derive nothing again."""

    quick: bool = False


def verification_asset(settings: Settings) -> dg.AssetsDefinition:
    """Build the asset; only its own job makes it."""

    @dg.asset(
        name=_ASSET,
        description="The proof that files, evidence, records and derived tables of the lake are as published, or what "
        "was changed.",
        group_name="delivery",
        kinds={"parquet"},
        owners=settings.owner_names,
        # The last assets of a day: all that they are made from is verified, too.
        deps=[
            dg.AssetDep(name, partition_mapping=dg.AllPartitionMapping()) for name in ("daily_report", IMAGE_COSTS.name)
        ],
        code_version=made_by("pipelines/maintenance"),
        check_specs=[
            dg.AssetCheckSpec(_UNCHANGED, asset=_ASSET, description="`verify` found no problem."),
            dg.AssetCheckSpec(
                _WITNESSED,
                asset=_ASSET,
                description="Every manifest that the file IMAGE_SNAPSHOTS_WITNESS notes is still in the lake.",
            ),
        ],
    )
    def lake_verification(context: dg.AssetExecutionContext, config: VerifyConfig) -> dg.MaterializeResult:
        try:
            lake = Lake(settings.lake, settings.parquet_compression)
            partitions = lake.contents.partitions()
            is_there = settings.witness is not None and local_files.exists(settings.witness)
            witnesses = read_witnesses([str(settings.witness)]) if is_there else []
            there: list[str] = []
            notes: list[Note] = []
            problems = verify(
                lake,
                partitions,
                settings=settings,
                quick=config.quick,
                is_whole_lake=True,
                witnesses=witnesses,
                on_note=notes.append,
                on_witness=lambda witness, _: there.append(witness.sha256),
            )
            heads = {} if problems else {key: chain_head(lake, key) for key in sorted({p.project for p in partitions})}
        except PipelineError as error:
            raise dg.Failure(
                description=str(error), metadata={EXIT_STATUS: error.exit_status}, allow_retries=False
            ) from None
        found = [(problem.path, problem.sentence) for problem in problems]
        # Each run makes the file, before it publishes anything.
        lost = partitions and settings.witness is not None and not is_there
        if lost:
            found.append((str(settings.witness), _LOST))
        result = Verification(found, True, config.quick, settings.witness is not None)
        for warning in tell(settings, utc_now(), verification=result):
            context.log.warning(warning)
        noted = {witness.sha256 for witness in witnesses}
        shown = [{"path": visible(path), "problem": visible(sentence)} for path, sentence in found[:_MOST_SHOWN]]
        newest = [{"project": key, "manifest_sha256": digest} for key, digest in heads.items()]
        return dg.MaterializeResult(
            metadata={
                "partitions": len(partitions),
                "problems": len(problems),
                "notes": len(notes),
                "quick": config.quick,
                **({"found": rows_metadata(shown)} if shown else {}),
                **({"newest_manifests": rows_metadata(newest)} if newest else {}),
            },
            check_results=[
                check_result(_ASSET, _UNCHANGED, not problems, {"problems": len(problems)}),
                check_result(
                    _ASSET,
                    _WITNESSED,
                    not lost and noted <= set(there),
                    {"noted": len(noted), "missing": len(noted - set(there))},
                    _LOST if lost else None,
                ),
            ],
        )

    return lake_verification


def verify_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """Once a week, when no daily run is usual; switched on by default like the daily schedule."""
    is_sandbox = all(own.uses_sandbox for own in settings.of_each_project)
    return dg.ScheduleDefinition(
        name="verify_lake_schedule",
        job_name=VERIFY_JOB,
        cron_schedule="37 9 * * 0",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED if is_sandbox else dg.DefaultScheduleStatus.RUNNING,
        description="Verifies the whole lake every Sunday, by its records and by deriving its tables again.",
    )
