"""Which catalog the setting names, and one sentence for each that cannot be used; connects to nothing."""

import sys
from pathlib import Path

import pytest

from pipelines.catalog.opening import catalog_access
from pipelines.errors import ConfigurationError
from pipelines.lake.layout import Lake
from pipelines.preflight import check_inputs
from pipelines.settings import Settings

SECRET = "s3cret/of:the@catalog"


def sentence(setting, lake="lake"):
    with pytest.raises(ConfigurationError) as raised:
        catalog_access(setting, Lake(lake))
    assert SECRET not in str(raised.value)
    return str(raised.value)


def configure(monkeypatch, name="lakehouse", **options):
    for option, value in options.items():
        monkeypatch.setenv(f"PYICEBERG_CATALOG__{name.upper()}__{option.upper()}", value)


def test_directory_holds_tables_beside_an_sqlite_file(tmp_path):
    access = catalog_access("./a catalog", Lake("lake"))
    assert (access.name, access.kind) == ("./a catalog", "sql")
    assert access.options == {
        "uri": f"sqlite:///{tmp_path}/a catalog/catalog.db?timeout=60",
        "warehouse": f"file://{tmp_path}/a catalog",
    }
    assert not Path("a catalog").exists()


def test_name_is_that_of_pyiceberg_s_configuration(monkeypatch, tmp_path):
    configure(monkeypatch, uri="https://catalog.example/api", token=SECRET)
    access = catalog_access("lakehouse.snapshots", Lake("lake"))
    assert (access.name, access.kind, access.place.namespace) == ("lakehouse.snapshots", "rest", "snapshots")
    assert SECRET not in repr(access)
    # A file works as well.
    (tmp_path / ".pyiceberg.yaml").write_text("catalog:\n  metastore:\n    type: glue\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert catalog_access("metastore", Lake("lake")).kind == "glue"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (
            f"postgresql://loader:{SECRET}@db/catalog",
            "it must be a directory, or the name of a catalog; URLs and access",
        ),
        ("two names", "it must be a directory with a slash, such as ./catalog, or the name of a catalog"),
        ("Lakehouse.Upper", "it must be a directory with a slash"),
        ("./catalog?x=1", "it must be a directory without ?, #, % and control characters in its path"),
        ("./a\nDROP TABLE b;", "it must be a directory without ?, #, % and control characters in its path"),
        ("~nobody-of-this-name/catalog", "it begins with ~nobody-of-this-name, but there is no such home directory"),
    ],
)
def test_setting_that_is_no_place_is_one_sentence(setting, said):
    assert f"The setting IMAGE_SNAPSHOTS_CATALOG is wrong: {said}" in sentence(setting)


def test_setting_is_checked_with_all_others(monkeypatch):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_CATALOG", "two names")
    with pytest.raises(ConfigurationError, match="IMAGE_SNAPSHOTS_CATALOG is wrong: must be a directory with a slash"):
        Settings.load()
    monkeypatch.setenv("IMAGE_SNAPSHOTS_CATALOG", "nowhere")
    with pytest.raises(ConfigurationError, match="PyIceberg's configuration has no catalog 'nowhere'"):
        check_inputs(Settings.load())


def test_catalog_that_is_not_configured_is_one_sentence(monkeypatch):
    assert sentence("nowhere") == (
        "PyIceberg's configuration has no catalog 'nowhere' (setting IMAGE_SNAPSHOTS_CATALOG): set "
        "PYICEBERG_CATALOG__NOWHERE__URI, or write it in .pyiceberg.yaml; a directory is written with a slash, as "
        "./nowhere."
    )
    configure(monkeypatch, type="delta", uri="https://catalog.example")
    assert sentence("lakehouse") == (
        "The catalog 'lakehouse' has a type that is not known: PYICEBERG_CATALOG__LAKEHOUSE__TYPE must be one of sql, "
        "rest, glue, hive, dynamodb, bigquery."
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"uri": f"ftp://loader:{SECRET}@files"}, "The kind of the catalog 'lakehouse' is not known: set "),
        (
            {"type": "rest", "token": SECRET},
            "The catalog 'lakehouse' has no address: set PYICEBERG_CATALOG__LAKEHOUSE__",
        ),
        (
            {"uri": f"https://user:{SECRET}@catalog.example"},
            "The address of the REST catalog in PYICEBERG_CATALOG__LAKE",
        ),
    ],
)
def test_configuration_that_is_wrong_is_one_sentence_without_the_secret(options, said, monkeypatch):
    configure(monkeypatch, **options)
    assert said in sentence("lakehouse")


@pytest.mark.parametrize("setting", ["./lake", "./lake/catalog", "./link/deeper"])
def test_catalog_inside_the_lake_is_refused(setting, tmp_path):
    Path("lake").mkdir()
    Path("link").symlink_to("lake")
    assert sentence(setting) == (
        f"The catalog {setting} would keep files at file://{tmp_path / setting}, and the lake is {tmp_path}/lake: "
        "neither may lie inside the other, because maintenance of a catalog removes files, and those of the lake are "
        "evidence."
    )


@pytest.mark.parametrize("warehouse", ["s3://bucket/lake/iceberg", "s3a://bucket/lake", "s3://bucket//lake/x"])
def test_catalog_inside_a_lake_in_a_bucket_is_refused(warehouse, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    configure(monkeypatch, uri="https://catalog.example", warehouse=warehouse)
    assert f"would keep files at {warehouse}, and the lake is s3://bucket/lake" in sentence(
        "lakehouse", "s3://bucket/lake"
    )
    configure(monkeypatch, warehouse="s3://bucket/lakehouse")
    assert catalog_access("lakehouse", Lake("s3://bucket/lake")).kind == "rest"


def test_database_inside_the_lake_is_refused(monkeypatch, tmp_path):
    configure(monkeypatch, uri=f"sqlite:///{tmp_path}/lake/catalog.db", warehouse="s3://bucket/iceberg")
    assert f"would keep files at {tmp_path}/lake/catalog.db, and the lake is" in sentence("lakehouse")


def test_messages_of_libraries_lose_every_secret_in_any_spelling(monkeypatch):
    configure(
        monkeypatch,
        uri="postgresql://loader:p%40ss%2Fword@db.example/catalog",
        credential="client:top secret",
        s3__secret_access_key="s3-key-0815",
    )
    access = catalog_access("lakehouse", Lake("lake"))
    assert access.options["s3.secret-access-key"] == "s3-key-0815"
    said = "p%40ss%2Fword, p@ss/word, client:top secret, top secret, top%20secret, s3-key-0815"
    assert access.hide(said) == "***, ***, ***, ***, ***, ***"
    assert access.hide("cannot connect to postgresql://loader:other@db.example") == (
        "cannot connect to postgresql://***@db.example"
    )


def test_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiceberg.catalog.sql", None)
    assert sentence("./catalog") == (
        "IMAGE_SNAPSHOTS_CATALOG needs the package pyiceberg with sql-sqlite: install image-snapshots with the extra "
        "`iceberg`."
    )
