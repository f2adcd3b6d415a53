"""The settings of usage, workspaces and traces: what they take, and the sentence for what they do not."""

import pytest

from pipelines.errors import ConfigurationError
from pipelines.settings import Settings
from pipelines.tables import USAGE_SOURCES


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("USAGE", "notebook", "there is no source 'notebook'; use notebooks"),
        ("USAGE", "x", f"there is no source 'x'; use all, none, {', '.join(USAGE_SOURCES)}"),
        ("USAGE", "all,notebooks", "must be `all`, `none`, or names of sources with commas between them"),
        ("USAGE", ",", "must be `all`, `none`, or names of sources with commas between them"),
        ("WORKSPACES", "all,0", "must be `all`, or ids of workspaces with commas between them"),
        ("WORKSPACES", "a b", "the workspace 'a b' must be letters, digits and hyphens only"),
        ("TRACES", "maybe", "must be `true`, `false`, or the endpoint of the cloud's audit service (CTS)"),
    ],
)
def test_wrong_value_is_one_sentence(monkeypatch, name, value, sentence):
    monkeypatch.setenv(f"IMAGE_SNAPSHOTS_{name}", value)
    with pytest.raises(ConfigurationError) as raised:
        Settings.load()
    assert str(raised.value) == f"The setting IMAGE_SNAPSHOTS_{name} is wrong: {sentence}."


def test_stated_workspaces_and_sources_are_taken_once_and_in_order(monkeypatch):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_WORKSPACES", " 0, ab-1 ,0")
    monkeypatch.setenv("IMAGE_SNAPSHOTS_USAGE", "services, Notebooks,services")
    settings = Settings.load()
    assert settings.stated_workspaces == ["0", "ab-1"]
    assert settings.usage_sources == ["notebooks", "services"]


def test_the_endpoint_of_traces_is_stated_or_follows_from_modelarts(monkeypatch):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_ENDPOINT", "https://modelarts.example.com")
    monkeypatch.setenv("IMAGE_SNAPSHOTS_TRACES", "https://cts.example.com/")
    settings = Settings.load()
    assert (settings.reads_traces, settings.traces_endpoint) == (True, "https://cts.example.com")
    monkeypatch.setenv("IMAGE_SNAPSHOTS_TRACES", "True")
    settings = Settings.load()
    assert (settings.reads_traces, settings.traces_endpoint) == (True, None)
