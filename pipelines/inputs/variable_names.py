"""Checks of our variables as such: that each is a setting, and that JSON in one can be read in one way alone.

What a value may be belongs to `pipelines.settings`.
"""

import json
import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches

from pipelines.errors import ConfigurationError
from pipelines.inputs.environment import OURS

# Variables that Kubernetes and Docker set in containers near a service named image-snapshots.
_OF_A_SERVICE = re.compile(r"SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?")
# Names that are at least this similar count as misspellings of each other.
_ALIKE = 0.9


def check_names(names: Iterable[str], known: Collection[str]) -> None:
    """Refuse variables that look like our settings but are not, especially misspelt ones.

    `known`: the variables of all settings.

    Raises:
        ConfigurationError: there is such a variable; names the first, and the setting that it resembles.
    """
    for name in sorted(set(names) - set(known)):
        upper = name.upper()
        if _OF_A_SERVICE.fullmatch(name.removeprefix(OURS)):
            continue
        is_ours = upper.startswith(OURS)
        # For example, IMAGE_SNAPSHOT_ENDPOINT or IMG_SNAPSHOTS_ENDPOINT.
        may_resemble = not is_ours and ("SNAPSHOT" in upper or upper.startswith("IMAGE"))
        resembles = get_close_matches(upper, known, 1, _ALIKE) if may_resemble else []
        if is_ours or resembles:
            # Compare without the prefix, which would make all names similar.
            near = get_close_matches(upper.removeprefix(OURS), [one.removeprefix(OURS) for one in known], 1)
            meant = [f"{OURS}{one}" for one in near] or resembles
            advice = f"did you mean {meant[0]}?" if meant else "the README lists all settings."
            raise ConfigurationError(f"There is no setting {name}, so its value would be ignored: {advice}")


def check_json(setting: str, value: str) -> None:
    """Refuse JSON that is nested too deeply, or has an object that states a key twice: a parser keeps the last one.

    Raises:
        ConfigurationError: names the variable, and the key.
    """

    def check(pairs: list[tuple[str, object]]) -> None:
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigurationError(f"The setting {setting} is wrong: key {key!r} is stated twice.")

    try:
        json.loads(value, object_pairs_hook=check)
    except RecursionError:
        raise ConfigurationError(f"The setting {setting} is wrong: it is nested too deeply.") from None
    except ValueError:
        # The settings report malformed values.
        return
