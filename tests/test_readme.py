"""The README tells the truth about the files."""

import re
from pathlib import Path

import pytest

from pipeline import config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def tree_entries() -> list[str]:
    """Paths of the annotated file tree, two spaces of indentation a level."""
    (block,) = re.findall(r"## What is where\n\n```\n(.*?)```", README, flags=re.DOTALL)
    folders: list[str] = []
    entries = []
    for line in block.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folders[depth:] = [name]
        entries.append("".join(folders))
    return entries


@pytest.mark.parametrize("entry", tree_entries())
def test_what_the_tree_names_exists(entry: str) -> None:
    path = ROOT / entry
    assert path.is_dir() if entry.endswith("/") else path.is_file()


def test_the_tree_names_every_file_and_room() -> None:
    entries = set(tree_entries())
    for folder in ("pipeline", "launch", "tools", "configs", "docs"):
        for path in (ROOT / folder).rglob("*"):
            name = path.relative_to(ROOT).as_posix()
            hidden = "__pycache__" in name or path.name == "__init__.py" or path.suffix == ".png"
            if path.is_file() and not hidden:
                assert name in entries, f"{name} is missing from the README's tree"
    for path in (ROOT / "tests").iterdir():
        if path.is_dir() and path.name != "__pycache__":
            assert f"tests/{path.name}/" in entries


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)#]+)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"configs/\w+\.yaml", README))))
def test_configs_that_are_named_load(name: str) -> None:
    config.load(ROOT / name)


def test_no_placeholder_is_left() -> None:
    assert not re.findall(r"TREE|MEASURE|TODO", README)
