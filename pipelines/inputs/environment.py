"""Reads the variables of the settings from the process environment and from a file `.env`.

Some tools (`docker --env-file`, `kubectl --from-env-file`, files with Windows line ends) pass a value on with its
quotes or line end. This module removes these from environment variables. Values in `.env` itself follow its quotes.
"""

import io
import os
import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from dotenv.parser import Binding, parse_stream
from dotenv.variables import Variable, parse_variables

from pipelines.errors import ConfigurationError
from pipelines.inputs import local_files
from pipelines.inputs.text_files import decoded

OURS = "IMAGE_SNAPSHOTS_"
# Prefixes of our settings, the cloud's credentials (also those of its other clients) and the object store's variables.
_READ = (OURS, "OS_", "HUAWEICLOUD_SDK_", "HW_", "AWS_")
_SINGLE_QUOTED = re.compile(r"\s*(?:export\s+)?[^=]*=\s*'")
# Only a password may begin and end with quotation marks and blanks that belong to it.
PASSWORDS = frozenset({"OS_PASSWORD", "HW_USER_PASSWORD"})


def prepare_environment(path: Path, environ: MutableMapping[str, str]) -> None:
    """Add the variables of a file `.env` to the environment, which wins, and clean the environment's own values.

    Raises:
        ConfigurationError: the file cannot be read or has a malformed line; or a variable is not text, or is a password
            in quotation marks that may or may not belong to it. The message quotes no value.
    """
    stated = read_env_file(path, environ)
    for name, value in list(environ.items()):
        # A parent of this process may have read the same file.
        if name.startswith(_READ) and value != stated.get(name):
            environ[name] = _cleaned(name, value)
    for name, value in stated.items():
        environ.setdefault(name, value)


def read_env_file(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The names and values in a file `.env`; empty if there is no such file.

    `${NAME}` is replaced by a variable of `environ` or of an earlier line, except in single quotes.

    Raises:
        ConfigurationError: the file cannot be read, is not UTF-8 text, or has a malformed line.
    """
    try:
        if not local_files.exists(path):
            return {}
        text = decoded(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"The settings file {path} cannot be read: {error.strerror}.") from None
    except ValueError as reason:
        raise ConfigurationError(f"The settings file {path} {reason}.") from None
    values: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            raise ConfigurationError(
                f"Line {_line(binding)} of the settings file {path} is not NAME=value: correct it."
            )
        if binding.key is not None and binding.value is not None:
            values[binding.key] = _resolved(binding, path, {**values, **environ})
    return values


def _line(binding: Binding) -> int:
    # A parsed line includes the blank lines before it.
    blank = len(binding.original.string) - len(binding.original.string.lstrip())
    return binding.original.line + binding.original.string.count("\n", 0, blank)


def _resolved(binding: Binding, path: Path, known: Mapping[str, str]) -> str:
    value = binding.value or ""
    if _SINGLE_QUOTED.match(binding.original.string):
        return value
    atoms = list(parse_variables(value))
    for atom in atoms:
        if isinstance(atom, Variable) and atom.default is None and atom.name not in known:
            # The variable's name is not quoted: it may be part of a password.
            raise ConfigurationError(
                f"Line {_line(binding)} of the settings file {path} uses a variable, ${{...}}, that is not set: set "
                "it, or write the value in single quotes to keep it as it is."
            )
    return "".join(atom.resolve(known) for atom in atoms)


def _cleaned(name: str, value: str) -> str:
    """An environment value without the quotes and line ends that tools leave around it."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"The variable {name} is not UTF-8 text: write it in UTF-8.") from None
    # Blanks may belong to a password.
    value = value.rstrip("\r\n") if name in PASSWORDS else value.strip()
    if len(value) < 2 or value[0] != value[-1] or value[0] not in "\"'":
        return value
    if name in PASSWORDS:
        raise ConfigurationError(
            f"{name} begins and ends with quotation marks, which some tools keep when they read a file of variables: "
            "remove them there, or, if they belong to the password, write it in the file "
            f".env as {name}='...' with them inside."
        )
    return value[1:-1]


def at_home(path: str) -> str:
    """Replace `~` or `~user` at the beginning of a path by the home directory.

    Raises:
        ValueError: there is no such home directory; the message is the end of a sentence.
    """
    try:
        # pathlib raises an error for an unknown home; os.path would keep `~`, and a directory `~` would be made.
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        raise ValueError(f"begins with {path.partition(os.sep)[0]}, but there is no such home directory") from None
