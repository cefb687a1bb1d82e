"""What is computed from text does not depend on padding, truncation, dropout or post-processor of a tokenizer.json."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from shared_models import SharedModel
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from workspaces import Workspace

import tokmigrate
from tokmigrate.commands.lint import lint
from tokmigrate.init import strategy_types
from tokmigrate.lint.linter import Selection
from tokmigrate.model.tokenizer.library import open_tokenizer, text_alone
from tokmigrate.model.worker.worker import call_worker
from tokmigrate.revision.migration import CHECKS

Document = dict[str, Any]
State = Callable[[Document], None]

TEXT = "a call of a tool, the world and the words of it, tools are called and calls are tools"
END = "<|end|>"


def padding(document: Document) -> None:
    fixed = {"strategy": {"Fixed": 16}, "direction": "Left", "pad_to_multiple_of": None}
    document["padding"] = {**fixed, "pad_id": 0, "pad_type_id": 0, "pad_token": END}


def truncation(document: Document) -> None:
    document["truncation"] = {"max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}


def dropout(document: Document) -> None:
    document["model"]["dropout"] = 0.9


def tokens_around(document: Document) -> None:
    document["post_processor"] = _template({"SpecialToken": {"id": END, "type_id": 0}}, _text("A"))


def text_twice(document: Document) -> None:
    document["post_processor"] = _template(_text("A"), _text("A"))


def no_text(document: Document) -> None:
    document["post_processor"] = _template({"SpecialToken": {"id": END, "type_id": 0}})


def all_at_once(document: Document) -> None:
    for state in (padding, truncation, dropout, text_twice):
        state(document)


def _text(sequence: str) -> Document:
    return {"Sequence": {"id": sequence, "type_id": 0}}


def _template(*single: Document) -> Document:
    end = {"id": END, "ids": [0], "tokens": [END]}
    pair = [_text("A"), _text("B")]
    return {"type": "TemplateProcessing", "single": list(single), "pair": pair, "special_tokens": {END: end}}


STATES = (padding, truncation, dropout, tokens_around, text_twice, no_text, all_at_once)
MIGRATION = """\
- add_tokens:
    tokens:
      - {content: "<mean>", special: true, init: {strategy: mean}}
      - {content: "<mean_cov>", special: true, init: {strategy: mean_cov}}
      - {content: "<zeros>", special: true, init: {strategy: zeros}}
      - {content: "<normal>", special: true, init: {strategy: normal}}
      - {content: "<copy>", special: true, init: {strategy: copy, token: "Ġtool"}}
      - {content: "<average>", special: true, init: {strategy: average, tokens: {"Ġtool": 0.5, "Ġcall": 0.5}}}
      - {content: "<weighted>", special: true, init: {strategy: weighted, tokens: {"Ġtool": 1.5, "Ġcall": -0.5}}}
      - {content: "toolbox", init: {strategy: subtokens, output: first_piece}}
      - {content: "toolcall", init: {strategy: interpolate, share: 0.25}}
      - {content: "<description>", special: true, init: {strategy: description, text: "a call of it", noise: 0.01}}
      - {content: "<file>", special: true, init: {strategy: file, path: rows.safetensors}}
"""
VERIFY = """\
verify:
  - single_token: "<mean>"
  - encodes: {text: "wor of tools", tokens: ["wor", "Ġof", "Ġtools"]}
  - tokens_per_byte_at_most: {corpus: sample.txt, value: 0.4}
"""
SAMPLE = "wor of tools"


@pytest.fixture(scope="module")
def document() -> Document:
    """A byte-level tokenizer without any state of use."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=[END], show_progress=False)
    made.train_from_iterator([TEXT] * 50, trainer)
    parsed: Document = json.loads(made.to_str())
    return parsed


def model_with(root: Path, document: Document, state: State | None, operations: str) -> SharedModel:
    """Make a workspace whose model has the tokenizer in that state, and one migration."""
    document = json.loads(json.dumps(document))
    if state:
        state(document)
    directory = root / "m"
    directory.mkdir(parents=True)
    (root / "migrations").mkdir()
    rows, random = len(document["model"]["vocab"]), np.random.default_rng(7)
    tensors = ("model.embed_tokens.weight", "lm_head.weight")
    save_file(
        {name: random.standard_normal((rows, 4)).astype(np.float32) for name in tensors},
        directory / "model.safetensors",
    )
    save_file({"<file>": np.ones(4, np.float32)}, root / "migrations" / "rows.safetensors")
    config = {
        "model_type": "llama",
        "vocab_size": rows,
        "hidden_size": 4,
        "num_attention_heads": 1,
        "tie_word_embeddings": False,
    }
    for name, held in (("config.json", config), ("tokenizer.json", document)):
        (directory / name).write_text(json.dumps(held), "utf-8")
    (root / "tokmigrate.yaml").write_text("format: 1\nverify: fast\nmodels:\n  m: {path: m}\n", "utf-8")
    model = SharedModel(root)
    model.write(operations)
    return model


def upgraded(model: SharedModel) -> Mapping[str, bytes]:
    done = Workspace(model.root).run("upgrade")
    assert done.returncode == 0, done.stderr
    return {name: rows.tobytes() for name, rows in load_file(model.directory / "model.safetensors").items()}


def test_rows_and_verify_cases(tmp_path: Path, document: Document) -> None:
    assert all(f"strategy: {name}" in MIGRATION for name in strategy_types())
    # A model of rows alone has no predictions.
    assert all(f"- {name}:" in VERIFY for name in CHECKS if name != "kl_at_most")
    rows: dict[str, Mapping[str, bytes]] = {}
    for state in (None, *STATES):
        name = state.__name__ if state else "plain"
        model = model_with(tmp_path / name, document, state, MIGRATION)
        path = next((model.root / "migrations").glob("*.yaml"))
        path.write_text(path.read_text("utf-8") + VERIFY, "utf-8")
        path.with_name("sample.txt").write_text(SAMPLE, "utf-8")
        rows[name] = upgraded(model)
    assert [name for name, made in rows.items() if made != rows["plain"]] == []


def test_findings_of_lint(tmp_path: Path, document: Document) -> None:
    document = {**document, "normalizer": {"type": "Prepend", "prepend": "a"}}
    operations = '- add_tokens: {tokens: [{content: "word", normalized: true}, {content: "tool words"}]}'
    found = {}
    for state in (None, *STATES):
        name = state.__name__ if state else "plain"
        workspace = model_with(tmp_path / name, document, state, operations).workspace
        findings = lint(workspace, workspace.select([]), Selection()).findings
        found[name] = [(finding.rule.code, finding.message) for finding in findings]
    assert "TM101" in {code for code, _ in found["plain"]}
    assert [name for name, said in found.items() if said != found["plain"]] == []


def test_what_is_measured_of_a_corpus(tmp_path: Path, document: Document) -> None:
    (tmp_path / "corpus.txt").write_text(f"{TEXT}\nwords\n" * 20, "utf-8")
    measured = {}
    for state in (None, *STATES):
        name = state.__name__ if state else "plain"
        place = Workspace(model_with(tmp_path / name, document, state, '- add_tokens: {tokens: ["tools are"]}').root)
        impact = json.loads(place.run("plan", "--corpus", "../corpus.txt", "--json").stdout)["models"][0]["impact"]
        measured[name] = impact
    plain = measured["plain"]
    for name in ("padding", "truncation", "dropout"):
        assert measured[name] == plain, name
    for name, impact in measured.items():
        assert impact["tokenized_differently"] == plain["tokenized_differently"], name


def test_what_transformers_is_asked(tmp_path: Path, document: Document) -> None:
    texts = [TEXT, "toolbox", "words of tools"]
    plain = [Tokenizer.from_str(json.dumps(document)).encode(text).ids for text in texts]
    model = model_with(tmp_path, document, all_at_once, "- resize_vocab: {multiple_of: 64}")
    answer = call_worker("transformers", {"directory": str(model.directory), "encode": texts * 3})
    assert answer["tokenizer"]["encodings"] == plain * 3


@pytest.mark.parametrize("state", STATES)
def test_an_open_tokenizer_is_the_plain_one(document: Document, state: State) -> None:
    texts = [TEXT, "toolbox", ""]
    plain = [Tokenizer.from_str(json.dumps(document)).encode(text).ids for text in texts]
    changed = json.loads(json.dumps(document))
    state(changed)
    opened = open_tokenizer(changed)
    with text_alone(opened):
        assert [opened.encode(text, add_special_tokens=False).ids for text in texts] == plain
    assert (opened.post_processor is not None) == (
        "post_processor" in changed and changed["post_processor"] is not None
    )


def test_one_place_opens_tokenizers() -> None:
    package = Path(tokmigrate.__file__).parent
    opening = {"tokenizers", "transformers.AutoTokenizer", "from_str", "from_buffer"}
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Attribute):
                names = [node.attr]
            if opening.intersection(names):
                found.add(str(path.relative_to(package)))
    opens = {"model/tokenizer/library.py", "model/worker/transformers.py"}
    # It asks what llama.cpp's converter asks, which goes with the saved state.
    opens.add("model/worker/converter.py")
    # It makes a new tokenizer, which has no state.
    opens.add("model/from_sentencepiece.py")
    assert found == opens
