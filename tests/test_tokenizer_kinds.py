"""Directories without tokenizer.json: the refusal names a command that makes one, and what it makes is migrated."""

from __future__ import annotations

import base64
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tiktoken
import torch
from making import workspace, write_json
from real_tokenizers import real
from safetensors.torch import save_file
from test_real_tokenizers import ALL_TEXTS, cut, document, library
from tokenizers import Tokenizer
from transformers.convert_slow_tokenizer import TikTokenConverter
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name
from transformers.tokenization_utils_tokenizers import TokenizersBackend
from workspaces import contents, environment

from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import TokenizerError
from tokmigrate.model.documents.pipeline_overrides import is_python_class, registered_class
from tokmigrate.model.tokenizer_kinds import SENTENCE_PIECES, VOCABULARY_AND_MERGES, WORD_PIECES, remedy

Ids = list[int]
Encode = Callable[[str], Ids]
NEW = ("<ent>", "</ent>")


@dataclass(frozen=True)
class Kind:
    """A directory of one kind.

    Args:
        model_type: What config.json says.
        write: Writes the tokenizer's files, and returns how they tokenize text and how many ids they have.
        tensor: The model's embeddings.
        command: How the command begins that the refusal names.
        remark: What the refusal says besides, or nothing.
        eos: The end token that the directory is given.
    """

    model_type: str
    write: Callable[[Path], tuple[Encode, int]]
    tensor: str
    command: str
    remark: str | None
    eos: str


def of_files(source: str, files: Sequence[str]) -> Callable[[Path], tuple[Encode, int]]:
    """Return what copies published files, and tokenizes text with the tokenizer.json that is published beside them."""

    def write(directory: Path) -> tuple[Encode, int]:
        for name in files:
            shutil.copyfile(real(source) / name, directory / name)
        published = library(real(source))
        return (lambda text: cut(published, text)), published.get_vocab_size()

    return write


def gpt2(directory: Path) -> tuple[Encode, int]:
    """The published vocabulary and merges, and how phi-2 reads them: it has tokens for runs of spaces besides."""
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(real("gpt2") / name, directory / name)
    phi = document(real("phi-2"), "tokenizer.json")
    phi["added_tokens"] = phi["added_tokens"][:1]
    published = Tokenizer.from_str(json.dumps(phi))
    return (lambda text: cut(published, text)), 50257


def word_pieces(directory: Path) -> tuple[Encode, int]:
    """The vocabulary of a published tokenizer.json, one token a line."""
    vocabulary = document(real("bert-base-uncased"), "tokenizer.json")["model"]["vocab"]
    lines = sorted(vocabulary, key=lambda token: int(vocabulary[token]))
    (directory / "vocab.txt").write_text("\n".join(lines) + "\n", "utf-8")
    published = library(real("bert-base-uncased"))
    return (lambda text: cut(published, text)), len(lines)


def mistral(directory: Path) -> tuple[Encode, int]:
    """The published model, and SentencePiece itself."""
    shutil.copyfile(real("mistral-spm") / "tokenizer.model", directory / "tokenizer.model")
    processor = sentencepiece.SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
    return processor.encode, processor.get_piece_size()


def t5(directory: Path) -> tuple[Encode, int]:
    """A Unigram model of T5's layout, trained on a few words."""
    train(directory / "spiece", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, vocab_size=300)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(directory / "spiece.model"))
    return processor.encode, processor.get_piece_size() + 100


def train(prefix: Path, **how: Any) -> None:
    """Train a SentencePiece model on what the repository's README says."""
    readme = Path(__file__).resolve().parents[1] / "README.md"
    settings = {"model_type": "unigram", "hard_vocab_limit": False, "minloglevel": 2, **how}
    sentencepiece.SentencePieceTrainer.train(input=str(readme), model_prefix=str(prefix), **settings)
    prefix.with_suffix(".vocab").unlink()


def ranks() -> dict[bytes, int]:
    """Return the first tokens of GPT-2 as tiktoken ranks them."""
    vocabulary = document(real("gpt2"), "vocab.json")
    letters = {letter: byte for byte, letter in byte_letters().items()}
    return {bytes(letters[letter] for letter in token): number for token, number in vocabulary.items() if number < 3000}


def byte_letters() -> dict[int, str]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    found: dict[int, str] = bytes_to_unicode()
    return found


def pattern() -> str:
    """Return the rule that transformers splits text by where a tiktoken file does not say."""
    return str(TikTokenConverter().pattern)


def of_tiktoken(name: str) -> Callable[[Path], tuple[Encode, int]]:
    def write(directory: Path) -> tuple[Encode, int]:
        lines = (f"{base64.b64encode(token).decode()} {number}\n" for token, number in ranks().items())
        (directory / name).write_text("".join(lines), "utf-8")
        settings = {"added_tokens_decoder": {"3000": {"content": "<|eot|>", "special": True}}, "eos_token": "<|eot|>"}
        write_json(directory / "tokenizer_config.json", settings if name.endswith(".model") else {})
        return tiktoken.Encoding("t", pat_str=pattern(), mergeable_ranks=ranks(), special_tokens={}).encode, 3001

    return write


def tekken(directory: Path) -> tuple[Encode, int]:
    """Mistral's own format: it says how text is split, and its special tokens come first."""
    names = ("<unk>", "<s>", "</s>", "<pad>")
    special = [{"rank": rank, "token_str": name, "is_control": True} for rank, name in enumerate(names)]
    vocabulary = [
        {"rank": number, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
        for token, number in ranks().items()
    ]
    split = r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"
    config = {"pattern": split, "default_vocab_size": 3004, "default_num_special_tokens": 4, "version": "v3"}
    write_json(directory / "tekken.json", {"config": config, "vocab": vocabulary, "special_tokens": special})
    encoding = tiktoken.Encoding("t", pat_str=split, mergeable_ranks=ranks(), special_tokens={})
    return (lambda text: [number + 4 for number in encoding.encode(text)]), 3004


DECODER = "model.embed_tokens.weight"
KINDS = {
    "vocab and merges": Kind("gpt2", gpt2, "wte.weight", "python -c", None, "<|endoftext|>"),
    "vocab and merges with a class": Kind(
        "roberta",
        of_files("gpt2-roberta", ("vocab.json", "merges.txt")),
        "roberta.embeddings.word_embeddings.weight",
        "python -c",
        None,
        "</s>",
    ),
    "word pieces": Kind(
        "bert", word_pieces, "bert.embeddings.word_embeddings.weight", "python -c", "do_lower_case", "[SEP]"
    ),
    "sentence pieces": Kind("mistral", mistral, DECODER, "python -m tokmigrate", "add_bos_token", "</s>"),
    "sentence pieces with a class": Kind("t5", t5, "shared.weight", "python -c", "pip install", "</s>"),
    "tiktoken as a model": Kind(
        "llama", of_tiktoken("tokenizer.model"), DECODER, "TIKTOKEN_CACHE_DIR= python -c", "not known", "<|eot|>"
    ),
    "tiktoken by its own name": Kind(
        "llama", of_tiktoken("q.tiktoken"), DECODER, "TIKTOKEN_CACHE_DIR= python -c", "not known", "<ent>"
    ),
    "tekken": Kind("mistral", tekken, DECODER, "python -c", None, "</s>"),
}


def run(command: str) -> None:
    """Type a command into a shell."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    root = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        ["bash", "-c", command],
        env={**environment(), "PATH": path, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("name", KINDS)
def test_the_command_that_is_named_makes_what_is_then_migrated(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    model = tmp_path / "a model's $directory"
    model.mkdir()
    encode, size = kind.write(model)
    write_json(model / "config.json", {"model_type": kind.model_type, "vocab_size": size, "tie_word_embeddings": True})
    save_file({kind.tensor: torch.randn(size, 2)}, model / "model.safetensors", {"format": "pt"})
    bare = contents(model)
    operations = [
        {"add_tokens": {"tokens": [{"content": NEW[0], "special": True}, NEW[1]]}},
        {"set_special_tokens": {"eos": kind.eos, "pad": NEW[0]} if kind.model_type != "roberta" else {"eos": kind.eos}},
    ]
    made = workspace(tmp_path, {"old": model}, [{"operations": operations}])
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json") as told:
        upgrade(made.workspace, made.entry("old"))
    assert contents(model) == bare
    hint = str(told.value.hint)
    (command,) = (line.strip() for line in hint.split("\n") if line.startswith("  "))
    assert command.startswith(kind.command)
    assert ("not" in hint or "pip" in hint or "only where" in hint) == (kind.remark is not None)
    assert kind.remark is None or kind.remark in hint

    run(command)
    before = contents(model)
    assert set(before) - set(bare) == {"tokenizer.json"}
    assert {file: before[file] for file in bare} == bare
    # The libraries of these files take the text of a special token for any other text.
    wanted = {text: encode(text) for text in ALL_TEXTS if text and "</s>" not in text}
    tokenizer = library(model)
    assert {text: cut(tokenizer, text) for text in wanted} == wanted

    upgrade(made.workspace, made.entry("old"))
    tokenizer = library(model)
    assert {text: cut(tokenizer, text) for text in wanted} == wanted
    first = library(model).get_vocab_size() - 2
    assert [tokenizer.token_to_id(token) for token in NEW] == [first, first + 1]
    assert cut(tokenizer, NEW[1]) == [first + 1]
    assert document(model, "tokenizer_config.json")["eos_token"] == kind.eos
    downgrade(made.workspace, made.entry("old"), "base")
    assert contents(model) == before


def test_the_classes_are_those_of_transformers() -> None:
    for names, end in ((VOCABULARY_AND_MERGES, "merges.txt"), (WORD_PIECES, "vocab.txt"), (SENTENCE_PIECES, ".model")):
        for name in names:
            assert any(file.endswith(end) for file in tokenizer_class_from_name(name).vocab_files_names.values()), name
    # With a newer mistral-common its backend stands for those of Mistral's models, which tokenizer.json has too.
    backed = {
        model_type
        for model_type, name in TOKENIZER_MAPPING_NAMES.items()
        if name == "MistralCommonBackend"
        or (name and issubclass(tokenizer_class_from_name(name) or object, TokenizersBackend))
    }
    python = {model_type for model_type in TOKENIZER_MAPPING_NAMES if is_python_class(registered_class(model_type))}
    # RAG has two tokenizers in folders of their own, and FastSpeech2 turns phonemes into ids.
    assert set(TOKENIZER_MAPPING_NAMES) - backed - python == {"fastspeech2_conformer", "rag"}


def remedy_for(directory: Path, model_type: str, settings: Mapping[str, Any] | None = None) -> Any:
    return remedy(directory, {"config.json": {"model_type": model_type}, "tokenizer_config.json": settings or {}})


def test_what_no_command_can_do_is_reported(tmp_path: Path) -> None:
    found = remedy_for(tmp_path, "llama")
    assert (found.command, found.remarks) == (
        None,
        ("copy tokenizer.json from the model that this one was trained from",),
    )
    (tmp_path / "vocab.json").write_text("{}")
    (tmp_path / "merges.txt").write_text("")
    found = remedy_for(tmp_path, "biogpt")
    assert found.command is None
    assert "Python code" in found.remarks[0]
    found = remedy_for(tmp_path, "granite")
    assert "GPT2Tokenizer" in found.command
    assert "not known to be exact" in found.remarks[0]
    found = remedy_for(tmp_path, "granite", {"tokenizer_class": "Qwen2TokenizerFast"})
    assert "Qwen2Tokenizer.from_pretrained" in found.command
    assert found.remarks == ()


def test_a_path_stands_in_the_command_as_it_is(tmp_path: Path) -> None:
    directory = tmp_path / 'it\'s "é" $HOME'
    directory.mkdir()
    (directory / "vocab.txt").write_text("a\n")
    program, flag, code = shlex.split(remedy_for(directory, "bert").command)
    assert (program, flag) == ("python", "-c")
    assert json.dumps(str(directory), ensure_ascii=False) in code
    compile(code, "command", "exec")
