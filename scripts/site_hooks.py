"""What mkdocs is told beside mkdocs.yml: pages made from the code, and pages that no menu names yet.

A page of `docs/` that the menu does not name is shown under "More", so that nobody has to touch two files to
have a page.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

from reference import pages


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    assert config.nav is not None
    docs = Path(config.docs_dir)
    named = set(_paths(config.nav))
    others = sorted(str(path.relative_to(docs)) for path in docs.rglob("*.md"))
    more = [path for path in others if path not in named]
    if more:
        config.nav.append({"More": more})
    return config


def _paths(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    if isinstance(nav, dict):
        nav = list(nav.values())
    return [path for part in nav for path in _paths(part)] if isinstance(nav, list) else []


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files
