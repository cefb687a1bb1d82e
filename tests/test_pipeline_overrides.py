"""Which class loads a tokenizer, and what it takes of tokenizer.json, as the installed transformers has it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers
from making import llama, tokenizer_json, workspace, write_json
from pinned import with_pinned_transformers
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from tokmigrate.commands.plan import plan
from tokmigrate.errors import OperationError
from tokmigrate.model.documents.pipeline_overrides import READS_THE_FILE, loading_class

BUILDERS = ("BartTokenizer", "MobileBertTokenizer", "SqueezeBertTokenizer", "CodeGenTokenizer", "DistilBertTokenizer")
NAMES = (
    None,
    *BUILDERS,
    *(f"{name}Fast" for name in BUILDERS),
    "CohereTokenizer",
    "ConvBertTokenizer",
    "LlamaTokenizer",
    "LlamaTokenizerFast",
    "MarianTokenizer",
    "ParakeetTokenizer",
    "PreTrainedTokenizer",
    "PreTrainedTokenizerFast",
    "Qwen2Tokenizer",
    "TokenizersBackend",
    "NoSuchTokenizer",
)
MODEL_TYPES = ("llama", "florence2", "mobilebert", "bert", "qwen2", "qwen3", "marian", "phi3", "gpt2", "mistral", "dpr")


@with_pinned_transformers
def test_the_table_is_that_of_the_installed_transformers() -> None:
    scripts = Path(__file__).resolve().parents[1] / "scripts"
    # In a process of its own: which names transformers gives a class depends on what was imported before.
    command = [sys.executable, "make_pipeline_overrides.py", "--check"]
    done = subprocess.run(command, cwd=scripts, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _files(byte_level: bool) -> Iterator[dict[str, Any]]:
    tokenizer = tokenizer_json()
    if not byte_level:
        tokenizer |= {"pre_tokenizer": None, "decoder": None}
    for model_type in MODEL_TYPES:
        for name in NAMES:
            named = {"tokenizer_class": name} if name else {}
            yield {
                "config.json": {"model_type": model_type},
                "tokenizer_config.json": named,
                "tokenizer.json": tokenizer,
            }
            # Of a class that it does not know transformers says so only where tokenizer_config.json names it.
            if name != "NoSuchTokenizer":
                yield {"config.json": {"model_type": model_type, **named}, "tokenizer.json": tokenizer}


@with_pinned_transformers
@pytest.mark.parametrize("byte_level", [True, False], ids=["byte-level", "plain"])
def test_the_class_that_loads_a_tokenizer_is_the_one_that_auto_tokenizer_takes(
    byte_level: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PreTrainedTokenizerBase, "from_pretrained", classmethod(lambda known, *_, **__: known))
    different = []
    for place, documents in enumerate(_files(byte_level)):
        directory = tmp_path / str(place)
        directory.mkdir()
        for name, document in documents.items():
            write_json(directory / name, document)
        taken = transformers.AutoTokenizer.from_pretrained(directory).__name__
        known = loading_class(documents)
        if known != (None if taken in {"TokenizersBackend", "PythonBackend"} else taken):
            different.append((documents["config.json"], documents.get("tokenizer_config.json"), taken, known))
    assert not different


@pytest.mark.parametrize("name", [*BUILDERS, *(f"{name}Fast" for name in BUILDERS)])
def test_a_class_under_another_name_reads_the_file(name: str, tmp_path: Path) -> None:
    after = _planned(tmp_path, {"tokenizer_class": name}, {"set_normalizer": {"normalizer": {"type": "NFKC"}}})
    assert after["tokenizer_class"] == READS_THE_FILE


def test_a_post_processor_that_transformers_makes_of_settings_is_read_from_the_file(tmp_path: Path) -> None:
    settings = {"tokenizer_class": READS_THE_FILE, "add_bos_token": True, "add_eos_token": False}
    after = _planned(tmp_path, settings, {"set_post_processor": {"post_processor": _around()}})
    assert not {"add_bos_token", "add_eos_token"} & after.keys()


def test_a_part_that_a_class_of_python_code_would_not_read_is_refused(tmp_path: Path) -> None:
    settings = {"tokenizer_class": "BertTokenizerLegacy"}
    with pytest.raises(OperationError, match="BertTokenizerLegacy, which is Python code") as refused:
        _planned(tmp_path, settings, {"set_normalizer": {"normalizer": {"type": "NFKC"}}})
    assert READS_THE_FILE in str(refused.value.hint)


def _around() -> dict[str, Any]:
    tokens = {token["content"]: token["id"] for token in tokenizer_json()["added_tokens"]}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    special = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [text, special],
        "pair": [text, special, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"</s>": {"id": "</s>", "ids": [tokens["</s>"]], "tokens": ["</s>"]}},
    }


def _planned(folder: Path, settings: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    """Return tokenizer_config.json as a plan leaves it."""
    model = llama(folder / "m")
    write_json(model / "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>", **settings})
    made = workspace(folder / "w", {"m": model}, [{"operations": [operation]}])
    held: dict[str, Any] = plan(made.workspace, made.entry("m")).final.documents["tokenizer_config.json"]
    return held
