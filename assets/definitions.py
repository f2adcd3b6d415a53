"""The entry point for Dagster: `defs`, built from the settings of the environment."""

from assets.build import build_definitions
from pipelines.settings import Settings

defs = build_definitions(Settings.load())
