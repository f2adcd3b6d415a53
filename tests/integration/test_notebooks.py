"""The notebooks run on a fortnight, on one day and on one incomplete day, with correct figures."""

import base64
import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import nbformat
import pyarrow.parquet as pq
import pytest
from fortnight import DAYS, LAST_DAY
from nbclient import NotebookClient
from once_per_run import once_per_run
from published_days import day_of, publish_snapshot, registry_and_bill

from pipelines.derive.days import derive_days
from pipelines.settings import ROOT, Settings

NOTEBOOKS = ROOT / "docs" / "notebooks"
NAMES = ["audit", "cost", "image"]
GB = 1024**3
# The tables of a day with rows of one image that the notebook on one image shows.
FILES_OF_AN_IMAGE = ("image_changes", "image_usage", "audit_findings", "image_costs")
DATES = [date.isoformat() for date in DAYS]

# The results of a notebook, read from its variables after it ran.
FIGURES = {
    "audit": """
        "visibility": visibility[["visibility", "type", "images"]].values.tolist(),
        "public": public_images[["id", "owner"]].fillna("").values.tolist(),
        "public_by_day": public_by_day["images"].tolist(),
        "visibility_changes": [[f"{row.day:%F}", row.what, row.id] for row in visibility_changes.itertuples()],
        "changes_by_class": {name: changes_by_class[name].tolist() for name in changes_by_class},
        "versions": [[row.id, f"{row.valid_from:%F}", row.visibility] for row in versions.itertuples()],
        "open_findings": {name: open_findings[name].tolist() for name in open_findings},
        "longest_open": longest_open[["rule", "id", "days_open"]].values.tolist(),
        "rules": len(rules),
        "reconciliation": reconciliation.drop(columns="snapshot_date").astype(float).values.tolist(),
        "unreconciled": unreconciled[["kind", "id"]].values.tolist(),
    """,
    "image": """
        "image": image_id,
        "versions": [[f"{row.valid_from:%F}", row.visibility] for row in versions.itertuples()],
        "changes": [[f"{row.snapshot_date:%F}", row.field] for row in changes.itertuples()],
        "public": [f"{day:%F}" for day in public["public_since"]],
        "usage": [[f"{row.snapshot_date:%F}", row.running + row.required] for row in usage.itertuples()],
        "findings": sorted(set(findings["rule"])),
        "sizes": costs["size_bytes"].tolist(),
        "proved": [[str(row.day), row.outcome, row.body_is_as_stored, row.next_manifest_follows]
                   for row in proved.itertuples()],
        "newest": proofs[-1].manifest_sha256 if proofs else None,
    """,
    "cost": """
        "gb_by_namespace": gb_by_namespace.to_dict(),
        "gb_by_owner": gb_by_owner.to_dict(),
        "largest": images["id"].head(15).tolist(),
        "growth": growth[["images", "gb"]].values.tolist(),
        "growth_by_namespace": dict(growth_by_namespace[["namespace", "growth_gb"]].values),
        "unused": unused_by_owner.T.to_dict(),
        "estimated_cost": cost_by_owner["estimated_cost"].droplevel("currency").to_dict(),
        "what_if": what_if["month"].to_dict(),
        "bill_by_day": [
            [f"{row.charge_date:%F}", *(None if pd.isna(one) else one for one in row[3:])]
            for row in bill_by_day.itertuples()
        ],
        "bill_by_owner": {
            row.owner: [None if pd.isna(one) else one for one in row[3:]] for row in bill_by_owner.itertuples()
        },
    """,
}


class Executed:
    """A notebook after it ran: its variables, its printed text, and its plots."""

    def __init__(self, notebook, figures):
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        self.figures = figures
        self.text = "".join(output.text for output in outputs if output.output_type == "stream")
        self.plots = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]


@pytest.fixture(scope="module")
def executed(tmp_path_factory, fortnight):
    """(notebook, lake) -> Executed. One kernel for all, cleared in between, because imports take most of the time."""
    return once_per_run(tmp_path_factory, "notebooks", lambda root: execute_all(root, fortnight))


def execute_all(root, fortnight):
    lakes = {
        "fortnight": fortnight,
        "one day": publish_one_day(root / "one", "ok"),
        "incomplete day": publish_one_day(root / "incomplete", "failed"),
    }
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
            monkeypatch.setenv(name, str(root / "jupyter"))
        monkeypatch.delenv("MPLBACKEND", raising=False)
        client = NotebookClient(
            nbformat.v4.new_notebook(), kernel_name="python3", resources={"metadata": {"path": str(root)}}, timeout=240
        )
        with client.setup_kernel():
            executed = {(name, lake): execute(client, name, path) for name in NAMES for lake, path in lakes.items()}
            return executed | {("cost", "billed"): execute(client, "cost", publish_billed_days(root / "billed"))}


def execute(client, name, lake):
    client.nb = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    client.reset_execution_trackers()
    before = f"%reset -f\nimport os\nos.environ['IMAGE_SNAPSHOTS_LAKE'] = {str(lake)!r}"
    after = f"import json\nprint(json.dumps({{{FIGURES[name]}}}, default=lambda value: value.item()))"
    source = client.nb.cells
    client.nb.cells = [nbformat.v4.new_code_cell(before), *source, nbformat.v4.new_code_cell(after)]
    for number, cell in enumerate(client.nb.cells):
        client.execute_cell(cell, number)
    return Executed(client.nb, json.loads(client.nb.cells.pop().outputs[0].text))


def priced(root):
    root.mkdir()
    prices = root / "prices.toml"
    prices.write_text('currency = "EUR"\n[[price]]\nvalid_from = 2026-01-01\nper_gb_month = 3\n')
    return Settings(lake=str(root / "lake"), price_book=prices)


def publish_one_day(root, outcome):
    """A lake of one day with two images, one of `outcome`; list and notebooks not read, 3 per GB-month."""
    day = replace(day_of(LAST_DAY.isoformat()), settings=priced(root))
    known = {"name": "a", "type": "DEDICATED", "visibility": "PUBLIC", "status": "ACTIVE", "size_bytes": 10 * GB}
    images = [known | {"id": "a", "namespace": "vision"}, known | {"id": "b"}]
    ids = {"a": "ok", "b": outcome}
    publish_snapshot(
        day,
        inventory=[{"id": id_, "owner": "h.weber"} for id_ in ids],
        responses=[{"id": id_, "outcome": outcome} for id_, outcome in ids.items()],
        images=[image for image in images if ids[image["id"]] == "ok"],
    )
    derive_days(day)
    return root / "lake"


def publish_billed_days(root):
    """A lake of two days with a registry; the second reads the bill of the first, 3 EUR. Prices as above."""
    settings = priced(root)
    images = [{"id": id_, "size_bytes": 10 * GB, "swr_path": f"swr.example/team/{id_}:v1"} for id_ in "ab"]
    for date in DATES[-2:]:
        day = replace(day_of(date), settings=settings)
        publish_snapshot(
            day,
            inventory=[{"id": "a", "owner": "h.weber"}, {"id": "b", "owner": "p.novak"}],
            responses=[{"id": id_, "outcome": "ok"} for id_ in "ab"],
            images=images,
            **registry_and_bill(date, "team/a:v1", "team/b:v1", "team/nobody:v1"),
        )
        derive_days(day)
    return root / "lake"


@pytest.fixture(scope="module")
def table(fortnight):
    """Rows of a table of the fortnight, of all days or one, read from the files."""

    def rows(name, date=None):
        files = sorted((fortnight / name).glob(f"dt={date or '*'}/project=default/*.parquet"))
        return [row | {"date": row["snapshot_date"].isoformat()} for f in files for row in read(f)]

    def read(path):
        with path.open("rb") as file:
            return pq.read_table(file).to_pylist()

    return rows


@pytest.fixture(scope="module")
def history(fortnight):
    with (fortnight / "image_history/project=default/image_history.parquet").open("rb") as file:
        return pq.read_table(file).to_pylist()


def living(history, date):
    """The versions of a day."""
    held = [row for row in history if row["valid_from"] <= date and (row["valid_to"] is None or date < row["valid_to"])]
    return [row for row in held if not row["is_deleted"]]


def is_public(image):
    return image["visibility"] == "PUBLIC" and image["type"] == "DEDICATED"


def counts_by_day(rows, key):
    """Value of the column -> the number of rows on each day of the fortnight."""
    counted = Counter((row[key], row["date"]) for row in rows)
    return {value: [counted[value, date] for date in DATES] for value, _ in sorted(counted)}


def gb_by(rows, key):
    sums = defaultdict(float)
    for row in rows:
        sums[row[key] or "not stated"] += (row["size_bytes"] or 0) / GB
    return dict(sums)


def test_audit_shows_who_can_see_the_images(executed, table, history):
    figures = executed["audit", "fortnight"].figures
    images, owners = living(history, LAST_DAY), {row["id"]: row["owner"] or "" for row in table("inventory", LAST_DAY)}
    counted = Counter((image["visibility"] or "not stated", image["type"]) for image in images)
    assert {(visibility, type_): count for visibility, type_, count in figures["visibility"]} == counted
    assert counted.total() == len(table("image_costs", LAST_DAY))
    public = {image["id"]: owners[image["id"]] for image in images if is_public(image)}
    assert len(public) == 3
    assert dict(figures["public"]) == public
    assert figures["public_by_day"] == [sum(map(is_public, living(history, date))) for date in DAYS]


def test_audit_shows_images_that_became_public(executed, table):
    figures = executed["audit", "fortnight"].figures
    changes, images = table("image_changes"), {(row["date"], row["id"]): row for row in table("images")}
    expected = [
        [row["date"], "widened" if row["new_value"] == "PUBLIC" else "narrowed", row["id"]]
        for row in changes
        if row["field"] == "visibility"
    ]
    expected += [
        [row["date"], "public on arrival", row["id"]]
        for row in changes
        if row["field"] == "outcome" and row["new_value"] == "ok" and is_public(images[row["date"], row["id"]])
    ]
    assert {what for _, what, _ in expected} == {"widened", "narrowed", "public on arrival"}
    assert figures["visibility_changes"] == sorted(expected)


def test_audit_counts_changes_and_shows_one_image_s_history(executed, table, history):
    figures = executed["audit", "fortnight"].figures
    assert figures["changes_by_class"] == counts_by_day(table("image_changes"), "change_class")
    (id_,) = {version[0] for version in figures["versions"]}
    versions = [[row["id"], row["valid_from"].isoformat(), row["visibility"]] for row in history if row["id"] == id_]
    assert figures["versions"] == sorted(versions)
    assert {"PUBLIC", "PRIVATE"} <= {visibility for *_, visibility in versions}


def test_audit_shows_open_findings_and_their_age(executed, table):
    figures = executed["audit", "fortnight"].figures
    findings = [row for row in table("audit_findings") if row["state"] in ("new", "open")]
    assert figures["open_findings"] == counts_by_day(findings, "severity")
    order = ["critical", "high", "medium", "low", "info"]
    last = [row for row in findings if row["date"] == DATES[-1]]
    last.sort(key=lambda row: (-row["days_open"], order.index(row["severity"]), row["rule"], row["id"]))
    assert figures["longest_open"] == [[row["rule"], row["id"], row["days_open"]] for row in last[:15]]
    assert figures["rules"] == len(table("audit_rules", LAST_DAY)) > 0


def test_audit_shows_reconciliation(executed, table):
    figures = executed["audit", "fortnight"].figures
    registered = Counter(row["date"] for row in table("inventory"))
    kinds = counts_by_day(table("image_reconciliation"), "kind")
    assert figures["reconciliation"] == [
        [registered[date], kinds["registered_but_gone"][number], kinds["not_registered"][number]]
        for number, date in enumerate(DATES)
    ]
    unreconciled = [[row["kind"], row["id"]] for row in table("image_reconciliation", LAST_DAY)]
    assert sorted(figures["unreconciled"]) == sorted(unreconciled)
    assert {kind for kind, _ in unreconciled} == {"not_registered", "registered_but_gone"}


def test_image_shows_everything_known_of_one_image(executed, table, history):
    figures = executed["image", "fortnight"].figures
    id_ = figures["image"]
    versions = [row for row in history if row["id"] == id_]
    assert figures["versions"] == [[row["valid_from"].isoformat(), row["visibility"]] for row in versions]
    assert len(versions) == max(Counter(row["id"] for row in history).values()) > 1
    of_image = {name: [row for row in table(name) if row["id"] == id_] for name in FILES_OF_AN_IMAGE}
    changes = sorted([row["date"], row["field"]] for row in of_image["image_changes"])
    assert figures["changes"] == changes
    assert figures["usage"] == [[row["date"], row["running"] + row["required"]] for row in of_image["image_usage"]]
    assert figures["findings"] == sorted({row["rule"] for row in of_image["audit_findings"]})
    assert figures["sizes"] == [row["size_bytes"] for row in of_image["image_costs"]]


def test_image_checks_the_responses_against_the_manifests(executed, table, fortnight):
    figures = executed["image", "fortnight"].figures
    outcomes = [[row["date"], row["outcome"]] for row in table("responses") if row["id"] == figures["image"]]
    follows = [True] * (len(outcomes) - 1) + ["newest"]
    assert figures["proved"] == [[*one, True, follow] for one, follow in zip(outcomes, follows, strict=True)]
    newest = (fortnight / f"_manifests/dt={outcomes[-1][0]}/project=default.json").read_bytes()
    assert figures["newest"] == hashlib.sha256(newest).hexdigest()


def test_cost_shows_the_sizes_of_images(executed, table):
    figures = executed["cost", "fortnight"].figures
    images = table("image_costs", LAST_DAY)
    assert figures["gb_by_namespace"] == pytest.approx(gb_by(images, "namespace"))
    assert figures["gb_by_owner"] == pytest.approx(gb_by(images, "owner"))
    images.sort(key=lambda row: (-(row["size_bytes"] or 0), row["id"]))
    assert figures["largest"] == [row["id"] for row in images[:15]]


def test_cost_shows_growth(executed, table):
    figures = executed["cost", "fortnight"].figures
    days = [table("image_costs", date) for date in DATES]
    assert figures["growth"] == [
        [len(day), pytest.approx(sum(row["size_bytes"] or 0 for row in day) / GB)] for day in days
    ]
    before, after = gb_by(days[0], "namespace"), gb_by(days[-1], "namespace")
    growth = {name: after.get(name, 0) - before.get(name, 0) for name in before.keys() | after.keys()}
    assert any(abs(gb) > 1 for gb in growth.values())
    assert figures["growth_by_namespace"] == pytest.approx(growth, abs=1e-9)


def test_cost_shows_unused_images_and_their_costs(executed, table):
    notebook = executed["cost", "fortnight"]
    images = table("image_costs", LAST_DAY)
    unused = [row for row in images if row["type"] != "BUILD_IN" and row["unused_days"] >= 7]
    assert 0 < len(unused) < len(images)
    count = Counter(row["owner"] or "not stated" for row in unused)
    expected = {
        owner: {"images": count[owner], "gb_upper_bound": pytest.approx(gb)}
        for owner, gb in gb_by(unused, "owner").items()
    }
    assert notebook.figures["unused"] == expected
    assert re.search(r"Unused: no notebook\b.* in \d+ workspaces?\.", notebook.text)
    gb = gb_by(images, "owner")
    assert notebook.figures["estimated_cost"] == dict.fromkeys(
        {row["owner"] or "not stated" for row in table("image_costs")}, 0
    )
    assert "The price book states no price above zero" in notebook.text
    assert notebook.figures["what_if"] == pytest.approx({owner: 0.05 * size for owner, size in gb.items()})


def test_cost_shows_estimate_bill_and_difference(executed, table):
    # 10 GB at 3 for a month of 30 days; each of three tags has as many bytes.
    figures = executed["cost", "billed"].figures
    assert figures["bill_by_day"] == [[DATES[-2], pytest.approx(2), 3, pytest.approx(1), 3, 1]]
    assert figures["bill_by_owner"] == {
        "h.weber": [pytest.approx(1), 1, pytest.approx(0), 1],
        "p.novak": [pytest.approx(1), 1, pytest.approx(0), 1],
        "not allocated: registry only": [None, 1, None, 1],
    }
    # Of the fortnight: the newest statement of each day, with all that is not allocated.
    newest = {row["charge_date"]: row for row in table("bill_days") if row["charge_date"] >= DAYS[0]}
    found = executed["cost", "fortnight"].figures
    assert [row[0] for row in found["bill_by_day"]] == [day.isoformat() for day in sorted(newest)] != []
    for day, (_, _, registry, _, billed, not_allocated) in zip(sorted(newest), found["bill_by_day"], strict=True):
        row = newest[day]
        expected = [float(row[f"{name}_cost"]) for name in ("billed_registry", "billed", "not_allocated")]
        assert [registry, billed, not_allocated] == pytest.approx(expected)
    total = sum(float(row["billed_cost"]) for row in newest.values())
    assert sum(row[-1] for row in found["bill_by_owner"].values()) == pytest.approx(total)


def test_cost_says_that_no_bill_is_known(executed):
    assert executed["cost", "one day"].figures["bill_by_day"] == []
    assert "No bill of these days is known" in executed["cost", "one day"].text


def test_notebooks_run_on_a_lake_of_one_day(executed):
    audit, cost = executed["audit", "one day"], executed["cost", "one day"]
    assert "Project default, 2026-11-23 to 2026-11-23. Published days: 1, of which" in audit.text
    assert "Images: 2, together 20.0 GB; of unknown size: 0." in cost.text
    assert audit.figures["public"] == [["a", "h.weber"], ["b", "h.weber"]]
    assert audit.figures["versions"] == [["a", "2026-11-23", "PUBLIC"]]
    assert audit.figures["visibility_changes"] == []
    assert audit.figures["changes_by_class"] == {}
    assert audit.figures["open_findings"]["high"] == [2]
    assert math.isnan(audit.figures["reconciliation"][0][2])
    assert cost.figures["gb_by_namespace"] == {"vision": 10, "not stated": 10}
    assert cost.figures["growth"] == [[2, 20]]
    assert cost.figures["unused"] == {}
    assert "Unused for" not in cost.text
    assert "2026-11-23 is incomplete, or did not read all that could use an image." in cost.text
    # 20 GB at 3 for a month of 30 days.
    assert cost.figures["estimated_cost"] == {"h.weber": pytest.approx(2)}


def test_notebooks_run_on_an_incomplete_day(executed):
    """Without a complete day, nothing is known of the past, and the list was not read."""
    audit, cost = executed["audit", "incomplete day"], executed["cost", "incomplete day"]
    assert "incomplete (some images had no response): 1." in audit.text
    assert (audit.figures["public"], audit.figures["public_by_day"], audit.figures["versions"]) == ([], [], [])
    assert cost.figures["growth"] == [[1, 10]]
    assert cost.figures["what_if"] == {"h.weber": 0.5}


def test_plots_are_drawn(executed):
    plots = {key: notebook.plots for key, notebook in executed.items()}
    assert {key: len(images) for key, images in plots.items()} == {
        ("audit", "fortnight"): 5,
        ("audit", "one day"): 5,
        ("audit", "incomplete day"): 5,
        ("cost", "fortnight"): 4,  # nothing is priced, but there are bills
        ("cost", "one day"): 3,  # usage was not read
        ("cost", "incomplete day"): 3,
        ("cost", "billed"): 4,
        ("image", "fortnight"): 1,
        ("image", "one day"): 1,
        ("image", "incomplete day"): 1,
    }
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for images in plots.values() for image in images)


def committed():
    return sorted(NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("path", committed(), ids=lambda path: path.stem)
def test_committed_notebooks_have_no_outputs(path: Path):
    """To fix this in an editor: clear all outputs, then save."""
    notebook = json.loads(path.read_bytes())
    nbformat.validate(notebook)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in code] == [[]] * len(code)
    assert {cell["execution_count"] for cell in code} == {None}
    assert "parameters" in code[0]["metadata"]["tags"]
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}


def test_every_notebook_is_executed_by_these_tests():
    assert [path.stem for path in committed()] == NAMES
