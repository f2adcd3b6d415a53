"""The variables that settings are read from: those of the process, and the lines of a file `.env`.

A variable of the process may have passed through tools that read `.env` otherwise than a shell does (`docker
--env-file`, `kubectl --from-env-file`, files with the line ends of Windows). What such tools leave around a value is
taken off. What is in `.env` itself is kept as its quotes state it.
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
# Those of our own, of the cloud's credentials and of the object store.
_READ = (OURS, "OS_", "AWS_")
_SINGLE_QUOTED = re.compile(r"\s*(?:export\s+)?[^=]*=\s*'")
# Alone among them it may begin and end with quotation marks of its own.
_PASSWORD = "OS_PASSWORD"  # noqa: S105  (its name)


def prepare_environment(path: Path, environ: MutableMapping[str, str]) -> None:
    """Put what a file `.env` states into the environment, which wins, and clean what tools left in the environment.

    Raises:
        ConfigurationError: the file cannot be read or has a line that states nothing; a variable is no text, or is a
            password of which it cannot be told whether its quotes belong to it. No value is quoted.
    """
    stated = read_env_file(path, environ)
    for name, value in list(environ.items()):
        # A parent of this process may have read the same file.
        if name.startswith(_READ) and value != stated.get(name):
            environ[name] = _cleaned(name, value)
    for name, value in stated.items():
        environ.setdefault(name, value)


def read_env_file(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The names and values of a file `.env`; none where there is no such file.

    `${NAME}` stands for a variable of `environ` or of a line before, except in single quotes.

    Raises:
        ConfigurationError: it cannot be read, is no UTF-8 text, or has a line that states nothing.
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
    # Parsed lines begin with the blank ones before them.
    blank = len(binding.original.string) - len(binding.original.string.lstrip())
    return binding.original.line + binding.original.string.count("\n", 0, blank)


def _resolved(binding: Binding, path: Path, known: Mapping[str, str]) -> str:
    value = binding.value or ""
    if _SINGLE_QUOTED.match(binding.original.string):
        return value
    atoms = list(parse_variables(value))
    for atom in atoms:
        if isinstance(atom, Variable) and atom.default is None and atom.name not in known:
            # Not its name, which may be part of a password.
            raise ConfigurationError(
                f"Line {_line(binding)} of the settings file {path} uses a variable, ${{...}}, that is not set: set "
                "it, or write the value in single quotes if it is meant as it is."
            )
    return "".join(atom.resolve(known) for atom in atoms)


def _cleaned(name: str, value: str) -> str:
    """A value of the environment without what tools leave around it."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"The variable {name} is not UTF-8 text: write it in UTF-8.") from None
    # A password's blanks are its own.
    value = value.rstrip("\r\n") if name == _PASSWORD else value.strip()
    if len(value) < 2 or value[0] != value[-1] or value[0] not in "\"'":
        return value
    if name == _PASSWORD:
        raise ConfigurationError(
            f"{name} begins and ends with quotation marks, as a tool leaves them that reads a file of variables "
            "without taking them off: state it without them there, or, if they belong to the password, in the file "
            f".env as {name}='...' around all of it."
        )
    return value[1:-1]


def at_home(path: str) -> str:
    """A path whose `~` or `~user` at the beginning is the home directory.

    Raises:
        ValueError: there is no such home, as the end of a sentence.
    """
    try:
        # By pathlib, which tells; os.path leaves it as it is, so that a directory `~` would be made.
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        raise ValueError(f"begins with {path.partition(os.sep)[0]}, and there is no such home directory") from None
