"""A corpus of code, and commands that learn from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from shared_models import SharedModel
from workspaces import Workspace

HERE = Path(__file__).parent
CODE = "\n".join(path.read_text("utf-8") for path in sorted(HERE.glob("test_r*.py")))
PROSE = (HERE.parent / "README.md").read_text("utf-8")


def write_code(folder: Path) -> Path:
    """Write the corpus into a folder, and return its path."""
    path = folder / "corpus.txt"
    path.write_text(CODE, "utf-8")
    return path


def learn(model: SharedModel, *words: str | Path) -> dict[str, Any]:
    """Run `learn` in the model's workspace, and return what it says."""
    told = Workspace(model.root).run("learn", *map(str, words), "-m", "Learned", "--json")
    assert told.returncode == 0, told.stdout + told.stderr
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def tokenize(library: tokenizers.Tokenizer, lines: list[str]) -> list[list[str]]:
    """Return the tokens of each line, however long it is."""
    library.no_truncation()
    library.no_padding()
    return [
        [library.id_to_token(number) for number in each.ids]
        for each in library.encode_batch(lines, add_special_tokens=False)
    ]


def held_out(library: tokenizers.Tokenizer) -> int:
    """Return how many tokens the lines of the corpus have that are held out."""
    return sum(map(len, tokenize(library, [line for line in CODE.split("\n")[9::10] if line])))
