"""Spark on this machine as a user would configure it, small: one session for all tests of a process."""

import os
import shutil

import pytest

# Compiling short queries on few rows, and dividing them into several jobs, would take most of the time.
DEFAULTS = """
spark.sql.shuffle.partitions         1
spark.sql.adaptive.enabled           false
spark.sql.autoBroadcastJoinThreshold -1
spark.sql.codegen.wholeStage         false
spark.sql.codegen.factoryMode        NO_CODEGEN
spark.driver.memory                  1g
spark.driver.extraJavaOptions        -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto
"""


@pytest.fixture(scope="session")
def spark_master(tmp_path_factory) -> str:
    """The master for the settings; its configuration is in `SPARK_CONF_DIR`."""
    if shutil.which("java") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "no java on the PATH: install Java 17 or newer (Debian: apt-get install default-jre-headless)"
        )
    directory = tmp_path_factory.mktemp("spark-conf")
    (directory / "spark-defaults.conf").write_text(DEFAULTS)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("SPARK_CONF_DIR", str(directory))
        yield "local[1]"
