"""Parses the setting that names an Iceberg catalog: a directory, or a catalog of PyIceberg's own configuration."""

import re
from dataclasses import dataclass

from pipelines.inputs.environment import at_home
from pipelines.inputs.secret_urls import looks_like_url

# The name of the catalog in a directory, and the namespace of the tables unless another is stated.
OURS = "image_snapshots"
_NAME = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9_-]*)(?:\.(?P<namespace>[a-z][a-z0-9_]*))?")


@dataclass(frozen=True, slots=True)
class CatalogPlace:
    """Where a catalog is: in a directory, or under a name in PyIceberg's configuration; and the tables' namespace."""

    name: str
    namespace: str
    directory: str | None = None


def parse_catalog(text: str) -> CatalogPlace:
    """Parse the setting.

    Raises:
        ValueError: it is neither a directory nor a name. The message is the end of a sentence and quotes nothing,
            because the text may be a URL with a password.
    """
    if looks_like_url(text):
        raise ValueError(
            "must be a directory, or the name of a catalog; URLs and access keys belong to PyIceberg's own "
            "configuration of that name, such as PYICEBERG_CATALOG__LAKEHOUSE__URI"
        )
    if "/" in text or text.startswith(("~", ".")):
        # These would end the path in a URL, which is how libraries get it.
        if set(text) & set("?#%") or not text.isprintable():
            raise ValueError("must be a directory without ?, #, % and control characters in its path")
        return CatalogPlace(OURS, OURS, at_home(text))
    found = _NAME.fullmatch(text)
    if found is None:
        raise ValueError(
            "must be a directory with a slash, such as ./catalog, or the name of a catalog in PyIceberg's "
            "configuration, such as lakehouse, or lakehouse.images with the namespace of the tables"
        )
    return CatalogPlace(found["name"], found["namespace"] or OURS)
