"""Files `clouds.yaml` that are broken, unreadable, or lack the requested cloud: the message says which."""

import pytest
from permissions import unreadable

from pipelines.cloud.credentials import PasswordLogin, load_credentials
from pipelines.errors import ConfigurationError

CLOUDS = """\
clouds:
  otc:
    auth: {auth_url: "https://iam.example/v3", username: u, password: " hid den ", user_domain_name: d, project_id: p1}
    regions: [eu-de, {name: eu-nl, values: {}}]
  one:
    auth: {auth_url: "https://iam.example/v3", username: u, password: hidden, user_domain_name: d, project_id: p1}
    region_name: eu-de
  broken-regions:
    auth: {auth_url: "https://iam.example/v3", username: u, password: hidden, user_domain_name: d, project_id: p1}
    regions: [{nam: eu-de}]
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "clouds.yaml"
    path.write_text(CLOUDS)
    return path


def refusal(path, **env):
    stated = {"OS_CLIENT_CONFIG_FILE": str(path), "OS_CLOUD": "otc"} | env
    with pytest.raises(ConfigurationError) as raised:
        load_credentials(None, stated)
    assert raised.value.exit_status == 2
    assert "hid" not in str(raised.value)
    assert raised.value.__cause__ is None
    return str(raised.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"clouds:\n  otc:\n   auth: {password: hidden\n", "is broken YAML in line 4: correct it."),
        (b"clouds:\n\totc: hidden\n", "is broken YAML in line 2: correct it."),
        (b"clouds: {otc: {at: 2026-13-45}}\n", "is broken YAML: correct it."),
        (b"clouds:\n  otc: *hidden\n", "is broken YAML in line 2: correct it."),
        (b"", "describes no clouds: it must list them by name under `clouds:`."),
        (b"cloud:\n  otc: {}\n", "describes no clouds: it must list them by name under `clouds:`."),
        (b"clouds: [otc]\n", "describes no clouds: it must list them by name under `clouds:`."),
        ("clouds: {otc: {}}".encode("utf-16"), "is not UTF-8 text: save it as UTF-8."),
        ("# für uns\nclouds: {otc: {}}".encode("latin-1"), "is not UTF-8 text: save it as UTF-8."),
    ],
)
def test_broken_yaml_file_is_reported(path, content, says):
    path.write_bytes(content)
    assert refusal(path) == f"The file {path} {says}"


def test_broken_json_file_is_reported(tmp_path):
    path = tmp_path / "clouds.json"
    path.write_text('{"clouds": {\n"otc": hidden}}')
    assert refusal(path) == f"The file {path} is broken JSON in line 2: correct it."


def test_broken_secure_file_is_reported(path, tmp_path):
    secure = tmp_path / "secure.yaml"
    secure.write_text("clouds: {otc: {auth: {password: hidden}}")
    assert refusal(path, OS_CLIENT_SECURE_FILE=str(secure)).startswith(f"The file {secure} is broken YAML")


def test_unreadable_file_is_reported(path):
    with unreadable(path):
        says = refusal(path)
    assert says == (
        f"The file {path} cannot be read: Permission denied. Let this user read it, or set OS_CLIENT_CONFIG_FILE to "
        "another."
    )


def test_directory_and_missing_file_are_reported(tmp_path):
    assert "cannot be read: Is a directory." in refusal(tmp_path)
    path = tmp_path / "none.yaml"
    assert refusal(path) == f"The file {path} does not exist: correct OS_CLIENT_CONFIG_FILE."
    assert refusal(path, OS_CLIENT_SECURE_FILE=str(path)).startswith(f"The file {path} does not exist")


def test_absence_of_all_files_is_reported(monkeypatch, tmp_path):
    from openstack.config import loader

    monkeypatch.setattr(loader, "CONFIG_FILES", [f"{tmp_path}/clouds.yaml", f"{tmp_path}/clouds.json"])
    monkeypatch.setattr(loader, "SECURE_FILES", [])
    with pytest.raises(ConfigurationError) as raised:
        load_credentials(None, {"OS_CLOUD": "otc"})
    assert str(raised.value) == (
        f"OS_CLOUD names the cloud 'otc', but there is no clouds.yaml in {tmp_path}: write one, "
        "or set OS_CLIENT_CONFIG_FILE to its path."
    )


def test_only_the_first_default_file_is_used(monkeypatch, tmp_path, path):
    from openstack.config import loader

    first = tmp_path / "first" / "clouds.yaml"
    first.parent.mkdir()
    first.write_text("clouds: {")
    monkeypatch.setattr(loader, "CONFIG_FILES", [f"{tmp_path}/none/clouds.yaml", str(first), str(path)])
    with pytest.raises(ConfigurationError, match=f"The file {first} is broken YAML"):
        load_credentials(None, {"OS_CLOUD": "one"})
    first.unlink()
    assert isinstance(load_credentials(None, {"OS_CLOUD": "one"}), PasswordLogin)


def test_unknown_cloud_is_refused_with_the_known_names(path):
    assert refusal(path, OS_CLOUD="oct") == (
        f"OS_CLOUD names the cloud 'oct', which {path} does not describe (it describes broken-regions, one, otc): "
        "correct OS_CLOUD, or the file (OS_CLIENT_CONFIG_FILE says which)."
    )


@pytest.mark.parametrize("cloud", ["otc", "one"])
def test_unknown_region_is_reported(path, cloud):
    assert refusal(path, OS_CLOUD=cloud, OS_REGION_NAME="eu-xx") == (
        f"OS_REGION_NAME names the region 'eu-xx', which the cloud '{cloud}' in {path} does not have: correct "
        "OS_REGION_NAME, or the cloud's regions."
    )


@pytest.mark.parametrize("region", [{}, {"OS_REGION_NAME": "eu-de"}])
def test_malformed_regions_are_reported(path, region):
    says = f"The description of the cloud 'broken-regions' (OS_CLOUD) in {path} is malformed: correct the file."
    assert refusal(path, OS_CLOUD="broken-regions", **region) == says


@pytest.mark.parametrize("region", [{}, {"OS_REGION_NAME": "eu-nl"}])
def test_password_keeps_its_blanks(path, region):
    login = load_credentials(None, {"OS_CLIENT_CONFIG_FILE": str(path), "OS_CLOUD": "otc", **region})
    assert isinstance(login, PasswordLogin)
    assert login.password == " hid den "
    env = {"OS_AUTH_URL": "https://iam.example", "OS_USER_ID": "u", "OS_PROJECT_ID": "p", "OS_PASSWORD": "\thidden "}
    login = load_credentials(None, env)
    assert isinstance(login, PasswordLogin)
    assert login.password == "\thidden "
    with pytest.raises(ConfigurationError, match="set OS_PASSWORD"):
        load_credentials(None, env | {"OS_PASSWORD": "  "})
