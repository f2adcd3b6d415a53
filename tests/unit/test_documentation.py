"""The documentation's statements about commands, options, settings and pages are true."""

import dataclasses
import json
import re
import shlex

import pytest
import typer

from assets.cli import app
from pipelines.sandbox.options import Faults, SandboxOptions
from pipelines.settings import ROOT, Settings, known_variables

PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md"))),
]
COMMANDS = typer.main.get_command(app).commands
# Further options of the sandbox's own command line, which has another parser.
SANDBOX = {
    f"--{name.replace('_', '-')}"
    for name in [f.name for f in dataclasses.fields(SandboxOptions)] + [*Faults.model_fields]
}
OF_ALL = {"--help", "--version", "--install-completion", "--show-completion"}

# Up to the end of the code, or of the shell's command.
INVOCATION = re.compile(
    r"(?<!-u )(?<![\w.-])image-snapshots +([a-z]+)(?![a-z/])((?:[^`\n|#&;\"']|\"[^\"\n]*\"|'[^'\n]*')*)"
)


def text_of(page):
    return (ROOT / page).read_text()


def options_of(command):
    if command == "sandbox":
        return SANDBOX
    return {option for param in COMMANDS[command].params for option in param.opts}


def code(page):
    """The code on a page, in blocks and within lines."""
    found = re.findall(r"^```\w*\n(.*?)^```$|`([^`\n]+)`", text_of(page), re.MULTILINE | re.DOTALL)
    return "\n".join(block or line for block, line in found)


def test_documented_commands_and_options_exist():
    wrong, seen = [], set()
    for page in PAGES:
        for command, rest in INVOCATION.findall(code(page)):
            if command not in COMMANDS:
                wrong.append((page, command))
                continue
            seen.add(command)
            words = shlex.split(rest.replace("…", ""), posix=True) if rest.count('"') % 2 == 0 else rest.split()
            given = {word.partition("=")[0] for word in words if word.startswith("--")}
            wrong += [(page, command, option) for option in given - options_of(command) - OF_ALL]
    assert wrong == []
    assert seen >= {"run", "status", "query", "derive", "load", "verify"}


def test_readme_lists_every_command_with_existing_options():
    rows = re.findall(r"^\| `image-snapshots (\w+)[^|]*\|(.*)\|$", text_of("README.md"), re.MULTILINE)
    assert {command for command, _ in rows} == COMMANDS.keys() - {"load"}
    for command, meaning in rows:
        named = set(re.findall(r"--[a-z-]+", meaning))
        assert named <= options_of(command) | (options_of("load") if command == "derive" else set()), command
    assert "`load` only loads" in dict(rows)["derive"]


def test_readme_names_every_setting():
    table = text_of("README.md").partition("| `IMAGE_SNAPSHOTS_…` |")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", table, re.MULTILINE))
    assert rows.keys() == {name.upper() for name in Settings.model_fields}
    # Defaults that are plain values are shown as they are.
    for name, field in Settings.model_fields.items():
        stated = rows[name.upper()].strip("`")
        if isinstance(field.default, bool):
            assert stated == str(field.default).lower(), name
        elif isinstance(field.default, (int, float)):
            assert float(stated) == field.default, name


def test_variables_that_are_named_are_settings():
    files = [*(ROOT / page for page in PAGES), *(path for path in (ROOT / "deploy").rglob("*") if path.is_file())]
    named = {name for path in files for name in re.findall(r"IMAGE_SNAPSHOTS_[A-Z_]*[A-Z]", path.read_text())}
    assert named - known_variables() == set()
    assert named > {"IMAGE_SNAPSHOTS_PROJECTS", "IMAGE_SNAPSHOTS_WAREHOUSE_FILE"}


@pytest.mark.parametrize("page", PAGES)
def test_links_in_the_docs_are_valid(page):
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        if not file.exists():
            dead.append(target)
        elif anchor and file.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            if anchor not in anchors:
                dead.append(target)
    assert dead == []


@pytest.mark.parametrize("name", ["audit", "cost"])
def test_notebooks_read_the_lake_that_the_readme_states(name):
    notebook = json.loads((ROOT / "docs" / "notebooks" / f"{name}.ipynb").read_text())
    source = "".join("".join(cell["source"]) for cell in notebook["cells"])
    assert 'ROOT / os.environ.get("IMAGE_SNAPSHOTS_LAKE", "lake")' in source
    assert "load_environment" not in source


def test_no_page_counts_csv_rows_by_lines():
    assert [page for page in PAGES if re.search(r"image-snapshots query .*\| *wc -l", text_of(page))] == []
