"""How a warehouse attaches the Iceberg catalog: what `image-snapshots ddl` prints when one is set.

The catalog has the tables already, so no statement names one. Warehouses that read no Iceberg catalog are in `ddl`.
"""

from collections.abc import Callable

from pipelines.engine.sql_text import quoted
from pipelines.inputs.catalog_places import CatalogPlace


def _header(place: CatalogPlace, *lines: str) -> str:
    if place.directory is not None:
        reached = [
            f"{place.directory} is a catalog in an SQLite file, which only PyIceberg reads: have the days copied into",
            "a catalog that this warehouse reaches, and put its address here.",
        ]
    else:
        reached = [f"The address and the access are those of PyIceberg's catalog {place.name}."]
    views = (
        "What is still needed beside it are the views: create the SELECTs of sql/views as views where you need them."
    )
    return "\n".join(f"-- {line}".rstrip() for line in (*lines, *reached, views)) + "\n\n"


def _snowflake(place: CatalogPlace) -> str:
    return (
        _header(
            place,
            "Snowflake: the Iceberg catalog as a database, from a REST catalog. Each day appears by itself, whole.",
            'Quote names in lower case in queries, such as "images". Views need another database. For a catalog that',
            "does not hand out access keys of its files, add EXTERNAL_VOLUME = 'name' to the database.",
        )
        + "CREATE CATALOG INTEGRATION IF NOT EXISTS image_snapshots_catalog\n"
        "    CATALOG_SOURCE = ICEBERG_REST\n"
        "    TABLE_FORMAT = ICEBERG\n"
        "    REST_CONFIG = (\n"
        "        CATALOG_URI = 'https://catalog.example/path'\n"
        "        CATALOG_NAME = 'warehouse'\n"
        "        ACCESS_DELEGATION_MODE = VENDED_CREDENTIALS\n"
        "    )\n"
        "    REST_AUTHENTICATION = (\n"
        "        TYPE = OAUTH\n"
        "        OAUTH_CLIENT_ID = 'id'\n"
        "        OAUTH_CLIENT_SECRET = 'secret'\n"
        "        OAUTH_ALLOWED_SCOPES = ('PRINCIPAL_ROLE:ALL')\n"
        "    )\n"
        "    ENABLED = TRUE;\n"
        "CREATE DATABASE IF NOT EXISTS image_snapshots\n"
        "    LINKED_CATALOG = (\n"
        "        CATALOG = 'image_snapshots_catalog',\n"
        f"        ALLOWED_NAMESPACES = ({quoted(place.namespace)}),\n"
        "        ALLOWED_WRITE_OPERATIONS = NONE\n"
        "    );\n"
    )


def _bigquery(place: CatalogPlace) -> str:
    return (
        _header(
            place,
            "BigQuery: a Glue catalog as a dataset. Each day appears by itself, whole. Replace the connection and the",
            "account. A catalog of BigLake's metastore needs no statement: its tables are",
            f"`project.catalog.{place.namespace}.images` and so on.",
        )
        + f"CREATE EXTERNAL SCHEMA IF NOT EXISTS `{place.namespace}`\n"
        "WITH CONNECTION `project.aws-eu-west-1.image-snapshots`\n"
        "OPTIONS (\n"
        f"    external_source = 'aws-glue://arn:aws:glue:eu-west-1:123456789012:database/{place.namespace}',\n"
        "    location = 'aws-eu-west-1'\n"
        ");\n"
    )


def _redshift(place: CatalogPlace) -> str:
    return (
        _header(
            place,
            "Redshift: a Glue catalog as a schema. Each day appears by itself, whole. Replace the role. Views over it",
            "need WITH NO SCHEMA BINDING.",
        )
        + "CREATE EXTERNAL SCHEMA IF NOT EXISTS image_snapshots\n"
        f"FROM DATA CATALOG\nDATABASE {quoted(place.namespace)}\n"
        "IAM_ROLE 'arn:aws:iam::123456789012:role/image-snapshots';\n"
    )


def _trino(place: CatalogPlace) -> str:
    return (
        _header(
            place,
            "Trino: the Iceberg catalog as a catalog, whose tables are image_snapshots."
            f"{place.namespace}.images and so on.",
            "Each day appears by itself, whole. Without dynamic catalogs, write these properties, with",
            "connector.name=iceberg, into etc/catalog/image_snapshots.properties. Other types than rest are",
            "glue, hive_metastore and jdbc (PyIceberg's sql on PostgreSQL), each with its own properties.",
        )
        + "CREATE CATALOG image_snapshots USING iceberg\n"
        "WITH (\n"
        "    \"iceberg.catalog.type\" = 'rest',\n"
        "    \"iceberg.rest-catalog.uri\" = 'https://catalog.example/path',\n"
        "    \"iceberg.rest-catalog.warehouse\" = 'warehouse',\n"
        "    \"iceberg.security\" = 'read_only'\n"
        ");\n"
    )


ATTACHING: dict[str, Callable[[CatalogPlace], str]] = {
    "snowflake": _snowflake,
    "bigquery": _bigquery,
    "redshift": _redshift,
    "trino": _trino,
}
