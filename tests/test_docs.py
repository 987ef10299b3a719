"""The pages in docs/, the README and the examples in docstrings are programs: they run, and print what they say."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import inspect
import io
import re
from pathlib import Path
from typing import Any

import pytest

import graphc as gc
from tests import gallery
from tests.reference import page

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/guide.md", "docs/journey.md")
CONVERSIONS = {name for name in gc.cells.__all__ if name.startswith(("from_", "to_"))}
MODULES = {  # that have examples in docstrings, by their names below `graphc.`
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removeprefix("graphc.")
    for folder in ("graphc", "ops", "codegen")
    for path in (ROOT / folder).rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
}
BLOCK = re.compile(r"```python\n(?P<code>.*?)```\n(?P<gap>\n*)(?:```text\n(?P<printed>.*?)```\n)?", re.DOTALL)


def rendered(page: str, folder: Path) -> str:
    """The page with every print under its block as it is now. Blocks share their names, and run in `folder`."""
    names: dict[str, Any] = {"__name__": "page"}

    def run(match: re.Match[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.chdir(folder):
            exec(compile(match["code"], "cell.py", "exec"), names)
        text = printed.getvalue().rstrip("\n")
        block = f"```python\n{match['code']}```\n"
        if not text:
            return block + (match["gap"] or "")
        after = "" if match["printed"] is not None else match["gap"]
        return f"{block}\n```text\n{text}\n```\n{after}"

    return BLOCK.sub(run, page)


def anchors(page: str) -> dict[str, tuple[int, str]]:
    """The headings of a page outside of its code, with their levels, by the names that GitHub gives them for links."""
    headings = re.findall(r"^(#+) (.+)$", re.sub(r"```.*?```", "", page, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-"): (len(level), text) for level, text in headings}


def with_contents(page: str) -> str:
    """The page with its list of links to its parts and their sections, if it has one, as they are now."""
    headings = list(anchors(page).items())[1:]
    top = min((level for _, (level, _) in headings), default=1)
    links = "".join(f"{'  ' * (level - top)}- [{heading}](#{anchor})\n" for anchor, (level, heading) in headings)
    return re.sub(r"( *- \[[^\n]*\]\(#[^\n]*\)\n)+", lambda _: links, page, count=1)


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))])
def test_links_lead_somewhere(path: Path) -> None:
    page = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", page):
        if "://" not in link:
            file, _, anchor = link.partition("#")
            there = path.parent / file if file else path
            assert there.exists(), link
            assert not anchor or anchor in anchors(there.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/*.md")), ids=lambda path: path.stem)
def test_contents_are_those_of_the_page(path: Path, update_golden: bool) -> None:
    page = path.read_text(encoding="utf-8")
    if update_golden:
        path.write_text(with_contents(page), encoding="utf-8")
    assert with_contents(path.read_text(encoding="utf-8")) == path.read_text(encoding="utf-8")


def test_decisions_of_a_topic_are_in_the_order_of_their_dates() -> None:
    introduction, *topics = (ROOT / "docs/decisions.md").read_text(encoding="utf-8").split("\n## ")
    assert "**2" not in introduction
    for topic in topics:
        dates = re.findall(r"^\*\*(\d{4}-\d\d-\d\d)\. ", topic, re.MULTILINE)
        assert dates, topic
        assert dates == sorted(dates), topic


@pytest.mark.parametrize("name", PAGES)
def test_page_prints_what_it_says(name: str, tmp_path: Path, update_golden: bool) -> None:
    path = ROOT / name
    page = path.read_text(encoding="utf-8")
    assert "```python" in page
    now = rendered(with_contents(page), tmp_path)
    if update_golden:
        path.write_text(now, encoding="utf-8")
    else:
        assert now == page, "the page has changed; run `make golden` and read the difference"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_docstring_prints_what_it_says(name: str) -> None:
    tried = doctest.testmod(importlib.import_module(f"graphc.{name}"), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert tried.attempted
    assert not tried.failed


def test_every_function_is_listed(update_golden: bool) -> None:
    path = ROOT / "docs/functions.md"
    if update_golden:
        path.write_text(page(), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == page(), "the list has changed; run `make golden` and read the difference"


def test_every_cell_is_shown(update_golden: bool) -> None:
    path = ROOT / "docs/cells.md"
    if update_golden:
        path.write_text(gallery.page(), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == gallery.page(), "the page has changed; run `make golden`"
    shown = {name for names in gallery.SECTIONS.values() for name in names}
    assert shown == {name for name in gc.cells.__all__ if inspect.isfunction(getattr(gc.cells, name))} - CONVERSIONS


@pytest.mark.parametrize(("name", "graph"), [pytest.param(*x, id=x[0]) for x in gallery.pictures()])
def test_pictures_are_of_what_is(name: str, graph: gc.Graph, update_golden: bool) -> None:
    """The drawing has today's nodes and edges, wherever Graphviz puts them."""
    path, drawing = ROOT / "docs" / f"{name}.svg", gc.draw(graph)
    if update_golden:
        path.parent.mkdir(exist_ok=True)
        drawing.save(path)
    titles = [re.findall("<title>(.*?)</title>", svg) for svg in (path.read_text(encoding="utf-8"), drawing.svg)]
    assert len(titles[0]) > 5
    assert sorted(titles[0]) == sorted(titles[1]), "the drawing has changed; run `make golden`"
