"""The documentation against the code: links, command lines, quoted messages, stated constants."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from flowlake.cli import parser
from flowlake.datasets.raw import RAW
from flowlake.signals import evidence

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LARGEST_BYTES = 300_000
# Written so that this file does not hold the words themselves.
FORBIDDEN = ("TO" + "DO", "FIX" + "ME", "DESIGN" + ".md", "Cla" + "ude", "/wo" + "rk/", "lorem" + " ipsum", "coming" + " soon")

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def command_lines(text: str) -> Iterator[str]:
    """Every `flowlake ...` with arguments: a line of a code block, or inline code."""
    for block in _FENCE.findall(text):
        yield from (line.strip().removeprefix("$ ") for line in block.splitlines() if re.match(r"\s*(\$ )?flowlake [a-z-]", line))
    yield from (code for code in _INLINE.findall(_FENCE.sub("", text)) if re.match(r"flowlake [a-z-]", code))


def test_the_pages_are_there() -> None:
    names = {page_id(page) for page in PAGES}
    wanted = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", *(f"docs/{n}.md" for n in ("architecture", "methods", "operations")))
    assert names.issuperset({*wanted, "docs/troubleshooting.md", "docs/vendors.md", "docs/data-dictionary.md"})
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def tables(page: Path) -> Iterator[list[str]]:
    """Lines of each table: rows without a blank line between them."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    yield from (block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_table_has_its_header(page: Path) -> None:
    """Rows behind a blank line are no table any more, and are shown as text."""
    for rows in tables(page):
        assert len(rows) > 1, rows
        assert re.fullmatch(r"(\|[ :]*-+[ :]*)+\|", rows[1]), f"{page_id(page)}: {rows[0][:80]}"


def test_one_table_names_every_raw_dataset() -> None:
    feeds = next(rows for rows in tables(ROOT / "docs/vendors.md") if rows[0].startswith("| key in the bucket"))
    assert {ds.name for ds in RAW} == {row.split("|")[2].strip(" `") for row in feeds[2:]}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_relative_link_resolves(page: Path) -> None:
    for target in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page_id(page)} links to {target}"
        if anchor:
            assert anchor in anchors(linked), f"{page_id(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_command_line_parses(page: Path) -> None:
    for line in command_lines(page.read_text(encoding="utf-8")):
        arguments = shlex.split(line, comments=True)[1:]
        try:
            parser().parse_args([argument.replace("…", "2024-03-01") for argument in arguments])
        except SystemExit as stopped:
            assert stopped.code == 0, f"{page_id(page)}: {line}"  # noqa: PT017 - only --help and --version stop with 0


def test_the_command_lines_are_found() -> None:
    readme = list(command_lines((ROOT / "README.md").read_text(encoding="utf-8")))
    operations = list(command_lines((ROOT / "docs/operations.md").read_text(encoding="utf-8")))
    assert len(readme) >= 3
    assert len(operations) >= 10


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_no_forbidden_word(page: Path) -> None:
    text = page.read_text(encoding="utf-8").lower()
    assert [word for word in FORBIDDEN if word.lower() in text] == []


def test_the_readme_shows_the_two_commands() -> None:
    blocks = "\n".join(_FENCE.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert re.search(r"^make demo\b", blocks, re.MULTILINE)
    assert re.search(r"^make test\b", blocks, re.MULTILINE)


def test_no_documentation_file_is_large() -> None:
    files = [file for folder in ("docs", "notebooks") for file in (ROOT / folder).rglob("*") if file.is_file()]
    assert [file.name for file in files if file.stat().st_size > LARGEST_BYTES] == []


@pytest.mark.parametrize("picture", sorted((ROOT / "docs/img").glob("*.svg")), ids=lambda picture: picture.name)
def test_every_picture_is_well_formed_and_used(picture: Path) -> None:
    root = ElementTree.parse(picture).getroot()
    assert root.tag.endswith("svg")
    assert root.get("aria-label"), "a picture says in words what it shows"
    assert any(f"img/{picture.name}" in page.read_text(encoding="utf-8") for page in PAGES)


def source_text() -> str:
    """The strings of the sources, adjacent literals joined, placeholders of f-strings as `…`."""
    found = []
    for file in sorted((ROOT / "src/flowlake").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_every_message_of_the_troubleshooting_page_is_one_of_ours() -> None:
    text = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    messages = [message for message in re.findall(r"\n\n`([^`]+)`", text) if " " in message]
    sources = source_text()
    assert len(messages) >= 20
    for message in messages:
        pieces = [piece.strip(" ():,;") for piece in message.split("…")]
        missing = [piece for piece in pieces if piece not in sources]
        assert not missing, f"{message}: nothing says {missing}"


def stated_constants() -> list[tuple[str, str]]:
    text = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `(flowlake\.[\w.]+)` \| ([^|]+) \|", text, re.MULTILINE)


def resolved(path: str) -> Any:
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            value = getattr(value, name)
        return value
    raise AssertionError(f"{path} does not exist")


def test_methods_state_constants() -> None:
    assert len(stated_constants()) >= 40


@pytest.mark.parametrize(("path", "value"), stated_constants())
def test_methods_state_the_constants_of_the_code(path: str, value: str) -> None:
    assert resolved(path) == ast.literal_eval(value.strip())


def test_methods_state_the_weights_of_the_evidence() -> None:
    text = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    section = text.split("\n## Score\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| ([^|]+?) \| (\d\.\d\d) \|$", section, re.MULTILINE))
    stated = {frozenset(re.findall(r"`([\w{}]+)`", names)): float(weight) for names, weight in rows.items()}
    wanted = {frozenset((*family.factors, *family.instead)): family.weight for family in evidence.FAMILIES}
    wanted |= {frozenset([engine]): weight for engine, weight in evidence.ENGINE_WEIGHTS.items()}
    assert stated == wanted
