"""Arrow allocates all its memory from the system, whichever of our programs began: its own pools keep what is freed."""

import os
import subprocess
import sys

import pytest

from pipelines.settings import ROOT


def pool(start, **env):
    """Arrow's pool in a new process after this statement, in an environment with these variables for Arrow."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ARROW_")}
    ask = f"{start}\nimport pyarrow\nprint(pyarrow.default_memory_pool().backend_name)"
    command = [sys.executable, "-c", ask]
    return subprocess.run(
        command, env=environment | env, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize(
    "start",
    [
        "import assets.cli",
        "import dagster, assets.definitions",
        "import pipelines.snapshot.build_process",
        "from pipelines import open_lake",
    ],
)
def test_arrow_uses_the_pool_of_the_system(start):
    assert pool(start) == "system"


def test_a_stated_pool_is_used():
    assert pool("import pipelines.snapshot.publish", ARROW_DEFAULT_MEMORY_POOL="mimalloc") == "mimalloc"
