"""Reads the cloud that OS_CLOUD names from `clouds.yaml` with openstacksdk, and explains errors.

The library skips a file that it cannot read or parse, and then calls the cloud unknown. So this module reads the files
first, in the library's search order, and reports what is wrong with the first one that exists.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.errors import ConfigurationError
from pipelines.inputs import local_files
from pipelines.inputs.environment import at_home
from pipelines.inputs.text_files import decoded


def read_cloud(env: Mapping[str, str], name: Callable[[str], str]) -> Any:
    """Openstacksdk's region of the cloud that `OS_CLOUD` names; `name` says what a user would call a variable.

    Raises:
        ConfigurationError: no file describes the cloud, or the first file found cannot be read or is malformed. The
            message names the file, never a value from it.
    """
    # Imported here because it takes a second, and most commands need no credentials.
    from openstack import exceptions  # noqa: PLC0415
    from openstack.config import loader  # noqa: PLC0415

    cloud, region = env["OS_CLOUD"], env.get("OS_REGION_NAME")
    cloud_in, region_in = name("OS_CLOUD"), name("OS_REGION_NAME")
    path, clouds = _first("OS_CLIENT_CONFIG_FILE", env, loader.CONFIG_FILES)
    secure_path, secure = _first("OS_CLIENT_SECURE_FILE", env, loader.SECURE_FILES)
    if path is None and secure_path is None:
        raise ConfigurationError(
            f"{cloud_in} names the cloud {cloud!r}, but there is no clouds.yaml in "
            f"{', '.join(dict.fromkeys(os.path.dirname(name) for name in loader.CONFIG_FILES))}: "  # noqa: PTH120
            "write one, or set OS_CLIENT_CONFIG_FILE to its path."
        )
    known = sorted({str(name) for name in (*clouds, *secure)})
    if cloud not in known:
        raise ConfigurationError(
            f"{cloud_in} names the cloud {cloud!r}, which {path or secure_path} does not describe (it describes "
            f"{', '.join(known) or 'none'}): correct {cloud_in}, or the file (OS_CLIENT_CONFIG_FILE says which)."
        )

    def read(region_name: str | None) -> Any:
        # The environment is passed in; the library must not read it by itself.
        return loader.OpenStackConfig(
            config_files=[path] if path else [], secure_files=[secure_path] if secure_path else [], load_envvars=False
        ).get_one(cloud=cloud, region_name=region_name, validate=False)

    malformed = ConfigurationError(
        f"The description of the cloud {cloud!r} ({cloud_in}) in {path or secure_path} is malformed: correct the file."
    )
    # The library raises these for valid YAML that does not describe clouds. Its messages may quote values.
    errors = (exceptions.ConfigException, AttributeError, KeyError, TypeError, ValueError)
    try:
        return read(region)
    except exceptions.ConfigException:
        if region is None:
            raise malformed from None
    except errors:
        raise malformed from None
    try:
        read(None)
    except errors:
        raise malformed from None
    raise ConfigurationError(
        f"{region_in} names the region {region!r}, which the cloud {cloud!r} in {path or secure_path} does not "
        f"have: correct {region_in}, or the cloud's regions."
    )


def _first(variable: str, env: Mapping[str, str], usual: Sequence[str]) -> tuple[str | None, dict[Any, Any]]:
    """The file that a variable names, else the first of the default files that exists, and the clouds in it."""
    if variable in env:
        try:
            path = at_home(env[variable])
            if not local_files.exists(Path(path)):
                raise ConfigurationError(f"The file {path} does not exist: correct {variable}.")
        except ValueError as reason:
            raise ConfigurationError(f"{variable} {reason}.") from None
        except OSError as error:
            raise _unreadable(path, error) from None
        return path, _clouds(path)
    found = next(filter(_is_there, usual), None)
    return found, {} if found is None else _clouds(found)


def _is_there(path: str) -> bool:
    try:
        return local_files.exists(Path(path))
    except OSError:
        # A default location may be closed to this user, such as another user's home.
        return False


def _clouds(path: str) -> dict[Any, Any]:
    """The value of `clouds` in a file."""
    import yaml  # noqa: PLC0415  (openstacksdk brings it, and reads the file by it)

    try:
        text = decoded(Path(path).read_bytes())
    except OSError as error:
        raise _unreadable(path, error) from None
    except ValueError as reason:
        raise ConfigurationError(f"The file {path} {reason}.") from None
    kind = "JSON" if path.endswith("json") else "YAML"
    try:
        stated = json.loads(text) if kind == "JSON" else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError, RecursionError) as error:
        # Only the position: the parser's message may quote values.
        line = getattr(error, "lineno", None) or getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        where = f" in line {line}" if line else ""
        raise ConfigurationError(f"The file {path} is broken {kind}{where}: correct it.") from None
    except ValueError:
        # For example, a date with month 13.
        raise ConfigurationError(f"The file {path} is broken {kind}: correct it.") from None
    clouds = stated.get("clouds") if isinstance(stated, dict) else None
    if not isinstance(clouds, dict):
        raise ConfigurationError(f"The file {path} describes no clouds: it must list them by name under `clouds:`.")
    return clouds


def _unreadable(path: str, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"The file {path} cannot be read: {error.strerror}. Let this user read it, or set OS_CLIENT_CONFIG_FILE to "
        "another."
    )
