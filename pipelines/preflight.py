"""What a run needs of its user, read and checked before it asks for anything and before it publishes anything.

A file of settings that is missing would else be found out when the day is published already. What each file means, and
what it must look like, belongs to the module that uses it.
"""

from pipelines.audit import read_rules, read_suppressions
from pipelines.engine import open_engine
from pipelines.inventory_sources import check_source
from pipelines.lake import Lake
from pipelines.prices import read_price_book
from pipelines.proxies import check_proxies
from pipelines.settings import Settings
from pipelines.transport import stated_authorities, tls_context
from pipelines.warehouse import check_warehouse
from pipelines.witness import open_witness


def check_inputs(settings: Settings) -> None:
    """Read every file that the settings name, and take every URL apart that is used later.

    Raises:
        ConfigurationError: the first that is missing, unreadable or wrong; names the setting, never a secret.
    """
    read_price_book(settings.price_book)
    if settings.suppressions is not None:
        read_suppressions(settings.suppressions)
    read_rules(settings.audit_rules)
    open_engine(settings)
    if settings.warehouse is not None:
        check_warehouse(settings.warehouse.get_secret_value())
    if not settings.uses_sandbox:
        check_proxies()
        # Of all that the environment may name as well; where nothing is stated, the system's are no file of the user's.
        if stated_authorities(settings.ca_bundle)[0] is not None:
            tls_context(settings.ca_bundle)
    with open_witness(settings.witness, Lake(settings.lake)):
        pass
    if settings.inventory is not None:
        check_source(settings.inventory.get_secret_value(), settings.inventory_query)
