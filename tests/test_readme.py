"""The Chinese README says what the English one says."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
READMES = ("README.md", "README.zh-CN.md")


def lines_of(name: str) -> list[str]:
    return (ROOT / name).read_text(encoding="utf-8").splitlines()


def commands_of(name: str) -> list[str]:
    """The lines of code, without what is said about them."""
    code, inside = [], False
    for line in lines_of(name):
        if line.startswith("```"):
            inside = not inside
        elif inside:
            code.append(re.sub(r"\s*#.*", "", line))
    return code


def numbers_of_tables(name: str) -> list[list[str]]:
    return [re.findall(r"\d[\d.,]*\d|\d", line) for line in lines_of(name) if line.startswith("|")]


def links_of(name: str) -> set[str]:
    return {
        link for line in lines_of(name) for link in re.findall(r"\]\(([^)]+)\)", line) if link not in READMES
    }


@pytest.mark.parametrize("facts", [commands_of, numbers_of_tables, links_of])
def test_both_say_the_same(facts: object) -> None:
    assert callable(facts)
    english, chinese = (facts(name) for name in READMES)
    assert english == chinese
    assert english


@pytest.mark.parametrize("name", READMES)
def test_what_is_linked_is_there(name: str) -> None:
    missing = [link for link in links_of(name) if "://" not in link and not (ROOT / link).exists()]
    assert not missing
