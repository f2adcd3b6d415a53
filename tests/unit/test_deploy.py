"""The files of deploy/, checked without an engine: by linters, schemas and the names in them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dagster._config import process_config
from dagster._core.instance.config import dagster_instance_config_schema
from dagster._core.run_coordinator import QueuedRunCoordinator

from pipelines.settings import PREFIX, ROOT, Settings

DEPLOY = ROOT / "deploy"
SCRIPTS = Path(sys.executable).parent
OWN_YAML = sorted(path.relative_to(ROOT) for path in [*DEPLOY.glob("*.yaml"), ROOT / "workspace.yaml"])


def snake(config):
    return {re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower(): value for name, value in config.items()}


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["hadolint", "deploy/Dockerfile"], id="hadolint"),
        pytest.param(["yamllint", "--strict", *map(str, OWN_YAML)], id="yamllint"),
        pytest.param(
            ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", "deploy/compose.yaml"], id="compose"
        ),
    ],
)
def test_deploy_files_pass_their_linters(command):
    result = subprocess.run([SCRIPTS / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout


def test_image_contains_the_files_that_services_name():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    for name in {name for line in copied for name in line.split()}:
        assert (ROOT / name).exists(), name
        assert any(line.startswith(f"!{name}") for line in ignored), name
    for text in ((DEPLOY / "compose.yaml").read_text(), (DEPLOY / "helm-values.yaml").read_text()):
        for name in re.findall(r"/srv/image-snapshots/([\w./-]+\.\w+)", text):
            assert (ROOT / name).exists(), name


def test_images_are_pinned_and_secrets_have_no_default():
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for service in services.values():
        assert re.search(r":(\$\{\w+:-)?\d+\.\d+", service["image"]), service["image"]
    text = (DEPLOY / "compose.yaml").read_text()
    assert set(re.findall(r"\$\{(\w*PASSWORD)(.*?)\}", text)) == {("POSTGRES_PASSWORD", ":?"), ("REDIS_PASSWORD", ":?")}
    example = dict(re.findall(r"^(\w+)=(.*)$", (DEPLOY / "compose.env.example").read_text(), re.MULTILINE))
    assert {name: value for name, value in example.items() if re.search("PASSWORD|KEY", name)} == {
        "POSTGRES_PASSWORD": "",
        "REDIS_PASSWORD": "",
        "OS_ACCESS_KEY": "",
        "OS_SECRET_KEY": "",
    }
    ours = {name.removeprefix(PREFIX).lower() for name in example if name.startswith(PREFIX)}
    assert ours <= Settings.model_fields.keys()


def test_chart_values_match_dagster_s_schemas():
    # Imported here, because these imports take a second.
    from dagster_k8s.job import UserDefinedDagsterK8sConfig
    from dagster_k8s.launcher import K8sRunLauncher

    values = yaml.safe_load((DEPLOY / "helm-values.yaml").read_text())
    launcher = snake(values["runLauncher"]["config"]["k8sRunLauncher"])
    # As the chart writes them.
    launcher["env_secrets"] = [secret["name"] for secret in launcher["env_secrets"]]
    launcher["run_k8s_config"] = snake(launcher["run_k8s_config"])
    fixed = {"service_account_name": "s", "dagster_home": "/d", "instance_config_map": "c", "job_namespace": "n"}
    fixed["postgres_password_secret"] = values["global"]["postgresqlSecretName"]
    result = process_config(K8sRunLauncher.config_type(), launcher | fixed)
    assert result.success, result.errors
    pod = UserDefinedDagsterK8sConfig.from_dict(launcher["run_k8s_config"])
    assert pod.pod_spec_config["security_context"]["run_as_non_root"] is True
    queue = snake(values["dagsterDaemon"]["runCoordinator"]["config"]["queuedRunCoordinator"])
    result = process_config(QueuedRunCoordinator.config_type(), queue)
    assert result.success, result.errors
    result = process_config(dagster_instance_config_schema(), values["additionalInstanceConfig"])
    assert result.success, result.errors
