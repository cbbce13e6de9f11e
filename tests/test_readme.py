"""What the README shows works as it stands there."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def blocks():
    """(language, text) of the README's code blocks."""
    return re.findall(r"^```(\w*)\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def test_the_first_two_blocks_are_commands_of_one_line(blocks):
    for language, text in blocks[:2]:
        assert language == "bash"
        assert len(text.splitlines()) == 1


def test_the_python_block_runs(blocks, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    [code] = [text for language, text in blocks if language == "python"]
    assert len(code.splitlines()) <= 10
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    # What the comments in the block say.
    assert names["latents"].shape == names["test"].shape
    assert names["samples"].shape == (1000, 30)
    assert names["log_density"].shape == (len(names["test"]),)
