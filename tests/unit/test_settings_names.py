"""A misspelt setting is refused, because it would otherwise be ignored."""

import pytest

from pipelines.errors import ConfigurationError
from pipelines.inputs.variable_names import check_names
from pipelines.settings import Settings, known_variables


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("IMAGE_SNAPSHOTS_ENDPIONT", "IMAGE_SNAPSHOTS_ENDPOINT"),
        ("image_snapshots_endpoint", "IMAGE_SNAPSHOTS_ENDPOINT"),
        ("Image_Snapshots_Lake", "IMAGE_SNAPSHOTS_LAKE"),
        ("IMAGE_SNAPSHOT_ENDPOINT", "IMAGE_SNAPSHOTS_ENDPOINT"),
        ("IMAGESNAPSHOTS_LAKE", "IMAGE_SNAPSHOTS_LAKE"),
        ("IMG_SNAPSHOTS_ENDPOINT", "IMAGE_SNAPSHOTS_ENDPOINT"),
        ("MAGE_SNAPSHOTS_ENDPOINT", "IMAGE_SNAPSHOTS_ENDPOINT"),
        # A Greek letter.
        ("\u0399MAGE_SNAPSHOTS_ENDPOINT", "IMAGE_SNAPSHOTS_ENDPOINT"),
        ("IMAGE_SNAPSHOTS_PROJECT", "IMAGE_SNAPSHOTS_PROJECTS"),
    ],
)
def test_misspelt_setting_is_refused_with_a_suggestion(monkeypatch, name, meant):
    monkeypatch.setenv(name, "https://modelarts.example")
    with pytest.raises(ConfigurationError) as raised:
        Settings.load()
    assert str(raised.value) == f"There is no setting {name}, so its value would be ignored: did you mean {meant}?"
    assert raised.value.exit_status == 2


def test_unknown_setting_is_refused(monkeypatch):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_XYZZY", "1")
    with pytest.raises(ConfigurationError, match=r"no setting IMAGE_SNAPSHOTS_XYZZY, .* the README lists all settings"):
        Settings.load()


def test_settings_and_unrelated_variables_are_accepted():
    check_names([f"IMAGE_SNAPSHOTS_{field.upper()}" for field in Settings.model_fields], known_variables())
    check_names(["OS_ENDPIONT", "IMAGE", "IMAGE_NAME", "IMAGES", "IMAGE_MAGICK_LAKE", "AWS_PROFILE"], known_variables())


def test_kubernetes_service_variables_are_ignored():
    service = ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_GRPC", "PORT", "PORT_3030_TCP"]
    addresses = ["PORT_3030_TCP_PROTO", "PORT_3030_TCP_PORT", "PORT_3030_TCP_ADDR"]
    check_names([f"IMAGE_SNAPSHOTS_{name}" for name in [*service, *addresses]], known_variables())


def test_misspelt_setting_in_the_env_file_is_refused(tmp_path):
    (tmp_path / ".env").write_text("IMAGE_SNAPSHOTS_ENDPIONT=https://modelarts.example\n")
    with pytest.raises(ConfigurationError, match="did you mean IMAGE_SNAPSHOTS_ENDPOINT"):
        Settings.load()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("# ours\n\nIMAGE_SNAPSHOTS_ENDPOINT https://modelarts.example\n", 3),
        ("IMAGE_SNAPSHOTS_LAKE=a\nIMAGE_SNAPSHOTS_ENDPOINT\n", 2),
        ("IMAGE_SNAPSHOTS_ENDPOINT='https://modelarts.example\n", 1),
    ],
)
def test_malformed_line_of_the_env_file_is_refused(tmp_path, content, line):
    (tmp_path / ".env").write_text(content)
    with pytest.raises(ConfigurationError) as raised:
        Settings.load()
    assert str(raised.value) == f"Line {line} of the settings file {tmp_path}/.env is not NAME=value: correct it."


def test_env_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / ".env").write_bytes(b"IMAGE_SNAPSHOTS_LAKE=\xff\n")
    with pytest.raises(ConfigurationError, match=r"\.env is not UTF-8 text"):
        Settings.load()


@pytest.mark.parametrize("stated", ["sandbox", "Sandbox", "", None])
def test_sandbox_is_chosen_by_name_or_by_default(monkeypatch, stated):
    if stated is not None:
        monkeypatch.setenv("IMAGE_SNAPSHOTS_ENDPOINT", stated)
    assert Settings.load().uses_sandbox


def test_unknown_argument_is_refused():
    with pytest.raises(ValueError, match="endpiont"):
        Settings(endpiont="https://modelarts.example")
