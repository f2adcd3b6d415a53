"""Reads the cloud that OS_CLOUD names from `clouds.yaml`, by openstacksdk, and says why where it cannot.

The library passes over a file that it cannot read or understand, and calls the cloud unknown. So the files are read
here first, in the order in which it looks for them, and what is wrong with the first that exists is said.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.errors import ConfigurationError
from pipelines.inputs import local_files
from pipelines.inputs.environment import at_home
from pipelines.inputs.text_files import decoded


def read_cloud(env: Mapping[str, str]) -> Any:
    """Openstacksdk's region of the cloud that `OS_CLOUD` names.

    Raises:
        ConfigurationError: no file describes it, or the first that exists cannot be read or is malformed; names the
            file, never a value of it.
    """
    # Imported here because it takes a second, and most commands need no credentials.
    from openstack import exceptions  # noqa: PLC0415
    from openstack.config import loader  # noqa: PLC0415

    cloud, region = env["OS_CLOUD"], env.get("OS_REGION_NAME")
    path, clouds = _first("OS_CLIENT_CONFIG_FILE", env, loader.CONFIG_FILES)
    secure_path, secure = _first("OS_CLIENT_SECURE_FILE", env, loader.SECURE_FILES)
    if path is None and secure_path is None:
        raise ConfigurationError(
            f"OS_CLOUD names the cloud {cloud!r}, and there is no clouds.yaml that could describe it in "
            f"{', '.join(dict.fromkeys(os.path.dirname(name) for name in loader.CONFIG_FILES))}: "  # noqa: PTH120
            "write one, or set OS_CLIENT_CONFIG_FILE to its path."
        )
    known = sorted({str(name) for name in (*clouds, *secure)})
    if cloud not in known:
        raise ConfigurationError(
            f"OS_CLOUD names the cloud {cloud!r}, which {path or secure_path} does not describe (it describes "
            f"{', '.join(known) or 'none'}): correct OS_CLOUD, or the file (OS_CLIENT_CONFIG_FILE says which)."
        )

    def read(region_name: str | None) -> Any:
        # The environment is handed over, never read behind our back.
        return loader.OpenStackConfig(
            config_files=[path] if path else [], secure_files=[secure_path] if secure_path else [], load_envvars=False
        ).get_one(cloud=cloud, region_name=region_name, validate=False)

    malformed = ConfigurationError(
        f"The description of the cloud {cloud!r} (OS_CLOUD) in {path or secure_path} is malformed: correct the file."
    )
    # What the library does with a file that is YAML but no description of clouds. Its message may quote values.
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
        f"OS_REGION_NAME names the region {region!r}, which the cloud {cloud!r} in {path or secure_path} does not "
        "have: correct OS_REGION_NAME, or the cloud's regions."
    )


def _first(variable: str, env: Mapping[str, str], usual: Sequence[str]) -> tuple[str | None, dict[Any, Any]]:
    """The file that a variable states, or else the first of the usual ones that there is, and the clouds in it."""
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
        # A usual place may be one of others, such as the home of another user.
        return False


def _clouds(path: str) -> dict[Any, Any]:
    """What a file states under `clouds`."""
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
        # Not what they say, which may quote values.
        line = getattr(error, "lineno", None) or getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        where = f" in line {line}" if line else ""
        raise ConfigurationError(f"The file {path} is broken {kind}{where}: correct it.") from None
    except ValueError:
        # A date, say, of a month 13.
        raise ConfigurationError(f"The file {path} is broken {kind}: correct it.") from None
    clouds = stated.get("clouds") if isinstance(stated, dict) else None
    if not isinstance(clouds, dict):
        raise ConfigurationError(f"The file {path} describes no clouds: it must have them by name under `clouds:`.")
    return clouds


def _unreadable(path: str, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"The file {path} cannot be read: {error.strerror}. Let this user read it, or set OS_CLIENT_CONFIG_FILE to "
        "another."
    )
