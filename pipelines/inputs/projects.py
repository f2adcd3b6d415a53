"""Reads the projects: a TOML file with a table for each, or a JSON object, project key -> project id.

This module checks names and types. What a value may be is checked by the setting of its name; where credentials and
endpoints come from belongs to `cloud`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pipelines.errors import ConfigurationError
from pipelines.inputs.environment import at_home
from pipelines.inputs.project_keys import wrong_with_key
from pipelines.inputs.text_files import decoded, parse_toml


@dataclass(frozen=True, slots=True)
class Project:
    """One project as the user states it: which one it is in the cloud, and what it has for itself.

    `cloud`: the entry of `clouds.yaml` with its credentials; None: the credentials of the environment.
    `settings`: name of a general setting -> this project's own value. `file`: where all of this is stated.
    """

    project_id: str | None = None
    project_name: str | None = None
    cloud: str | None = None
    region: str | None = None
    # Left out of the repr, because an inventory's URL may hold a password.
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of value in the file: whether a value is of it, and how it must be, as the end of a sentence."""

    fits: Callable[[Any], bool]
    must: str


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TEXT = _Kind(_is_text, "must be text in quotes that is not empty")
_TEXTS = _Kind(_are_texts, 'must be a list of texts in quotes, such as ["team", "base"]')
# The setting is one text with commas; a list is accepted, too.
_NAMES = _Kind(lambda value: _is_text(value) or _are_texts(value), 'must be text in quotes, or a list, such as ["0"]')
_WHOLE = _Kind(lambda value: _is_number(value) and isinstance(value, int), "must be a whole number without quotes")
_NUMBER = _Kind(_is_number, "must be a number without quotes")

# Which project it is, and with which credentials: fields of `Project`.
_IDENTITY = {"project_id": _TEXT, "project_name": _TEXT, "cloud": _TEXT, "region": _TEXT}
# The general settings that a project may state for itself, by their names in lower case.
PROJECT_SETTINGS = {
    "endpoint": _TEXT,
    "inventory": _TEXT,
    "inventory_query": _TEXT,
    "workspaces": _NAMES,
    "usage": _NAMES,
    "concurrency": _WHOLE,
    "rate_limit": _NUMBER,
    "price_book": _TEXT,
    "allowed_namespaces": _TEXTS,
}

_KEYS = _IDENTITY | PROJECT_SETTINGS
_PROJECT_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
_REGION = re.compile(r"[a-z][a-z0-9-]{1,62}")
# No path, name or URL holds one; the operating system refuses paths with some.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def projects_of_object(stated: Mapping[Any, Any]) -> dict[str, Project]:
    """The projects of a JSON object, project key -> project id.

    Raises:
        ValueError: it is empty, or a key or an id is wrong; the message is the end of a sentence.
    """
    if not stated:
        raise ValueError("must name at least one project")
    projects = {}
    for key, value in stated.items():
        if wrong := wrong_with_key(str(key)):
            raise ValueError(f"key {key!r} {wrong}")
        project = value if isinstance(value, Project) else Project(project_id=value)
        if not isinstance(project.project_id, str | None):
            raise ValueError(f"the project id of {key!r} must be text in quotes")  # noqa: TRY004  (pydantic's own kind)
        if project.project_id is not None and not _PROJECT_ID.fullmatch(project.project_id):
            raise ValueError(f"the project id of {key!r} must be letters and digits only")
        projects[str(key)] = project
    return projects


def read_projects(stated: str) -> dict[str, Project]:
    """The projects of a TOML file: a table for each, named by the project's key.

    Raises:
        ConfigurationError: the file cannot be read or is wrong; names project and key, never a value.
    """
    try:
        path = Path(at_home(stated))
    except ValueError as reason:
        raise ConfigurationError(f"The path of the projects file (IMAGE_SNAPSHOTS_PROJECTS) {reason}.") from None
    try:
        text = decoded(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(
            f"The projects file {path} cannot be read: {error.strerror}. Correct IMAGE_SNAPSHOTS_PROJECTS."
        ) from None
    except ValueError as reason:
        raise ConfigurationError(f"The projects file {path} {reason}.") from None
    try:
        tables = parse_toml(text)
    except ValueError as error:
        raise _wrong(path, f"it is no valid TOML ({error})") from None
    if not tables:
        raise _wrong(path, "it names no project: write a table for each, such as [prod]")
    for key, table in tables.items():
        if not isinstance(table, dict):
            raise _wrong(path, f"`{key}` stands outside of a project: write it below [KEY], the key of its project")
        if wrong := wrong_with_key(key):
            raise _wrong(path, f"the project key {key!r} {wrong}")
    return {key: _project(path, key, table) for key, table in tables.items()}


def _project(path: Path, key: str, table: Mapping[str, Any]) -> Project:
    for name, value in table.items():
        if name not in _KEYS:
            near = get_close_matches(name.lower(), _KEYS, 1)
            if near:
                advice = f"did you mean `{near[0]}`?"
            elif isinstance(value, dict):
                advice = f'a project key with a dot stands in quotes, ["{key}.{name}"]'
            else:
                advice = f"known are {', '.join(_KEYS)}"
            raise _wrong(path, f"project {key!r} has the unknown key `{name}`: {advice}")
        if not _KEYS[name].fits(value):
            raise wrong_value(path, key, name, _KEYS[name].must)
        if any(_CONTROL.search(text) for text in (value if isinstance(value, list) else [value]) if _is_text(text)):
            raise wrong_value(path, key, name, "must not hold a line break or another control character")
    if "project_id" in table and "project_name" in table:
        raise _wrong(path, f"project {key!r} states both `project_id` and `project_name`: keep one")
    if not table.keys() & {"project_id", "project_name", "cloud"}:
        raise _wrong(
            path,
            f"project {key!r} does not say which project it is: state `project_id`, `project_name`, or `cloud`, an "
            "entry of clouds.yaml that names the project",
        )
    identity = {name: table[name].strip() for name in _IDENTITY if name in table}
    if not _PROJECT_ID.fullmatch(identity.get("project_id", "0")):
        raise wrong_value(path, key, "project_id", "must be letters and digits only")
    if not _REGION.fullmatch(identity.get("region", "eu-de")):
        raise wrong_value(path, key, "region", "must look like eu-de or cn-north-4")
    settings = {name: table[name] for name in PROJECT_SETTINGS if name in table}
    for name, value in settings.items():
        if PROJECT_SETTINGS[name] is _NAMES and isinstance(value, list):
            settings[name] = ",".join(value)
    return Project(**identity, settings=settings, file=path)


def wrong_value(path: Path | None, key: str, name: str, reason: str) -> ConfigurationError:
    """The error for a value of a project; `reason` is the end of a sentence and quotes no secret."""
    return _wrong(path, f"`{name}` of project {key!r} {reason}")


def _wrong(path: Path | None, what: str) -> ConfigurationError:
    return ConfigurationError(f"The projects file {path} is wrong: {what}" + ("" if what.endswith("?") else "."))
