"""What people try first: the version, help, completion, and words at the prompt of `query`."""

import signal
import threading

import pytest
import typer
from typer.testing import CliRunner

from assets import query_command
from assets.cli import app
from assets.terminal import Commands
from pipelines.fingerprint import code_version


def invoke(*arguments, env=None):
    return CliRunner().invoke(app, [*arguments], env=env)


def test_version_option_prints_the_version_of_manifests():
    result = invoke("--version")
    assert result.exit_code == 0
    assert result.output == f"image-snapshots {code_version()}\n"


@pytest.mark.parametrize("command", [(), ("run",), ("status",), ("retention",), ("query",), ("verify",), ("compact",)])
def test_help_shows_no_type_of_a_flag(command):
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    assert "--help" in result.output
    assert "bool" not in result.output.lower()


def test_help_shows_the_values_of_other_options():
    assert "<int range>" in invoke("status", "--help", env={"COLUMNS": "120"}).output


def test_completion_offers_the_commands():
    env = {"_IMAGE_SNAPSHOTS_COMPLETE": "complete_bash", "COMP_WORDS": "image-snapshots st", "COMP_CWORD": "1"}
    result = CliRunner().invoke(app, [], env=env, prog_name="image-snapshots")
    assert result.output.split() == ["status"]


def test_ctrl_c_ends_any_command_with_one_sentence():
    stopped = typer.Typer(cls=Commands)

    @stopped.command()
    def one() -> None:
        signal.raise_signal(signal.SIGINT)

    stopped.command()(lambda: None)
    result = CliRunner().invoke(stopped, ["one"])
    assert result.exit_code == 1
    assert result.output == "Error: Stopped by Ctrl-C.\n"


def test_ctrl_c_during_clean_up_still_ends_the_command(capfd):
    stopped = typer.Typer(cls=Commands)

    class Interrupted:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    @stopped.command()
    def one() -> None:
        # Python ignores exceptions here.
        Interrupted()
        threading.Event().wait(60)

    stopped.command()(lambda: None)
    result = CliRunner().invoke(stopped, ["one"])
    assert (result.exit_code, result.output) == (1, "Error: Stopped by Ctrl-C.\n")
    assert capfd.readouterr().err == ""


@pytest.fixture
def at_the_prompt(monkeypatch, capsys):
    def type_in(*lines):
        typed = iter(lines)

        def read(_):
            try:
                return next(typed)
            except StopIteration:
                raise EOFError from None

        asked = []
        monkeypatch.setattr("builtins.input", read)
        monkeypatch.setattr(query_command, "_interruptible", lambda _, work: asked.append(work.args[1]))
        query_command._ask(None, query_command.OutputFormat.TABLE)
        return asked, [*typed], capsys.readouterr().out

    return type_in


@pytest.mark.parametrize("word", ["exit", "quit", "EXIT;", ".quit", "\\q", " exit ; "])
def test_prompt_ends_at_these_words(word, at_the_prompt):
    assert at_the_prompt(word, "SELECT 1;")[:2] == ([], ["SELECT 1;"])


@pytest.mark.parametrize("word", ["help", "help;", ".help", "?"])
def test_prompt_shows_help_at_these_words(word, at_the_prompt):
    asked, _, shown = at_the_prompt(word, "SELECT 1;")
    assert asked == ["SELECT 1;"]
    assert shown.count("End a query with a semicolon") == 2


@pytest.mark.parametrize("word", [".tables", ".tables;", "\\d"])
def test_prompt_lists_tables_at_these_words(word, at_the_prompt):
    asked, _, shown = at_the_prompt(word, "SELECT 1;")
    assert asked == ["SELECT 1;"]
    assert shown.count("images_latest ") == 2


def test_prompt_words_inside_a_query_belong_to_the_query(at_the_prompt):
    assert at_the_prompt("SELECT 1 AS", "exit", ";")[0] == ["SELECT 1 AS\nexit\n;"]
