"""Checks before the first request, so that no day is fetched in vain."""

import pytest

from pipelines.errors import ConfigurationError
from pipelines.preflight import check_inputs
from pipelines.settings import Settings

ENDPOINT = "https://modelarts.example"
VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")


@pytest.mark.parametrize("name", VARIABLES)
def test_preflight_reads_certificate_authorities_of_the_environment(monkeypatch, tmp_path, name):
    for other in VARIABLES:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match=f"cannot be read: correct {name} to "):
        check_inputs(Settings(endpoint=ENDPOINT))
    check_inputs(Settings(endpoint="sandbox"))


@pytest.mark.parametrize(
    ("path", "sentence"),
    [("no/such/witness", "cannot be written"), ("lake/witness", "is inside the lake"), ("witness", None)],
)
def test_preflight_checks_the_witness_file(path, sentence):
    settings = Settings(endpoint="sandbox", lake="lake", witness=path)
    if sentence is None:
        check_inputs(settings)
    else:
        with pytest.raises(ConfigurationError, match=f"^The witness file .*{sentence}"):
            check_inputs(settings)


def test_preflight_checks_the_key_of_the_bill():
    check_inputs(Settings(endpoint="sandbox", bills_key="hidden-key"))
    with pytest.raises(ConfigurationError) as refused:
        check_inputs(Settings(endpoint="sandbox", bills_key="hidden-k\u00e4y"))
    assert str(refused.value) == (
        "The key in IMAGE_SNAPSHOTS_BILLS_KEY holds a blank, a line break, or a character that is not ASCII, and no "
        "key or token does: copy it again."
    )
