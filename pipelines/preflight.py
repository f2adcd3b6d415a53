"""What a run needs of its user, read and checked before it asks for anything and before it publishes anything.

A file of settings that is missing would else be found out when the day is published already. What each file means, and
what it must look like, belongs to the module that uses it.
"""

from pipelines.cloud.transport import stated_authorities, tls_context
from pipelines.derive.audit import read_rules, read_suppressions
from pipelines.derive.prices import read_price_book
from pipelines.engine.opening import open_engine
from pipelines.inputs.proxies import check_proxies
from pipelines.inventory.sources import check_source
from pipelines.lake.layout import Lake
from pipelines.lake.witnesses import open_witness
from pipelines.settings import Settings
from pipelines.warehouse.loading import check_warehouse


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
