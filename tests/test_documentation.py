"""The documentation is true where a machine can tell: its links, its quotes, and the tests that it names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PAGES = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md")])
LINK = re.compile(r"\]\((?!https?://)([^)#]*)(?:#([^)]*))?\)")
CODE_FILE = re.compile(r"`((?:[a-z_]+/)+[a-z_0-9]+\.py)`")
TEST = re.compile(r"\btest_[a-z0-9_]+\b(?!\.py)")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    """Name a page for pytest's report."""
    return str(page.relative_to(CHECKOUT))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as renderers make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    """Each link inside the documentation leads to a file, and to a heading in it where it names one."""
    for target, anchor in LINK.findall(page.read_text()):
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_test_that_is_named_exists(page: Path) -> None:
    """A claim that names a test names one that is there."""
    known = {
        node.name
        for file in (CHECKOUT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef)
    }

    assert set(TEST.findall(page.read_text())) - known == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_source_file_that_is_named_exists(page: Path) -> None:
    """A file that is named lies in the package, or where its path says."""
    named = CODE_FILE.findall(page.read_text())

    places = (CHECKOUT, CHECKOUT / "airflow_batchkit")
    assert [file for file in named if not any((place / file).exists() for place in places)] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_python_block_is_a_quote(page: Path) -> None:
    """Python in the documentation is cut out of an example DAG, which the tests run."""
    examples = [file.read_text() for file in (CHECKOUT / "dags").glob("*.py")]

    for block in BLOCK.findall(page.read_text()):
        assert any(block in example for example in examples), block
