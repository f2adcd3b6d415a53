"""Files `clouds.yaml` that are broken, cannot be read, or lack what is asked for: the sentence says which it is."""

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
def test_a_broken_file_is_said_to_be_broken(path, content, says):
    path.write_bytes(content)
    assert refusal(path) == f"The file {path} {says}"


def test_broken_json_is_said_to_be_broken(tmp_path):
    path = tmp_path / "clouds.json"
    path.write_text('{"clouds": {\n"otc": hidden}}')
    assert refusal(path) == f"The file {path} is broken JSON in line 2: correct it."


def test_a_broken_secure_file_is_said_to_be_broken(path, tmp_path):
    secure = tmp_path / "secure.yaml"
    secure.write_text("clouds: {otc: {auth: {password: hidden}}")
    assert refusal(path, OS_CLIENT_SECURE_FILE=str(secure)).startswith(f"The file {secure} is broken YAML")


def test_a_file_that_may_not_be_read_is_said_so(path):
    with unreadable(path):
        says = refusal(path)
    assert says == (
        f"The file {path} cannot be read: Permission denied. Let this user read it, or set OS_CLIENT_CONFIG_FILE to "
        "another."
    )


def test_a_directory_and_a_file_that_is_not_there_are_said_so(tmp_path):
    assert "cannot be read: Is a directory." in refusal(tmp_path)
    path = tmp_path / "none.yaml"
    assert refusal(path) == f"The file {path} does not exist: correct OS_CLIENT_CONFIG_FILE."
    assert refusal(path, OS_CLIENT_SECURE_FILE=str(path)).startswith(f"The file {path} does not exist")


def test_no_file_at_all_is_said_so(monkeypatch, tmp_path):
    from openstack.config import loader

    monkeypatch.setattr(loader, "CONFIG_FILES", [f"{tmp_path}/clouds.yaml", f"{tmp_path}/clouds.json"])
    monkeypatch.setattr(loader, "SECURE_FILES", [])
    with pytest.raises(ConfigurationError) as raised:
        load_credentials(None, {"OS_CLOUD": "otc"})
    assert str(raised.value) == (
        f"OS_CLOUD names the cloud 'otc', but there is no clouds.yaml in {tmp_path}: write one, "
        "or set OS_CLIENT_CONFIG_FILE to its path."
    )


def test_the_first_file_of_the_usual_places_is_used_and_no_other_in_its_place(monkeypatch, tmp_path, path):
    from openstack.config import loader

    first = tmp_path / "first" / "clouds.yaml"
    first.parent.mkdir()
    first.write_text("clouds: {")
    monkeypatch.setattr(loader, "CONFIG_FILES", [f"{tmp_path}/none/clouds.yaml", str(first), str(path)])
    with pytest.raises(ConfigurationError, match=f"The file {first} is broken YAML"):
        load_credentials(None, {"OS_CLOUD": "one"})
    first.unlink()
    assert isinstance(load_credentials(None, {"OS_CLOUD": "one"}), PasswordLogin)


def test_a_cloud_that_is_not_in_it_is_refused_with_those_that_are(path):
    assert refusal(path, OS_CLOUD="oct") == (
        f"OS_CLOUD names the cloud 'oct', which {path} does not describe (it describes broken-regions, one, otc): "
        "correct OS_CLOUD, or the file (OS_CLIENT_CONFIG_FILE says which)."
    )


@pytest.mark.parametrize("cloud", ["otc", "one"])
def test_a_region_that_is_not_in_it_is_said_to_be_that(path, cloud):
    assert refusal(path, OS_CLOUD=cloud, OS_REGION_NAME="eu-xx") == (
        f"OS_REGION_NAME names the region 'eu-xx', which the cloud '{cloud}' in {path} does not have: correct "
        "OS_REGION_NAME, or the cloud's regions."
    )


@pytest.mark.parametrize("region", [{}, {"OS_REGION_NAME": "eu-de"}])
def test_regions_that_are_malformed_are_said_to_be_that(path, region):
    says = f"The description of the cloud 'broken-regions' (OS_CLOUD) in {path} is malformed: correct the file."
    assert refusal(path, OS_CLOUD="broken-regions", **region) == says


@pytest.mark.parametrize("region", [{}, {"OS_REGION_NAME": "eu-nl"}])
def test_a_password_keeps_its_blanks(path, region):
    login = load_credentials(None, {"OS_CLIENT_CONFIG_FILE": str(path), "OS_CLOUD": "otc", **region})
    assert isinstance(login, PasswordLogin)
    assert login.password == " hid den "
    env = {"OS_AUTH_URL": "https://iam.example", "OS_USER_ID": "u", "OS_PROJECT_ID": "p", "OS_PASSWORD": "\thidden "}
    login = load_credentials(None, env)
    assert isinstance(login, PasswordLogin)
    assert login.password == "\thidden "
    with pytest.raises(ConfigurationError, match="set OS_PASSWORD"):
        load_credentials(None, env | {"OS_PASSWORD": "  "})
