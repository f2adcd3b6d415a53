"""Every kind of credentials, from every place that may state it, and the order among these places."""

import pytest

from pipelines.cloud.credentials import (
    AccessKey,
    Account,
    Agency,
    PasswordLogin,
    ReadyToken,
    ServerAgency,
    load_credentials,
)
from pipelines.errors import ConfigurationError
from pipelines.inputs.credential_variables import stated_credentials

SDK = {"HUAWEICLOUD_SDK_AK": "SDK-AK", "HUAWEICLOUD_SDK_SK": "hidden-sdk"}
HW = {"HW_ACCESS_KEY": "HW-AK", "HW_SECRET_KEY": "hidden-hw"}
OS = {"OS_ACCESS_KEY": "OS-AK", "OS_SECRET_KEY": "hidden-os"}
PROJECT = {"OS_PROJECT_ID": "p1"}
LOGIN = {
    "OS_AUTH_URL": "https://iam.example/v3",
    "OS_USERNAME": "auditor",
    "OS_PASSWORD": "hidden-password",
    "OS_USER_DOMAIN_NAME": "own",
    "OS_PROJECT_NAME": "eu-de_team",
}

CLOUDS = """
clouds:
  terraform:
    auth: {access_key: AK, secret_key: hidden-sk, security_token: hidden-st, project_id: p1}
  otcextensions:
    auth: {ak: AK, sk: hidden-sk, project_id: p1, auth_url: "https://iam.example/v3"}
  identity:
    auth: {access: AK, secret: hidden-sk, securitytoken: hidden-st, project_id: p1}
  of-account:
    auth: {ak: AK, sk: hidden-sk, project_id: p1, domain_id: d1, auth_url: "https://iam.example/v3"}
  of-account-of-user:
    auth: {ak: AK, sk: hidden-sk, project_id: p1, user_domain_id: d1, auth_url: "https://iam.example/v3"}
  server-of-account:
    auth_type: agency
    auth: {project_id: p1, domain_id: d1, auth_url: "https://iam.example/v3"}
  beside:
    ak: AK
    sk: hidden-sk
    auth: {project_name: eu-de_team}
  both:
    auth: {ak: AK, access_key: OTHER, sk: hidden-sk, project_id: p1}
  half:
    auth: {ak: AK, project_id: p1}
  token-alone:
    auth: {security_token: hidden-st, project_id: p1}
  server:
    auth_type: agency
    region_name: eu-nl
    auth: {project_id: p1}
  server-and-key:
    auth_type: agency
    auth: {ak: AK, sk: hidden-sk, project_id: p1}
  tested-server:
    auth_type: agency
    auth: {project_id: p1, metadata_url: "http://127.0.0.1:8080"}
  odd-server:
    auth_type: agency
    auth: {project_id: p1, metadata_url: "http://169.254.169.253"}
  delegate:
    auth: {auth_url: "https://iam.example/v3", username: u, password: hidden, user_domain_name: own,
           agency_name: audit, agency_domain_name: other, project_name: eu-de_their}
  half-delegate:
    auth: {auth_url: "https://iam.example/v3", username: u, password: hidden, user_domain_name: own,
           agency_name: audit, project_name: eu-de_their}
  application:
    auth_type: v3applicationcredential
    auth: {auth_url: "https://iam.example/v3", application_credential_id: x, application_credential_secret: hidden}
  regional:
    region_name: eu-de
    auth: {username: u, password: hidden, user_domain_name: own, project_id: p1}
"""


@pytest.fixture
def clouds(tmp_path):
    path = tmp_path / "clouds.yaml"
    path.write_text(CLOUDS)
    return lambda cloud: {"OS_CLIENT_CONFIG_FILE": str(path), "OS_CLOUD": cloud}


def refusal(env):
    with pytest.raises(ConfigurationError) as raised:
        load_credentials(None, env)
    assert raised.value.exit_status == 2
    assert "hidden" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("name", ["OS_SECURITY_TOKEN", "OS_SESSION_TOKEN"])
def test_temporary_key_has_a_security_token(name):
    key = load_credentials(None, OS | PROJECT | {name: "hidden-st"})
    assert key == AccessKey("OS-AK", "hidden-os", "p1", "hidden-st")
    assert (key.source, key.correct_in) == (
        "temporary access key from OS_ACCESS_KEY",
        f"OS_ACCESS_KEY, OS_SECRET_KEY, {name}",
    )
    assert "hidden" not in repr(key)


@pytest.mark.parametrize(
    ("env", "key", "source"),
    [
        (OS | SDK | HW, "OS-AK", "access key from OS_ACCESS_KEY"),
        (SDK | HW, "SDK-AK", "access key from HUAWEICLOUD_SDK_AK"),
        (HW, "HW-AK", "access key from HW_ACCESS_KEY"),
    ],
)
def test_variables_of_other_clients_follow_ours(env, key, source):
    found = load_credentials(None, env | PROJECT)
    assert isinstance(found, AccessKey)
    assert (found.access_key, found.project_id, found.source) == (key, "p1", source)


def test_no_variable_of_another_vendor_is_read():
    aws = {"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "hidden", "AWS_REGION": "eu-de"}
    assert refusal(aws | PROJECT).startswith("No credentials found")


def test_other_clients_state_project_region_and_token_too():
    sdk = SDK | {"HUAWEICLOUD_SDK_SECURITY_TOKEN": "hidden-st", "HUAWEICLOUD_SDK_PROJECT_ID": "p2"}
    assert load_credentials(None, sdk) == AccessKey("SDK-AK", "hidden-sdk", "p2", "hidden-st")
    found = load_credentials(None, HW | {"HW_REGION_NAME": "cn-north-4", "HW_PROJECT_NAME": "cn-north-4_ml"})
    assert found == AccessKey(
        "HW-AK", "hidden-hw", None, None, "cn-north-4_ml", "https://iam.cn-north-4.myhuaweicloud.com/v3"
    )
    assert (found.region.name, found.region.stated_by) == ("cn-north-4", "HW_REGION_NAME")


def test_user_of_the_terraform_provider_is_understood():
    login = load_credentials(
        None,
        {
            "HW_USER_NAME": "auditor",
            "HW_USER_PASSWORD": "hidden",
            "HW_DOMAIN_NAME": "own",
            "HW_REGION_NAME": "ap-southeast-3",
            "HW_PROJECT_ID": "p1",
        },
    )
    assert isinstance(login, PasswordLogin)
    assert (login.user, login.password, login.user_domain) == ("auditor", "hidden", {"name": "own"})
    assert login.auth_url == "https://iam.ap-southeast-3.myhuaweicloud.com/v3"
    assert login.source == "password from HW_USER_PASSWORD"


def test_login_is_never_put_together_from_two_families():
    # The password of one cloud would reach the identity service of another.
    env = {"HW_USER_NAME": "u", "HW_USER_PASSWORD": "hidden", "HW_DOMAIN_NAME": "own"} | PROJECT
    assert "set HW_AUTH_URL" in refusal(env | {"OS_AUTH_URL": "https://iam.other.example"})
    assert refusal({"OS_ACCESS_KEY": "AK", "HW_SECRET_KEY": "hidden"} | PROJECT) == (
        "OS_ACCESS_KEY is set but OS_SECRET_KEY is not: set both, or neither."
    )


@pytest.mark.parametrize("cloud", ["terraform", "otcextensions", "identity"])
def test_keys_are_read_from_clouds_yaml_in_every_spelling(clouds, cloud):
    key = load_credentials(None, clouds(cloud))
    token = None if cloud == "otcextensions" else "hidden-st"
    assert key == AccessKey("AK", "hidden-sk", "p1", token)
    temporary = "temporary " if token else ""
    assert key.source == f"{temporary}access key of the cloud {cloud!r} in clouds.yaml"
    assert "hidden" not in repr(key)


def test_project_of_a_key_is_looked_up_by_its_name(clouds):
    found = AccessKey("AK", "hidden-sk", None, None, "eu-de_team", "https://iam.eu-de.otc.t-systems.com/v3")
    assert load_credentials(None, clouds("beside")) == found
    assert load_credentials("p7", clouds("beside")) == AccessKey("AK", "hidden-sk", "p7")


@pytest.mark.parametrize(
    ("env", "account"),
    [
        (OS, Account()),
        (OS | {"OS_DOMAIN_ID": "d1", "OS_USER_DOMAIN_ID": "d2"}, Account("d1")),
        (OS | {"OS_USER_DOMAIN_ID": "d2", "OS_DOMAIN_NAME": "own"}, Account("d2")),
        # Where only the bill may need it, the URL is not checked yet.
        (OS | {"OS_AUTH_URL": "iam"}, Account(None, "iam")),
        ({"OS_AUTH_TYPE": "agency", "OS_DOMAIN_ID": "d1"}, Account("d1")),
        (
            SDK | {"HUAWEICLOUD_SDK_DOMAIN_ID": "d3", "OS_DOMAIN_ID": "d1"},
            Account("d3", None, "HUAWEICLOUD_SDK_DOMAIN_ID", "HUAWEICLOUD_SDK_IAM_ENDPOINT"),
        ),
        (HW | {"HW_DOMAIN_ID": "d4"}, Account("d4", None, "HW_DOMAIN_ID", "HW_AUTH_URL")),
    ],
)
def test_account_of_a_key_is_stated_beside_it(env, account):
    found = load_credentials(None, PROJECT | env)
    assert isinstance(found, AccessKey | ServerAgency)
    assert found.account == account


@pytest.mark.parametrize("cloud", ["of-account", "of-account-of-user", "server-of-account"])
def test_account_is_read_from_clouds_yaml(clouds, cloud):
    of = f"of the cloud {cloud!r} in clouds.yaml"
    found = load_credentials(None, clouds(cloud)).account
    assert found == Account("d1", "https://iam.example/v3", f"domain_id {of}", f"auth_url {of}")


def test_identity_service_that_the_region_names_looks_up_the_account_too(clouds):
    found = load_credentials(None, clouds("beside"))
    assert found.account.auth_url == found.auth_url == "https://iam.eu-de.otc.t-systems.com/v3"


@pytest.mark.parametrize(
    ("env", "credentials"),
    [
        ({"OS_PROJECT_ID": "p1"}, ServerAgency("p1")),
        (
            {"OS_PROJECT_ID": "p1", "OS_METADATA_URL": "http://127.0.0.1:80/"},
            ServerAgency("p1", metadata_url="http://127.0.0.1:80"),
        ),
        (
            {"OS_PROJECT_NAME": "eu-nl_x"},
            ServerAgency(None, "eu-nl_x", "https://iam.eu-nl.otc.t-systems.com/v3"),
        ),
    ],
)
def test_agency_of_the_server_is_used_when_it_is_stated(env, credentials):
    found = load_credentials(None, {"OS_AUTH_TYPE": "agency"} | env)
    assert found == credentials
    assert found.source == "agency of this server"


def test_agency_of_the_server_is_read_from_clouds_yaml(clouds):
    found = load_credentials(None, clouds("server"))
    assert found == ServerAgency("p1")
    assert found.source == "agency of this server, by the cloud 'server' in clouds.yaml"
    assert found.region.name == "eu-nl"
    assert load_credentials(None, clouds("tested-server")) == ServerAgency("p1", metadata_url="http://127.0.0.1:8080")


def test_agency_of_another_account_is_taken_on_by_a_user(clouds):
    login = load_credentials(None, clouds("delegate"))
    assert isinstance(login, PasswordLogin)
    assert login.agency == Agency("audit", {"name": "other"})
    assert (login.project_name, login.project_domain) == ("eu-de_their", {"name": "other"})
    login = load_credentials(
        None,
        LOGIN | {"OS_AGENCY_NAME": "audit", "OS_AGENCY_DOMAIN_NAME": "other", "OS_DELEGATED_PROJECT": "eu-nl_their"},
    )
    assert isinstance(login, PasswordLogin)
    assert (login.agency, login.project_name) == (Agency("audit", {"name": "other"}), "eu-nl_their")
    assert login.source == "agency 'audit' of another account, by the password from OS_PASSWORD"


@pytest.mark.parametrize(
    ("env", "name", "stated_by"),
    [
        (OS | PROJECT | {"OS_REGION_NAME": "eu-nl"}, "eu-nl", "OS_REGION_NAME"),
        (LOGIN, "eu-de", "the project's name eu-de_team"),
        (LOGIN | {"OS_REGION_NAME": "eu-nl"}, "eu-nl", "OS_REGION_NAME"),
        ({"OS_TOKEN": "t"} | PROJECT | {"OS_REGION_NAME": "eu-ch2"}, "eu-ch2", "OS_REGION_NAME"),
    ],
)
def test_region_is_stated_or_follows_from_the_project(env, name, stated_by):
    region = load_credentials(None, env).region
    assert (region.name, region.stated_by) == (name, stated_by)


def test_no_region_is_guessed():
    assert load_credentials(None, OS | PROJECT).region is None
    assert load_credentials(None, LOGIN | {"OS_PROJECT_NAME": "team"}).region is None
    # Where nothing needs the region, its name may be one that only the cloud knows.
    assert load_credentials(None, OS | PROJECT | {"OS_REGION_NAME": "RegionOne"}) == AccessKey(
        "OS-AK", "hidden-os", "p1"
    )


def test_identity_service_follows_from_the_region(clouds):
    login = load_credentials(None, clouds("regional"))
    assert isinstance(login, PasswordLogin)
    assert login.auth_url == "https://iam.eu-de.otc.t-systems.com/v3"
    assert login.region.stated_by == "region_name of the cloud 'regional' in clouds.yaml"


@pytest.mark.parametrize(
    ("env", "says"),
    [
        (
            OS | {"OS_SECURITY_TOKEN": "hidden", "OS_SESSION_TOKEN": "hidden-2"},
            "OS_SECURITY_TOKEN and OS_SESSION_TOKEN have different values: unset one of them.",
        ),
        (
            {"OS_SESSION_TOKEN": "hidden"},
            (
                "OS_SESSION_TOKEN is set without the access key that it belongs to: set OS_ACCESS_KEY and "
                "OS_SECRET_KEY, too."
            ),
        ),
        (
            {"HW_SECURITY_TOKEN": "hidden"},
            (
                "HW_SECURITY_TOKEN is set without the access key that it belongs to: set HW_ACCESS_KEY and "
                "HW_SECRET_KEY, too."
            ),
        ),
        (
            {"HUAWEICLOUD_SDK_SK": "hidden"},
            "HUAWEICLOUD_SDK_SK is set but HUAWEICLOUD_SDK_AK is not: set both, or neither.",
        ),
        (
            OS | {"OS_AUTH_TYPE": "agency"},
            (
                "OS_AUTH_TYPE asks for the agency of this server, and OS_ACCESS_KEY states other credentials: unset "
                "one of them."
            ),
        ),
        (
            LOGIN | {"OS_AUTH_TYPE": "agency"},
            (
                "OS_AUTH_TYPE asks for the agency of this server, and OS_PASSWORD states other credentials: unset one "
                "of them."
            ),
        ),
        (
            LOGIN | {"OS_AGENCY_NAME": "audit"},
            (
                "The agency of another account in the OS_* variables is incomplete: OS_AGENCY_NAME is stated, so state "
                "OS_AGENCY_DOMAIN_NAME (agency_domain_name in clouds.yaml), too."
            ),
        ),
        (
            OS | PROJECT | {"OS_AGENCY_NAME": "audit", "OS_AGENCY_DOMAIN_NAME": "other"},
            (
                "OS_AGENCY_NAME names an agency of another account, which only a user with a password can take on, and "
                "OS_ACCESS_KEY is stated: unset one of them."
            ),
        ),
        (
            OS | {"OS_PROJECT_NAME": "team"},
            (
                "An access key needs a project id, and the id of 'team' cannot be looked up without the identity "
                "service: set OS_PROJECT_ID, or OS_AUTH_URL or OS_REGION_NAME."
            ),
        ),
        (
            {"OS_AUTH_TYPE": "agency", "OS_PROJECT_ID": "p1", "OS_METADATA_URL": "http://u:hidden@127.0.0.1"},
            "OS_METADATA_URL must not hold credentials.",
        ),
    ],
)
def test_half_and_contradictory_statements_are_one_sentence(env, says):
    assert refusal(env) == says


@pytest.mark.parametrize(
    ("cloud", "says"),
    [
        ("both", "access_key and ak of the cloud 'both' in clouds.yaml differ: remove one of them."),
        ("half", "The access key of the cloud 'half' in clouds.yaml is incomplete: state secret_key, too."),
        (
            "token-alone",
            (
                "The access key of the cloud 'token-alone' in clouds.yaml is incomplete: state access_key and "
                "secret_key, too."
            ),
        ),
        (
            "server-and-key",
            (
                "The auth_type of the cloud 'server-and-key' in clouds.yaml asks for the agency of this server, and an "
                "access key is stated there, too: remove one of them."
            ),
        ),
        (
            "odd-server",
            "metadata_url of the cloud 'odd-server' in clouds.yaml must be https (http is accepted on loopback only).",
        ),
        (
            "half-delegate",
            (
                "The agency of another account in the cloud 'half-delegate' in clouds.yaml is incomplete: "
                "OS_AGENCY_NAME is stated, so state OS_AGENCY_DOMAIN_NAME (agency_domain_name in clouds.yaml), too."
            ),
        ),
        (
            "application",
            (
                "The auth_type 'v3applicationcredential' of the cloud 'application' in clouds.yaml cannot be used: the "
                "identity service of these clouds takes no application credentials. Use an access key, a password, or "
                "the agency of a server."
            ),
        ),
    ],
)
def test_half_and_contradictory_clouds_are_one_sentence(clouds, cloud, says):
    assert refusal(clouds(cloud)) == says


def test_credentials_are_stated_by_any_variable_of_a_login():
    assert stated_credentials({"HW_REGION_NAME": "eu-de", "OS_REGION_NAME": "eu-de", "HW_ACCESS_KEY": ""}) == []
    assert stated_credentials(HW | {"OS_AUTH_TYPE": "agency"}) == ["HW_ACCESS_KEY", "HW_SECRET_KEY", "OS_AUTH_TYPE"]
    assert stated_credentials({"OS_AUTH_TYPE": "password"}) == []


def test_ready_token_keeps_its_source():
    token = load_credentials(None, {"OS_TOKEN": "hidden", "OS_PROJECT_ID": "p1"})
    assert (token, token.source) == (ReadyToken("hidden", "p1"), "token from OS_TOKEN")


NOT_SENT = "holds a blank, a line break, or a character that is not ASCII, and no key or token does: copy it again."


@pytest.mark.parametrize("odd", ["hidden-\u00e4", "hidden- key", "hidden\nkey", "hidden-\x1bkey", "\u200bhidden-key"])
@pytest.mark.parametrize(
    ("env", "what"),
    [
        ({"OS_TOKEN": None, "OS_AUTH_URL": "https://iam.example/v3"}, "The token from OS_TOKEN"),
        ({"OS_ACCESS_KEY": None, "OS_SECRET_KEY": "s"}, "The access key from OS_ACCESS_KEY"),
        ({"HW_ACCESS_KEY": None, "HW_SECRET_KEY": "s"}, "The access key from HW_ACCESS_KEY"),
        (OS | {"OS_SECURITY_TOKEN": None}, "The security token of the temporary access key from OS_ACCESS_KEY"),
    ],
)
def test_key_that_no_header_can_hold_is_refused_and_not_quoted(env, what, odd):
    stated = {name: odd if value is None else value for name, value in env.items()}
    with pytest.raises(ConfigurationError) as refused:
        load_credentials("p1", stated)
    assert str(refused.value) == f"{what} {NOT_SENT}"


@pytest.mark.parametrize("odd", ["\u00e4", "a/../b?x", "a b", "a\nb", "x" * 65])
@pytest.mark.parametrize(
    ("env", "source"),
    [
        (OS, "access key from OS_ACCESS_KEY"),
        ({"OS_AUTH_TYPE": "agency"}, "agency of this server"),
        ({"OS_TOKEN": "t", "OS_AUTH_URL": "https://iam.example/v3"}, "token from OS_TOKEN"),
        (LOGIN, "password from OS_PASSWORD"),
    ],
)
def test_malformed_project_id_is_refused(env, source, odd):
    with pytest.raises(ConfigurationError) as refused:
        load_credentials(None, env | {"OS_PROJECT_ID": odd})
    assert str(refused.value) == (
        f"The project id stated with the {source} is malformed: it must be 1 to 64 letters, digits, - or _, and is "
        f"{odd!a}."
    )
