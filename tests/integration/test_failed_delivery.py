"""A failure after publication is reported as such, and a refusal before it leaves no secret anywhere."""

import json


def test_day_is_published_even_if_the_warehouse_cannot_be_loaded(image_snapshots, tmp_path):
    (tmp_path / "taken.duckdb").mkdir()
    env = {"IMAGE_SNAPSHOTS_WAREHOUSE": "taken.duckdb", "IMAGE_SNAPSHOTS_ENDPOINT": "sandbox", "OS_CLOUD": "otc"}
    result = image_snapshots("run", "--json", env=env)
    assert result.returncode == 3, result.stderr
    (report,) = json.loads(result.stdout)
    assert (report["state"], report["is_sandbox"]) == ("complete", True)
    assert "is published, but it was not loaded into the warehouse: " in report["error"]
    assert report["error"] in " ".join(result.stderr.split())
    assert (tmp_path / report["tables"]["image_costs"]["path"]).exists()


def test_ambiguous_proxy_is_refused_and_never_shown(image_snapshots, tmp_path):
    env = {
        "IMAGE_SNAPSHOTS_ENDPOINT": "https://modelarts.example",
        "IMAGE_SNAPSHOTS_INVENTORY": "modelarts:",
        "OS_TOKEN": "token-4713",
        "OS_PROJECT_ID": "a" * 32,
        "HTTPS_PROXY": "http://user:first4711/@#second4712@proxy.example:3128",
    }
    result = image_snapshots("run", env=env)
    assert result.returncode == 2
    assert "HTTPS_PROXY" in result.stderr
    assert "percent-encode" in result.stderr
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for secret in (b"first4711", b"second4712", b"token-4713"):
        assert not [
            content for content in [result.stdout.encode(), result.stderr.encode(), *written] if secret in content
        ]
