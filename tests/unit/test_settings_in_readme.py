"""The README's table of settings lists exactly the settings."""

import re

from pipelines.settings import ROOT, Settings


def test_readme_lists_exactly_the_settings():
    text = (ROOT / "README.md").read_text()
    table = text[text.index("| `IMAGE_SNAPSHOTS_…` |") :].partition("\n\n")[0]
    listed = re.findall(r"^\| `([A-Z0-9_]+)`", table, re.MULTILINE)
    assert sorted(listed) == sorted(name.upper() for name in Settings.model_fields)
