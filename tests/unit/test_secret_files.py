"""A secret may be a file: of the settings, of the credentials, and of the object store."""

import pytest
from permissions import unreadable

from pipelines.cloud.credentials import AccessKey, PasswordLogin, load_credentials
from pipelines.errors import ConfigurationError
from pipelines.inputs.credential_variables import SECRET_VARIABLES, read_variables, stated_credentials
from pipelines.inputs.secret_files import with_secret_files
from pipelines.lake.buckets import open_bucket
from pipelines.settings import Settings

# Settings that are secret, with a valid value.
SETTINGS = {
    "INVENTORY": "postgresql://reader:hidden@db.example/images",
    "RATE_LIMITER": "redis://:hidden@redis.example:6379/0",
    "WAREHOUSE": "postgresql://loader:hidden@db.example/warehouse",
    "BILLS_KEY": "hidden",
    "NOTIFY": "https://chat.example/hooks/hidden",
}


@pytest.fixture
def secret(tmp_path):
    """Write a file; returns its path as text."""

    def write(content: str | bytes, name: str = "secret") -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def test_every_secret_setting_may_be_a_file(monkeypatch, secret):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_RATE_LIMIT", "5")
    for name, value in SETTINGS.items():
        monkeypatch.setenv(f"IMAGE_SNAPSHOTS_{name}_FILE", secret(f"{value}\n", name))
    settings = Settings.load()
    assert {name: getattr(settings, name.lower()).get_secret_value() for name in SETTINGS} == SETTINGS
    secrets = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert secrets == {name.lower() for name in SETTINGS}
    assert "hidden" not in repr(settings)


def test_file_is_read_anew_each_time(monkeypatch, secret):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_WAREHOUSE_FILE", secret("first.duckdb"))
    assert Settings.load().warehouse.get_secret_value() == "first.duckdb"
    secret("second.duckdb\r\n")
    assert Settings.load().warehouse.get_secret_value() == "second.duckdb"
    env = {"OS_ACCESS_KEY": "AK", "OS_SECRET_KEY_FILE": secret("SK-1\n"), "OS_PROJECT_ID": "p1"}
    assert load_credentials(None, env) == AccessKey("AK", "SK-1", "p1")
    secret("SK-2\n")
    assert load_credentials(None, env) == AccessKey("AK", "SK-2", "p1")


def test_value_of_a_setting_from_a_file_is_checked_like_any(monkeypatch, secret):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_NOTIFY_FILE", secret("ftp://hidden"))
    with pytest.raises(ConfigurationError) as raised:
        Settings.load()
    assert str(raised.value) == (
        "The setting IMAGE_SNAPSHOTS_NOTIFY is wrong: must look like https://chat.example/hooks/..., "
        "several with blanks between them."
    )


def test_setting_that_is_no_secret_has_no_file(monkeypatch):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_LAKE_FILE", "/run/secrets/lake")
    with pytest.raises(ConfigurationError, match="There is no setting IMAGE_SNAPSHOTS_LAKE_FILE"):
        Settings.load()


@pytest.mark.parametrize("name", SECRET_VARIABLES)
def test_every_secret_of_the_credentials_may_be_a_file(secret, name):
    assert with_secret_files({f"{name}_FILE": secret("hidden\n")}, SECRET_VARIABLES) == {name: "hidden"}
    assert stated_credentials({f"{name}_FILE": "/run/secrets/x"}) == [name]
    assert "hidden" not in repr(read_variables({f"{name}_FILE": secret("hidden\n")}))


def test_password_of_a_file_keeps_its_blanks(secret):
    env = {
        "OS_AUTH_URL": "https://iam.example",
        "OS_USER_ID": "u",
        "OS_PROJECT_ID": "p",
        "OS_PASSWORD_FILE": secret(b"\xef\xbb\xbf  pass word \r\n"),
    }
    login = load_credentials(None, env)
    assert isinstance(login, PasswordLogin)
    assert login.password == "  pass word "


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "The file {path} is empty: write the secret to it, or correct OS_PASSWORD_FILE."),
        (" \n\n", "The file {path} is empty: write the secret to it, or correct OS_PASSWORD_FILE."),
        (b"hid\xffden", "The file {path}, which OS_PASSWORD_FILE names, is not UTF-8 text: save it as UTF-8."),
        (
            "hidden\nhidden\n",
            (
                "The file {path} has several lines: it must hold the value of OS_PASSWORD alone, as OS_PASSWORD_FILE "
                "names it."
            ),
        ),
    ],
)
def test_unusable_file_is_one_sentence_with_its_path(secret, content, says):
    path = secret(content)
    with pytest.raises(ConfigurationError) as raised:
        load_credentials(None, {"OS_PASSWORD_FILE": path})
    assert str(raised.value) == says.format(path=path)
    assert raised.value.exit_status == 2


def test_missing_and_unreadable_files_are_one_sentence_with_their_path(secret, tmp_path):
    path = secret("hidden")
    with unreadable(tmp_path / "secret"), pytest.raises(ConfigurationError) as raised:
        load_credentials(None, {"OS_TOKEN_FILE": path})
    assert str(raised.value) == (
        f"The file {path} cannot be read: Permission denied. OS_TOKEN_FILE names it: correct the path, or let this "
        "user read it."
    )
    with pytest.raises(ConfigurationError, match=f"The file {path}x cannot be read: No such file or directory"):
        load_credentials(None, {"OS_TOKEN_FILE": f"{path}x"})
    with pytest.raises(ConfigurationError, match="OS_TOKEN_FILE begins with ~nobody-of-this-name"):
        load_credentials(None, {"OS_TOKEN_FILE": "~nobody-of-this-name/x"})


def test_secret_and_its_file_are_refused_together(monkeypatch, secret):
    path = secret("hidden")
    with pytest.raises(ConfigurationError) as raised:
        load_credentials(None, {"OS_PASSWORD": "hidden", "OS_PASSWORD_FILE": path})
    assert str(raised.value) == "Both OS_PASSWORD and OS_PASSWORD_FILE are set: unset one of them."
    monkeypatch.setenv("IMAGE_SNAPSHOTS_WAREHOUSE", "a.duckdb")
    monkeypatch.setenv("IMAGE_SNAPSHOTS_WAREHOUSE_FILE", path)
    with pytest.raises(ConfigurationError, match="Both IMAGE_SNAPSHOTS_WAREHOUSE and IMAGE_SNAPSHOTS_WAREHOUSE_FILE"):
        Settings.load()


def test_blank_name_of_a_file_counts_as_unset():
    assert with_secret_files({"OS_PASSWORD": "p", "OS_PASSWORD_FILE": " "}, ["OS_PASSWORD"]) == {"OS_PASSWORD": "p"}


def test_keys_of_an_object_store_may_be_files(s3, monkeypatch, secret):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        path = secret(f"{s3.env[name]}\n", name)
        monkeypatch.delenv(name)
        monkeypatch.setenv(f"{name}_FILE", path)
    assert not open_bucket("lake").is_there("nothing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    with pytest.raises(ConfigurationError, match="Both AWS_SECRET_ACCESS_KEY and AWS_SECRET_ACCESS_KEY_FILE are set"):
        open_bucket("lake")
