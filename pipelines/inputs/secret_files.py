"""Reads secrets from files: where `NAME` is a secret, `NAME_FILE` may state the path of a file that holds it.

Docker and Kubernetes mount secrets as files, and systemd passes credentials as files. Every secret variable is read
through this module, each time that it is needed, so that a changed file counts from the next run on.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

from pipelines.errors import ConfigurationError
from pipelines.inputs.environment import at_home
from pipelines.inputs.text_files import decoded

SUFFIX = "_FILE"


def with_secret_files(environ: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """A copy of the environment in which each `NAME_FILE` of the given names is replaced by `NAME` and its value.

    A blank `NAME_FILE` counts as unset. Line ends after the value are removed, and nothing else.

    Raises:
        ConfigurationError: both variables are set; or the file cannot be read, is empty, or has several lines. The
            message names the variable and the path, never the content.
    """
    env = dict(environ)
    for name in names:
        stated = env.pop(f"{name}{SUFFIX}", "").strip()
        if not stated:
            continue
        if env.get(name, "").strip():
            raise ConfigurationError(f"Both {name} and {name}{SUFFIX} are set: unset one of them.")
        env[name] = _secret(f"{name}{SUFFIX}", stated)
    return env


def _secret(variable: str, stated: str) -> str:
    try:
        path = Path(at_home(stated))
    except ValueError as reason:
        raise ConfigurationError(f"{variable} {reason}.") from None
    try:
        text = decoded(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(
            f"The file {path} cannot be read: {error.strerror}. {variable} names it: correct the path, or let this "
            "user read it."
        ) from None
    except ValueError as reason:
        raise ConfigurationError(f"The file {path}, which {variable} names, {reason}.") from None
    value = text.rstrip("\r\n")
    if not value.strip():
        raise ConfigurationError(f"The file {path} is empty: write the secret to it, or correct {variable}.")
    if "\n" in value:
        raise ConfigurationError(
            f"The file {path} has several lines: it must hold the value of {variable.removesuffix(SUFFIX)} alone, as "
            f"{variable} names it."
        )
    return value
