"""Text from outside cannot control a terminal or forge a line; data is kept unchanged."""

import io

import pytest

from assets.metadata import counts_metadata, rows_metadata
from assets.query_command import OutputFormat, _Visible
from assets.terminal import print_error, print_line, print_note, print_table, print_warning
from pipelines.errors import ConfigurationError, StorageError
from pipelines.plain_text import visible

FORGED = "name\x1b[2J\r\n2026-11-23 default: complete (999 ok)\x9b1m\u202e\u2028\u2066\x7f\ud83d"
SHOWN = r"name\x1b[2J\r\n2026-11-23 default: complete (999 ok)\x9b1m\u202e\u2028\u2066\x7f\ud83d"


def test_terminal_controls_are_escaped():
    assert visible(FORGED) == SHOWN
    assert visible(SHOWN) == SHOWN
    assert visible("Größe 図 \U0001f600 a\u00a0b") == "Größe 図 \U0001f600 a\u00a0b"
    assert visible("a\nb\tc\rd", keep="\n\t") == "a\nb\tc\\rd"


@pytest.mark.parametrize("number", [*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200B, *range(0x2028, 0x202F), 0xFEFF])
def test_no_control_character_is_left(number):
    assert chr(number) not in visible(f"a{chr(number)}b")


@pytest.mark.parametrize("kind", [ConfigurationError, StorageError])
def test_error_message_is_one_line(kind):
    assert str(kind(f"The file {FORGED} is wrong.")) == f"The file {SHOWN} is wrong."


def test_printed_lines_errors_and_tables_are_escaped(capsys):
    print_line(FORGED)
    print_error(FORGED)
    print_warning(FORGED)
    print_note(FORGED)
    print_table("Days", ("name", "state"), [(FORGED, "a\tcomplete")])
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [SHOWN, "name\tstate", f"{SHOWN}\ta\\tcomplete"]
    assert captured.err.splitlines() == [f"Error: {SHOWN}", f"Warning: {SHOWN}", SHOWN]


def test_dagster_pages_show_escapes():
    (record,) = rows_metadata([{"name": FORGED}]).records
    assert record.data == {"name": SHOWN}
    (record,) = counts_metadata({FORGED: 1}).records
    assert record.data == {"name": SHOWN, "count": 1}


def test_csv_on_a_terminal_has_no_forged_lines():
    target = io.BytesIO()
    writer = _Visible(target, has_quoted_lines=True)
    content = b'"id","name"\n"1","a\n2026: complete (999 ok)\x1b[0m"\n"2","say ""x"""\n'
    # Cut within a character and within quotes.
    for byte in content:
        writer.write(bytes([byte]))
    assert target.getvalue().decode() == '"id","name"\n"1","a\\n2026: complete (999 ok)\\x1b[0m"\n"2","say ""x"""\n'


def test_json_on_a_terminal_keeps_its_lines():
    target = io.BytesIO()
    _Visible(target, has_quoted_lines=False).write('[\n{"a":"\\"\u202e"},\n{"a":1}\n]\n'.encode())
    assert target.getvalue().decode() == '[\n{"a":"\\"\\u202e"},\n{"a":1}\n]\n'
    assert OutputFormat.JSON == "json"
