"""What the documents say of settings and links is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cloister.config import SETTINGS

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
DOCUMENTS = [
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/README.md"))
    if "node_modules" not in path.parts
]


def test_the_settings_page_lists_every_setting_as_it_is():
    page = (ROOT / "docs" / "settings.md").read_text()
    for setting in SETTINGS:
        default = f"`{setting.default}`" if setting.default else ""
        assert f"| `{setting.name}` | `{setting.variable}` | {default} | {setting.help} |" in page
    assert len(re.findall(r"^\| `", page, re.MULTILINE)) == len(SETTINGS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(document):
    for target in LINK.findall(document.read_text()):
        assert (document.parent / target).exists(), target


def test_every_decision_has_a_number_of_its_own_and_its_title_says_it():
    numbers = []
    for path in sorted((ROOT / "docs" / "adr").glob("*.md")):
        numbers.append(int(path.name.partition("-")[0]))
        assert path.read_text().startswith(f"# {numbers[-1]}. "), path.name
    assert len(numbers) == len(set(numbers))
