import pytest

from pipelines.cloud.credentials import AccessKey, PasswordLogin, ReadyToken, load_credentials
from pipelines.errors import ConfigurationError

PASSWORD_ENV = {
    "OS_AUTH_URL": "https://iam.eu-de.otc.t-systems.com/v3",
    "OS_USERNAME": "auditor",
    "OS_PASSWORD": "p{a}ss%word",
    "OS_USER_DOMAIN_NAME": "OTC-EU-DE-1",
    "OS_PROJECT_NAME": "eu-de",
}

CLOUDS = """
clouds:
  otc:
    auth:
      auth_url: https://iam.eu-de.otc.t-systems.com:443/v3
      username: auditor
      password: 12345
      user_domain_name: OTC-EU-DE-1
      project_id: from-file
    cacert: /etc/ca.pem
  profile:
    profile: otc
    region_name: eu-nl
    auth: {username: u, password: p, domain_name: d, project_name: eu-nl}
  ready:
    auth_type: v3token
    auth: {auth_url: "https://iam.example/v3", token: t-o-k-e-n, project_id: p1}
  unverified:
    verify: false
    auth: {auth_url: "https://iam.example/v3", username: u, password: p, user_domain_name: d, project_id: p1}
  oidc:
    auth_type: v3oidcpassword
    auth: {auth_url: "https://iam.example/v3"}
  odd: 5
"""


@pytest.fixture
def clouds(tmp_path):
    path = tmp_path / "clouds.yaml"
    path.write_text(CLOUDS)
    return lambda cloud: {"OS_CLIENT_CONFIG_FILE": str(path), "OS_CLOUD": cloud}


def test_access_key_is_read_from_the_variables():
    env = {"OS_ACCESS_KEY": "AK", "OS_SECRET_KEY": "SK", "OS_PROJECT_ID": "p1"}
    assert load_credentials(None, env) == AccessKey("AK", "SK", "p1")


def test_access_key_wins_over_a_password_and_the_argument_over_the_environment():
    env = PASSWORD_ENV | {"OS_ACCESS_KEY": "AK", "OS_SECRET_KEY": "SK", "OS_PROJECT_ID": "p1"}
    assert load_credentials("p2", env) == AccessKey("AK", "SK", "p2")


def test_password_is_read_from_the_variables():
    assert load_credentials(None, PASSWORD_ENV) == PasswordLogin(
        auth_url="https://iam.eu-de.otc.t-systems.com/v3",
        user="auditor",
        user_is_id=False,
        password="p{a}ss%word",
        user_domain={"name": "OTC-EU-DE-1"},
        project_id=None,
        project_name="eu-de",
        project_domain={"name": "OTC-EU-DE-1"},
    )


def test_given_project_id_overrides_the_scope():
    login = load_credentials("p9", PASSWORD_ENV)
    assert isinstance(login, PasswordLogin)
    assert (login.project_id, login.project_name, login.project_domain) == ("p9", None, None)


def test_user_id_needs_no_domain():
    env = {name: value for name, value in PASSWORD_ENV.items() if name not in ("OS_USERNAME", "OS_USER_DOMAIN_NAME")}
    login = load_credentials("p1", env | {"OS_USER_ID": "u1"})
    assert isinstance(login, PasswordLogin)
    assert (login.user, login.user_is_id, login.user_domain) == ("u1", True, None)


@pytest.mark.parametrize(
    ("stated", "used"),
    [
        ("https://iam.example", "https://iam.example/v3"),
        ("https://iam.example/", "https://iam.example/v3"),
        ("https://iam.example/v3/", "https://iam.example/v3"),
        ("http://127.0.0.1:5000/v3", "http://127.0.0.1:5000/v3"),
    ],
)
def test_auth_url_is_completed_or_refused(stated, used):
    login = load_credentials(None, PASSWORD_ENV | {"OS_AUTH_URL": stated})
    assert isinstance(login, PasswordLogin)
    assert login.auth_url == used


def test_token_is_read_from_the_variables():
    assert load_credentials(None, {"OS_TOKEN": "abc", "OS_PROJECT_ID": "p1"}) == ReadyToken("abc", "p1")


def test_auth_type_chooses_token_or_password():
    env = PASSWORD_ENV | {"OS_TOKEN": "abc", "OS_PROJECT_ID": "p1"}
    assert isinstance(load_credentials(None, env | {"OS_AUTH_TYPE": "password"}), PasswordLogin)
    assert load_credentials(None, env | {"OS_AUTH_TYPE": "v3token"}) == ReadyToken("abc", "p1")


def test_password_is_read_from_clouds_yaml(clouds):
    login = load_credentials(None, clouds("otc"))
    assert isinstance(login, PasswordLogin)
    assert (login.password, login.project_id) == ("12345", "from-file")
    assert login.auth_url == "https://iam.eu-de.otc.t-systems.com:443/v3"
    assert str(login.ca_bundle) == "/etc/ca.pem"


def test_given_project_id_overrides_clouds_yaml(clouds):
    login = load_credentials("p2", clouds("otc"))
    assert isinstance(login, PasswordLogin)
    assert login.project_id == "p2"


def test_vendor_profile_is_read_from_clouds_yaml(clouds):
    login = load_credentials(None, clouds("profile"))
    assert isinstance(login, PasswordLogin)
    assert login.auth_url == "https://iam.eu-nl.otc.t-systems.com/v3"
    assert (login.user_domain, login.project_domain) == ({"name": "d"}, {"name": "d"})


def test_token_is_read_from_clouds_yaml(clouds):
    assert load_credentials(None, clouds("ready")) == ReadyToken("t-o-k-e-n", "p1")


@pytest.mark.parametrize(
    ("happened", "env", "says"),
    [
        ("nothing is set", {}, "No credentials found"),
        ("values are blank", {"OS_ACCESS_KEY": " ", "OS_CLOUD": ""}, "No credentials found"),
        ("the secret key lacks", {"OS_ACCESS_KEY": "AK"}, "OS_SECRET_KEY is not"),
        ("the access key lacks", {"OS_SECRET_KEY": "SK"}, "OS_ACCESS_KEY is not"),
        ("AK/SK without project", {"OS_ACCESS_KEY": "AK", "OS_SECRET_KEY": "SK"}, "OS_PROJECT_ID"),
        ("token without project", {"OS_TOKEN": "t"}, "OS_PROJECT_ID"),
        ("auth_type without token", PASSWORD_ENV | {"OS_AUTH_TYPE": "v3token"}, "OS_TOKEN"),
        ("token and password", PASSWORD_ENV | {"OS_TOKEN": "t"}, "OS_AUTH_TYPE"),
        ("unknown auth_type", PASSWORD_ENV | {"OS_AUTH_TYPE": "kerberos"}, "'kerberos'"),
        ("no password", PASSWORD_ENV | {"OS_PASSWORD": ""}, "OS_PASSWORD"),
        ("no user", PASSWORD_ENV | {"OS_USERNAME": ""}, "OS_USERNAME"),
        ("no domain", PASSWORD_ENV | {"OS_USER_DOMAIN_NAME": ""}, "OS_USER_DOMAIN_NAME"),
        ("no project", PASSWORD_ENV | {"OS_PROJECT_NAME": ""}, "OS_PROJECT_NAME"),
        ("plain http", PASSWORD_ENV | {"OS_AUTH_URL": "http://iam.example/v3"}, "OS_AUTH_URL must be https"),
        ("no URL", PASSWORD_ENV | {"OS_AUTH_URL": "iam.example"}, "OS_AUTH_URL must look like"),
        ("login in URL", PASSWORD_ENV | {"OS_AUTH_URL": "https://u:hidden@iam.example"}, "OS_AUTH_URL must not hold"),
        ("a placeholder", PASSWORD_ENV | {"OS_AUTH_URL": "https://iam.{nowhere}.example"}, "{placeholder}"),
        ("insecure", PASSWORD_ENV | {"OS_INSECURE": "true"}, "IMAGE_SNAPSHOTS_CA_BUNDLE"),
        ("unverified", PASSWORD_ENV | {"OS_VERIFY": "False"}, "IMAGE_SNAPSHOTS_CA_BUNDLE"),
    ],
)
def test_missing_or_contradictory_credentials_are_refused(happened, env, says):
    with pytest.raises(ConfigurationError) as raised:
        load_credentials(None, env)
    message = str(raised.value)
    assert says in message
    assert "p{a}ss" not in message
    assert "hidden" not in message


@pytest.mark.parametrize(
    ("cloud", "says"),
    [
        ("nowhere", "'nowhere'"),
        ("odd", "malformed"),
        ("unverified", "IMAGE_SNAPSHOTS_CA_BUNDLE"),
        ("oidc", "v3oidcpassword"),
    ],
)
def test_unusable_cloud_is_refused(clouds, cloud, says):
    with pytest.raises(ConfigurationError, match=says):
        load_credentials(None, clouds(cloud))


@pytest.mark.parametrize(
    "env",
    [
        {"OS_ACCESS_KEY": "hidden-ak", "OS_SECRET_KEY": "hidden-sk", "OS_PROJECT_ID": "p1"},
        PASSWORD_ENV | {"OS_PASSWORD": "hidden"},
        {"OS_TOKEN": "hidden", "OS_PROJECT_ID": "p1"},
    ],
)
def test_credentials_do_not_show_secrets(env):
    assert "hidden" not in repr(load_credentials(None, env))
