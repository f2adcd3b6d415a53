"""The variables that state credentials: ours are those of the cloud's own tools (`OS_*`), and two families of others.

`HUAWEICLOUD_SDK_*` are the variables of the vendor's SDKs, `HW_*` those of its Terraform provider. Which kind of
credentials they make belongs to `cloud.credentials`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines.errors import ConfigurationError
from pipelines.inputs.environment import PASSWORDS
from pipelines.inputs.secret_files import SUFFIX, with_secret_files

# What other tools call our variables. A family later in this order counts only where no earlier one states a login.
_OTHER_NAMES: dict[str, dict[str, str]] = {
    "HUAWEICLOUD_SDK_": {
        "OS_ACCESS_KEY": "HUAWEICLOUD_SDK_AK",
        "OS_SECRET_KEY": "HUAWEICLOUD_SDK_SK",
        "OS_SECURITY_TOKEN": "HUAWEICLOUD_SDK_SECURITY_TOKEN",
        "OS_PROJECT_ID": "HUAWEICLOUD_SDK_PROJECT_ID",
        "OS_DOMAIN_ID": "HUAWEICLOUD_SDK_DOMAIN_ID",
        "OS_AUTH_URL": "HUAWEICLOUD_SDK_IAM_ENDPOINT",
    },
    "HW_": {
        "OS_ACCESS_KEY": "HW_ACCESS_KEY",
        "OS_SECRET_KEY": "HW_SECRET_KEY",
        "OS_SECURITY_TOKEN": "HW_SECURITY_TOKEN",
        "OS_USERNAME": "HW_USER_NAME",
        "OS_PASSWORD": "HW_USER_PASSWORD",
        "OS_DOMAIN_ID": "HW_DOMAIN_ID",
        "OS_USER_DOMAIN_NAME": "HW_DOMAIN_NAME",
        "OS_AGENCY_NAME": "HW_ASSUME_ROLE_AGENCY_NAME",
        "OS_AGENCY_DOMAIN_NAME": "HW_ASSUME_ROLE_DOMAIN_NAME",
        "OS_PROJECT_ID": "HW_PROJECT_ID",
        "OS_PROJECT_NAME": "HW_PROJECT_NAME",
        "OS_REGION_NAME": "HW_REGION_NAME",
        "OS_AUTH_URL": "HW_AUTH_URL",
    },
}
# The variables of ours that state who signs in.
_LOGINS = ("OS_CLOUD", "OS_ACCESS_KEY", "OS_SECRET_KEY", "OS_SECURITY_TOKEN", "OS_SESSION_TOKEN", "OS_TOKEN",
           "OS_USERNAME", "OS_USER_ID", "OS_PASSWORD")  # fmt: skip
# Those that state the rest of a login, or its project.
_OTHERS = (
    "OS_AUTH_URL", "OS_PROJECT_ID", "OS_PROJECT_NAME", "OS_TENANT_ID", "OS_TENANT_NAME", "OS_DOMAIN_ID",
    "OS_DOMAIN_NAME", "OS_USER_DOMAIN_ID", "OS_USER_DOMAIN_NAME", "OS_PROJECT_DOMAIN_ID", "OS_PROJECT_DOMAIN_NAME",
)  # fmt: skip
# What is no part of a login, and may be stated by another family than the login: each group by the first that does.
_PLACES = (
    ("OS_PROJECT_ID", "OS_PROJECT_NAME", "OS_TENANT_ID", "OS_TENANT_NAME", "OS_DELEGATED_PROJECT"),
    ("OS_REGION_NAME",),
)
_SECRETS = ("OS_ACCESS_KEY", "OS_SECRET_KEY", "OS_SECURITY_TOKEN", "OS_SESSION_TOKEN", "OS_TOKEN", "OS_PASSWORD")

# The secret variables, each of which may be a file.
SECRET_VARIABLES = (
    *_SECRETS,
    *(names[name] for names in _OTHER_NAMES.values() for name in _SECRETS if name in names),
)
AGENCY = "agency"
# Prefixes of the variables that are read here.
PREFIXES = ("OS_", *_OTHER_NAMES)


@dataclass(frozen=True, slots=True)
class Variables:
    """What is stated, by our names; `names` has the variable's own name where that is another."""

    values: Mapping[str, str] = field(repr=False)
    names: Mapping[str, str]

    def name(self, ours: str) -> str:
        """The variable that states a value, or that should, by its own name."""
        return self.names.get(ours, ours)


def read_variables(environ: Mapping[str, str]) -> Variables:
    """The variables of credentials, with secrets read from files.

    The first family that states a login counts, and no login is put together from two: a password must not reach the
    identity service of another. The project and the region may come from another family.

    Raises:
        ConfigurationError: a secret's file cannot be used, or a secret and its file are both stated.
    """
    env = with_secret_files(
        {name: value for name, value in environ.items() if name.startswith(PREFIXES)}, SECRET_VARIABLES
    )
    env = {name: value if name in PASSWORDS else value.strip() for name, value in env.items() if value.strip()}
    families = [{name: name for name in env if name.startswith("OS_")}]
    families += [{ours: name for ours, name in names.items() if name in env} for names in _OTHER_NAMES.values()]
    known = [{}, *_OTHER_NAMES.values()]
    chosen = next((number for number, family in enumerate(families) if _states_login(family, env)), 0)
    names = dict(families[chosen])
    for group in _PLACES:
        stated = next((family for family in families if any(name in family for name in group)), {})
        names = {ours: name for ours, name in names.items() if ours not in group}
        names |= {ours: name for ours, name in stated.items() if ours in group}
    return Variables({ours: env[name] for ours, name in names.items()}, {**known[chosen], **names})


def stated_credentials(environ: Mapping[str, str]) -> list[str]:
    """Names of the set variables that choose the cloud, the user or the project, in any family."""
    wanted = [
        *dict.fromkeys(("OS_CLOUD", "OS_ACCESS_KEY", "OS_SECRET_KEY", "OS_AUTH_URL", *_LOGINS, *_OTHERS)),
        *(names[name] for names in _OTHER_NAMES.values() for name in _LOGINS if name in names),
    ]
    found = [
        name
        for name in wanted
        if environ.get(name, "").strip() or (name in SECRET_VARIABLES and environ.get(f"{name}{SUFFIX}", "").strip())
    ]
    return found + (["OS_AUTH_TYPE"] if environ.get("OS_AUTH_TYPE", "").strip().lower() == AGENCY else [])


def check_key(variables: Variables) -> tuple[str, str, str | None] | None:
    """The access key, the secret key and the security token that are stated; None without any of them.

    Raises:
        ConfigurationError: a part is missing, or two variables contradict each other; names the variables.
    """
    values, name = variables.values, variables.name
    key, secret = values.get("OS_ACCESS_KEY"), values.get("OS_SECRET_KEY")
    tokens = {values[one] for one in ("OS_SECURITY_TOKEN", "OS_SESSION_TOKEN") if one in values}
    if len(tokens) > 1:
        raise ConfigurationError("OS_SECURITY_TOKEN and OS_SESSION_TOKEN have different values: unset one of them.")
    if key and secret:
        return key, secret, next(iter(tokens), None)
    if key or secret:
        there, missing = ("OS_ACCESS_KEY", "OS_SECRET_KEY") if key else ("OS_SECRET_KEY", "OS_ACCESS_KEY")
        raise ConfigurationError(f"{name(there)} is set but {name(missing)} is not: set both, or neither.")
    if tokens:
        there = "OS_SECURITY_TOKEN" if "OS_SECURITY_TOKEN" in values else "OS_SESSION_TOKEN"
        raise ConfigurationError(
            f"{name(there)} is set without the access key that it belongs to: set {name('OS_ACCESS_KEY')} and "
            f"{name('OS_SECRET_KEY')}, too."
        )
    return None


def _states_login(family: Mapping[str, str], env: Mapping[str, str]) -> bool:
    return any(name in family for name in _LOGINS) or env.get(family.get("OS_AUTH_TYPE", ""), "").lower() == AGENCY
