"""The rooms of `pipelines/`: which may import which, without circles."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = ROOT / "pipelines"

# Each room, and each module beside the rooms, with those that it may import. A room can be imported only by those
# below it in this table.
FLOOR = {"errors", "tables", "inputs"}
ARROWS = {
    "plain_text": set(),
    "errors": {"plain_text"},
    "tables": set(),
    "inputs": {"errors"},
    "settings": {"errors", "inputs", "tables"},
    "fingerprint": {"inputs", "settings"},
    "memory": set(),
    "bodies": {"tables"},
    "inventory": FLOOR,
    "cloud": {*FLOOR, "bodies"},
    "lake": FLOOR,
    "run": {"lake", "settings"},
    "engine": {*FLOOR, "lake", "settings"},
    "snapshot": {*FLOOR, "fingerprint", "bodies", "cloud", "inventory", "lake", "memory", "run", "settings"},
    "derive": {*FLOOR, "fingerprint", "bodies", "engine", "lake", "memory", "run", "settings"},
    "query": {*FLOOR, "derive", "engine", "lake", "settings"},
    "warehouse": {*FLOOR, "engine", "lake"},
    "catalog": {*FLOOR, "lake", "warehouse"},
    "report": {*FLOOR, "fingerprint", "derive", "engine", "lake", "plain_text"},
    "maintenance": {
        *FLOOR,
        "fingerprint",
        "bodies",
        "derive",
        "engine",
        "lake",
        "report",
        "run",
        "settings",
        "snapshot",
    },
    "notify": {*FLOOR, "cloud", "lake", "maintenance", "plain_text", "settings"},
    "preflight": {*FLOOR, "catalog", "cloud", "derive", "engine", "inventory", "lake", "settings", "warehouse"},
    "data_dictionary": {"tables"},
    # The command line and the definitions start it; no room imports it.
    "sandbox": {"cloud", "errors", "inputs"},
}


def imports(path: Path) -> set[str]:
    """The package's modules that a file imports, including imports within functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(), path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "pipelines"}


def room(path: Path) -> str:
    parts = path.relative_to(CODE).with_suffix("").parts
    return parts[0]


def modules() -> list[Path]:
    return sorted(path for path in CODE.rglob("*.py") if path != CODE / "__init__.py")


def test_every_module_is_in_a_known_room():
    assert {room(path) for path in modules()} == set(ARROWS)


def test_rooms_import_only_along_the_arrows():
    wrong = [
        (str(path.relative_to(ROOT)), name)
        for path in modules()
        for name in sorted(imports(path))
        if (other := name.split(".")[1]) != room(path) and other not in ARROWS[room(path)]
    ]
    assert wrong == []


def test_arrows_lead_only_to_rooms_above():
    order = list(ARROWS)
    back = [
        (name, other) for name, others in ARROWS.items() for other in others if order.index(other) > order.index(name)
    ]
    assert back == []


def test_no_two_modules_import_one_another():
    known = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in modules()}
    found = {name: [f"{imported}." for imported in imports(path)] for name, path in known.items()}
    needs = {
        name: {other for other in known if any(imported.startswith(f"{other}.") for imported in found[name])}
        for name in known
    }
    while free := {name for name, others in needs.items() if not others - {name}}:
        needs = {name: others - free for name, others in needs.items() if name not in free}
    assert needs == {}


@pytest.mark.parametrize("name", sorted({path.parent for path in modules()} - {CODE}))
def test_every_room_has_a_docstring(name):
    assert ast.get_docstring(ast.parse((name / "__init__.py").read_text()))
