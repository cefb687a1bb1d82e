"""What a plan does to a text, measured in tests: a pre-tokenizer with a Split rule, and the project's own docs."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from shared_models import SharedModel
from workspaces import REPOSITORY

from tokmigrate.commands.plan import plan
from tokmigrate.plan.corpus import Impact, measure
from tokmigrate.plan.plan import Plan

GPT4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
SPLIT = {
    "type": "Sequence",
    "pretokenizers": [{"type": "Split", "pattern": {"Regex": GPT4}, "behavior": "Isolated", "invert": False}, BYTES],
}
NO_SPLIT = f"- set_pre_tokenizer: {json.dumps({**BYTES, 'acknowledge': 'breaking'})}"

DOCS = "\n".join(
    line
    for page in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))
    for line in page.read_text("utf-8").splitlines()
    if line
)


def measured(model: SharedModel, text: str | bytes) -> Impact | None:
    """Measure what is pending on a text."""
    return impact_on(plan(model.workspace, model.entry), text)


def impact_on(planned: Plan, text: str | bytes) -> Impact | None:
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.txt"
        corpus.write_bytes(text if isinstance(text, bytes) else text.encode())
        return measure(planned, corpus)


def begin_with(model: SharedModel, /, **parts: Any) -> None:
    """Give the model other parts of tokenizer.json from the start, as other models of its kind have them."""
    document = {**model.json("tokenizer.json"), **parts}
    (model.directory / "tokenizer.json").write_text(json.dumps(document), "utf-8")
