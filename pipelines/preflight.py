"""Checks all user input of a run before its first request.

Otherwise a missing file could be noticed only after the day was published. The content of each file belongs to the
module that uses it.
"""

import re

from pipelines.catalog.opening import catalog_access
from pipelines.cloud.transport import stated_authorities, tls_context
from pipelines.derive.audit import read_rules, read_suppressions
from pipelines.derive.prices import read_price_book
from pipelines.engine.opening import open_engine
from pipelines.errors import ConfigurationError
from pipelines.inputs.header_values import check_header_value
from pipelines.inputs.projects import PROJECT_SETTINGS
from pipelines.inputs.proxies import check_proxies
from pipelines.inventory.sources import check_source
from pipelines.lake.layout import Lake
from pipelines.lake.witnesses import open_witness
from pipelines.settings import PREFIX, Settings
from pipelines.warehouse.loading import check_warehouse


def in_own_words(sentence: str, settings: Settings) -> str:
    """An error's sentence in which settings that the project states for itself are named as in the projects file."""
    for name in PROJECT_SETTINGS:
        if (key := settings.own(name)) is not None:
            stated = f"`{name}` of project {key!r} in the projects file"
            sentence = re.sub(rf"\b{PREFIX}{name.upper()}\b", stated, sentence)
    return sentence


def check_inputs(settings: Settings) -> None:
    """Read every file that the settings name, and parse every URL that is used later.

    Raises:
        ConfigurationError: a file or URL is missing, unreadable or wrong; names the setting, never a secret.
    """
    try:
        _check(settings)
    except ConfigurationError as error:
        raise ConfigurationError(in_own_words(str(error), settings)) from None


def _check(settings: Settings) -> None:
    read_price_book(settings.price_book)
    if settings.suppressions is not None:
        read_suppressions(settings.suppressions)
    read_rules(settings.audit_rules)
    open_engine(settings)
    if settings.warehouse is not None:
        check_warehouse(settings.warehouse.get_secret_value())
    if settings.catalog is not None:
        catalog_access(settings.catalog, Lake(settings.lake))
    if settings.bills_key is not None:
        check_header_value(settings.bills_key.get_secret_value(), "The key in IMAGE_SNAPSHOTS_BILLS_KEY")
    if not settings.uses_sandbox:
        check_proxies()
        # The environment may name these, too. If nothing does, the system's store is used, which needs no check.
        if stated_authorities(settings.ca_bundle)[0] is not None:
            tls_context(settings.ca_bundle)
    with open_witness(settings.witness, Lake(settings.lake)):
        pass
    if settings.inventory is not None:
        check_source(settings.inventory.get_secret_value(), settings.inventory_query)
