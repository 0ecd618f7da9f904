"""What is written for readers shows commands that they have, and depends on no machine of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.house.source import ROOT, texts

_NAMES = """
    apt-get cat cd chmod cmp cp createdb curl date diff docker echo export git grep gunzip head install jq
    kill lint-imports ls make mkdir mypy openssl pg_dump pg_restore pg_upgrade pip psql pytest python python3
    rm ruff sed settlement sha256sum sleep sort source sqlite3 sudo systemctl tail tee time unzip useradd uv wc xxd
"""
COMMANDS = frozenset(_NAMES.split())
"""What a reader has, or gets from this project."""
SHELL = {"for", "while", "until", "if", "then", "else", "fi", "do", "done", "wait", "trap"}
FENCE = re.compile(r"^```(sh|bash|shell|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ADDRESS = re.compile(r"\b[a-z]+://|index-url|extra-index|trusted-host|find-links", re.IGNORECASE)
SET_UP = ("Makefile", ".ci/run", "requirements.lock", "pyproject.toml")


def commands(text: str) -> Iterator[str]:
    """The programs that begin the lines of a page's shell blocks; what is indented, quoted or piped is left out."""
    own = set(re.findall(r"^(\w+) ?\(\)", text, re.MULTILINE)) | SHELL
    for _, block in FENCE.findall(text):
        joined = re.sub(r"\\\n", " ", block)
        without_here = re.sub(r"<<-?'?(\w+)'?\n.*?^\1$", "", joined, flags=re.MULTILINE | re.DOTALL)
        without_inner = re.sub(r"\$\([^()]*\)", "", re.sub(r"\$\([^()]*\)", "", without_here))
        for line in re.sub(r"'[^']*'|\"[^\"]*\"", "''", without_inner).splitlines():
            words = line.removeprefix("$ ").split(" ")
            while words and re.match(r"\w+=", words[0]):
                words.pop(0)
            name = words[0].rsplit("/", 1)[-1] if words else ""
            if re.fullmatch(r"[a-z][\w.-]*", name) and name not in own:
                yield name


def pages() -> list[tuple[str, str]]:
    """Everything that is written for people."""
    return [(path, text) for path, text in texts() if path.endswith(".md")]


def test_pages_show_only_commands_that_readers_have() -> None:
    """A page that shows a tool of whoever wrote it is of no use to whoever reads it."""
    assert {(path, name) for path, text in pages() for name in commands(text) if name not in COMMANDS} == set()


def test_nothing_names_this_checkout() -> None:
    """No file holds the absolute path of the place where it was written, or of what lay beside it."""
    places = [str(ROOT) + "/", str(ROOT.parent / "shared")]
    assert [path for path, text in texts() if any(place in text for place in places)] == []


def test_set_up_names_no_place_to_install_from() -> None:
    """Where packages come from is the machine's choice; what they are is the lock's: names, versions and hashes."""
    kept = dict(texts())
    found = [
        f"{path}: {match.group()}"
        for path in SET_UP
        for line in kept[path].splitlines()
        if (match := ADDRESS.search(line)) and not line.startswith("#    uv pip compile")
    ]
    assert found == []


def test_lock_holds_hashes_and_every_requirement() -> None:
    """Each distribution is pinned with hashes, and each that pyproject.toml asks for is there."""
    kept = dict(texts())
    entries = re.split(r"\n(?=[a-z])", kept["requirements.lock"].split("\n", 2)[2])
    names = set()
    for entry in entries:
        match = re.match(r"([a-z0-9-]+)==\S+", entry)
        assert match, entry[:80]
        assert "--hash=sha256:" in entry, entry[:80]
        names.add(match.group(1))
    asked = re.findall(
        r'^(?:embedded = \[)?\s*"([a-z0-9-]+)(?:\[[a-z,]+\])?[<>=]', kept["pyproject.toml"], re.MULTILINE
    )
    assert len(asked) > 20
    assert set(asked) - names == set()


def test_rules_can_fail() -> None:
    """Each rule on something that breaks it."""
    script = "make demo\nour-tool show 3\n./bin/settlement usage submit 'a; b' # then\ncat <<EOF\nfoo bar\nEOF\n"
    page = f"text\n```sh\n{script}```\n"
    assert list(commands(page)) == ["make", "our-tool", "settlement", "cat"]
    assert ADDRESS.search("--index-url https://mirror.example/simple")


@pytest.mark.parametrize("path", ["Makefile", ".ci/run", "LICENSE", "CONTRIBUTING.md", "SECURITY.md", "README.md"])
def test_reader_finds_the_usual_files(path: str) -> None:
    """With something in them."""
    assert len((ROOT / path).read_text()) > 200
