import ast
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import setuptools
from packaging.specifiers import SpecifierSet

import assets
import pipelines

ROOT = Path(__file__).resolve().parents[2]

# In pieces, so that this file does not contain what it looks for.
INDEX_HOSTS = ["py" + "pi.org", "python" + "hosted.org", "npm" + "js.org", "npm" + "js.com", "crates" + ".io"]
INDEX_OPTIONS = ["--" + "index-url", "--" + "extra-index-url", "--" + "find-links", "--" + "trusted-host"]


def git_files(*options: str) -> list[str]:
    # CI may run as a user that does not own the files.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", *options]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("package", [pipelines, assets])
def test_packages_are_imported_from_this_tree(package):
    # Both names are generic: another package, or the folder tests/assets, could come first.
    assert package.__file__ == str(ROOT / package.__name__ / "__init__.py")


def test_every_directory_with_code_is_installed():
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    code = {path.parent for top in ("pipelines", "assets") for path in (ROOT / top).rglob("*.py")}
    assert set(setuptools.find_packages(str(ROOT), include=stated)) == {
        ".".join(directory.relative_to(ROOT).parts) for directory in code
    }


def test_ci_runs_the_readme_s_test_command():
    pattern = re.compile(r"^\s*(python3 -m venv .*/pytest)$", re.MULTILINE)
    in_readme = pattern.findall((ROOT / "README.md").read_text())
    in_ci = pattern.findall((ROOT / ".ci" / "run").read_text())
    assert len(in_readme) == 1, "README.md must hold the test command once, on a line of its own"
    assert in_ci == in_readme


def test_pages_name_the_versions_of_python_that_can_install_this():
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    *others, last = (f"3.{minor}" for minor in range(30) if SpecifierSet(stated).contains(f"3.{minor}"))
    versions = f"Python {', '.join(others)} or {last}"
    for page in ("README.md", "CONTRIBUTING.md", "docs/operations.md", ".ci/run"):
        assert versions in (ROOT / page).read_text(), page


def test_scripts_are_executable():
    assert [name for name in ("run", "compile-requirements") if not os.access(ROOT / ".ci" / name, os.X_OK)] == []


def test_no_file_names_a_package_index():
    found = [
        (name, text)
        for name in git_files("--cached", "--others", "--exclude-standard")
        for text in [*INDEX_HOSTS, *INDEX_OPTIONS]
        if text.encode() in (ROOT / name).read_bytes()
    ]
    assert found == []


def test_no_lock_file_of_another_tool_is_tracked():
    tracked = {Path(name).name for name in git_files("--cached")}
    assert tracked & {"uv.lock", "poetry.lock", "Pipfile.lock", "pdm.lock"} == set()


def test_no_secret_or_data_is_tracked():
    tracked = git_files("--cached")
    assert [name for name in tracked if Path(name).name in (".env", "clouds.yaml") or name.startswith("lake/")] == []


def imported_names(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(), path)):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names.add((node.module or "").split(".")[0])
    return names


def test_pipelines_import_neither_dagster_nor_assets():
    files = sorted((ROOT / "pipelines").rglob("*.py"))
    assert len(files) > 10
    found = {path.name: imported_names(path) for path in files}
    forbidden = {
        name: sorted(n for n in names if n == "assets" or n.startswith("dagster")) for name, names in found.items()
    }
    assert {name: names for name, names in forbidden.items() if names} == {}


def pins(name: str) -> dict[str, set[str]]:
    """Package -> its versions in a requirements file, without markers, which other packages may widen."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / name).read_text().splitlines():
        if match := re.match(r"([a-z0-9-]+)(?:\[[^]]*\])?==(.+?)(?: ;.*)? *\\$", line):
            found.setdefault(match[1], set()).add(match[2])
    return found


def test_developer_requirements_have_the_application_s_versions():
    application, developer = pins("requirements.txt"), pins("requirements-dev.txt")
    assert len(application) > 50
    assert {name: developer.get(name) for name in application} == application


@pytest.mark.parametrize(
    "name", ["requirements.txt", "requirements-deploy.txt", "requirements-dev.txt", "requirements-dbt.txt"]
)
def test_every_requirement_has_a_hash(name):
    # A line that pins ends with a backslash and is followed by its hashes.
    lines = (ROOT / name).read_text().splitlines()
    pinned = [n for n, line in enumerate(lines) if "==" in line and not line.lstrip().startswith("#")]
    assert len(pinned) > 50
    assert [lines[n] for n in pinned if not lines[n + 1].startswith("    --hash=sha256:")] == []


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[^A-Za-z0-9-]", requirement)[0].lower() for requirement in requirements}

    application = names(project["project"]["dependencies"])
    assert application - pins("requirements.txt").keys() == set()
    extras = {name for names_ in project["project"]["optional-dependencies"].values() for name in names(names_)}
    assert (application | extras) - pins("requirements-deploy.txt").keys() == set(), "run .ci/compile-requirements"
    developer = application | extras | names(project["dependency-groups"]["dev"])
    assert developer - pins("requirements-dev.txt").keys() == set(), "run .ci/compile-requirements"
    dbt = names(project["dependency-groups"]["dbt"])
    assert dbt - pins("requirements-dbt.txt").keys() == set(), "run .ci/compile-requirements"


def test_dbt_opens_duckdb_files_with_the_application_s_version():
    assert pins("requirements-dbt.txt")["duckdb"] == pins("requirements.txt")["duckdb"]
