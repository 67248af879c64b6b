"""The site builds, what is made from the code is all there, nothing is fetched; what pages name exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from compatibility import table
from console import blocks

from pyetcd.api.gateway.paths import PATHS
from pyetcd.api.server import STREAMS, UNARY
from pyetcd.cli.command import Command
from pyetcd.cli.etcd import proxies
from pyetcd.cli.etcd.flag_table import FLAGS, Kind
from pyetcd.cli.etcdctl import tree as etcdctl_tree
from pyetcd.cli.etcdutl import tree as etcdutl_tree
from pyetcd.proto.errors import EtcdError

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")
FETCHED = re.compile(r"""<(?:script|img|link|iframe|source)\b[^>]*(?:src|href)=["']?(?:https?:)?//[^>]*>""")
# Flags of other programs, in commands that pages show.
NOT_OURS = {"logger"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "site"
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert built.returncode == 0, built.stdout + built.stderr  # strict: a link that leads nowhere is an error
    return out


def commands(command: Command) -> Iterator[Command]:
    for sub in command.commands:
        yield sub
        yield from commands(sub)


def kinds(base: type[EtcdError]) -> Iterator[type[EtcdError]]:
    for error in base.__subclasses__():
        yield error
        yield from kinds(error)


def test_every_flag_of_etcd_has_its_place_in_the_reference(site: Path) -> None:
    page = (site / "reference" / "etcd.html").read_text()
    for flag in FLAGS:
        if flag.kind is not Kind.IGNORED:
            assert f'id="-{flag.name}"' in page or f'id="{flag.name}"' in page, flag.name
            assert f"<code>{flag.variable}</code>" in page or flag.name == "version", flag.variable


@pytest.mark.parametrize(
    ("page", "root"),
    [
        ("etcdctl", etcdctl_tree.root()),
        ("etcdutl", etcdutl_tree.root()),
        ("proxies", proxies.root()),
    ],
)
def test_every_command_and_its_flags_are_in_the_reference(site: Path, page: str, root: Command) -> None:
    text = (site / "reference" / f"{page}.html").read_text()
    found = [command for command in commands(root) if command.run is not None and command.name != "help"]
    assert found
    for command in found:
        assert f'id="{command.path.replace(" ", "-")}"' in text, command.path
        for flag in command.flags:
            assert flag.name == "help" or flag.hidden or f"<code>--{flag.name}</code>" in text, flag.name


def test_every_rpc_path_and_error_is_in_the_reference(site: Path) -> None:
    services = (site / "reference" / "api.html").read_text()
    for name in (*UNARY, *STREAMS):
        service, _, method = name.lstrip("/").partition("/")
        section = services[services.index(f">{service}<") :]
        assert f"<strong>{method}</strong>" in section, name
    for path in PATHS:
        assert f"<code>{path}</code>" in services, path
    errors = (site / "reference" / "errors.html").read_text()
    told = [error for error in kinds(EtcdError) if "message" in vars(error)]
    assert len(told) > 50
    for error in told:
        assert error.message.replace("'", "&#39;") in errors or error.message in errors, error.message


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        assert not FETCHED.search(page.read_text()), page
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text()), style


def test_links_of_what_is_read_in_the_repository_lead_to_files() -> None:
    for page in (ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md"):
        for target, _ in LINK.findall(page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_flags_that_pages_name_exist() -> None:
    known = {flag.name for flag in FLAGS} | {"help", "version"} | NOT_OURS
    for root in (etcdctl_tree.root(), etcdutl_tree.root(), proxies.root()):
        known |= {flag.name for flag in root.persistent}
        known |= {flag.name for command in commands(root) for flag in (*command.flags, *command.persistent)}
    for page in (page for page in PAGES if page.name != "compatibility.md"):  # it has tests of its own
        for name in re.findall(r"`--([a-z][a-z0-9-]+)[`= ]", page.read_text()):
            assert name in known, f"{page.relative_to(ROOT)}: --{name}"


def test_metrics_that_pages_name_exist() -> None:
    known = set(table("Metrics"))
    for page in PAGES:
        for name in re.findall(r"\b((?:etcd|pyetcd|process)_[a-z0-9_]+)\b", page.read_text()):
            shown = re.sub(r"_(bucket|sum|count)$", "", name)
            assert {name, shown} & known or name in FIXTURES, f"{page.relative_to(ROOT)}: {name}"


FIXTURES = {"etcd_factory", "etcd_cluster", "etcd_scope"}


def test_tests_and_sources_that_pages_name_exist() -> None:
    for page in PAGES:
        for name in re.findall(r"`((?:tests|src|scripts|bench)/[\w/.-]+)`", page.read_text()):
            assert (ROOT / name).exists() or name.startswith("bench/results"), f"{page.name}: {name}"


def test_python_on_pages_is_python() -> None:
    found = [(page, text) for page in PAGES for _, text in blocks(page.read_text(), "python")]
    assert found
    for page, lines in found:
        compile("\n".join(lines), str(page), "exec")


def test_pictures_say_what_they_show_and_fetch_nothing() -> None:
    pictures = list((ROOT / "docs" / "assets").glob("*.svg"))
    design = (ROOT / "docs" / "design.md").read_text()
    assert pictures
    for picture in pictures:
        drawing = ElementTree.parse(picture).getroot()
        assert drawing.find("{http://www.w3.org/2000/svg}title") is not None, picture
        assert "href" not in picture.read_text(), picture
        assert f"assets/{picture.name}" in design, picture
