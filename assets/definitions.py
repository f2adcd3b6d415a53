"""What Dagster loads: `defs`, made from the settings of the environment."""

from assets.build import build_definitions
from pipelines.settings import Settings

defs = build_definitions(Settings.load())
