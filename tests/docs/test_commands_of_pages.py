"""Every command that README and the pages of the site show is run, and prints what they show."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from console import Console, blocks, steps
from programs import GO, GO36, go_etcd

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = [page for page in PAGES if steps(page.read_text())]
TOUR = {"README.md", "docs/tour.md"}
# Shells and prompts under other names would be commands that nobody runs.
NOT_RUN = ("sh", "bash", "shell", "zsh", "shell-session")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.timeout(400)  # where Go's etcd is to be built first
@pytest.mark.parametrize("page", SHOWN, ids=name_of)
def test_the_commands_of_a_page_print_what_it_shows(page: Path, tmp_path: Path) -> None:
    text = page.read_text()
    programs = {name: BIN / name for name in ("etcd", "etcdctl", "etcdutl", "python")}
    if re.search(r"\bgo-etcd\b", text):
        programs["go-etcd"] = go_etcd(GO)
    if re.search(r"\bgo-etcd-3\.6\b", text):
        programs["go-etcd-3.6"] = go_etcd(GO36)
    console = Console(tmp_path, programs)
    try:
        for step in steps(text):
            console.run(step)
    finally:
        console.close()


def test_pages_show_commands_only_where_they_are_run() -> None:
    for page in PAGES:
        text = page.read_text()
        for language in NOT_RUN:
            assert not blocks(text, language), f"{name_of(page)} has a block of {language}; console is run"
        for language in ("", "text"):
            for line, shown in blocks(text, language):
                assert not any(part.startswith("$ ") for part in shown), f"{name_of(page)}:{line}"


def test_readme_and_the_tour_show_commands() -> None:
    assert {name_of(page) for page in SHOWN} >= TOUR
