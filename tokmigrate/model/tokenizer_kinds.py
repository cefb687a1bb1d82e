"""What a model directory without tokenizer.json has instead, and the command that makes one of it.

Which files a class reads is from its `vocab_files_names`; a test holds the sets of classes against transformers.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tokmigrate.errors import TokenizerError
from tokmigrate.files import entries, exists, has_file, read_file
from tokmigrate.model.documents.pipeline_overrides import is_python_class, registered_class
from tokmigrate.model.documents.slow_tokenizer_files import TEKKEN_FILES, is_tiktoken
from tokmigrate.model.documents.state import CONFIG, MERGES, TOKENIZER_CONFIG, VOCAB_JSON, VOCAB_TXT
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.formats.sentencepiece import SentencePieceModel, is_sentencepiece
from tokmigrate.model.from_sentencepiece import known_differences
from tokmigrate.model.tokenizer.tokenizer_json import FILE

VOCABULARY_AND_MERGES = frozenset(
    (
        *("BlenderbotTokenizer", "CLIPTokenizer", "CohereTokenizer", "DebertaTokenizer", "GPT2Tokenizer"),
        *("GPTNeoXTokenizer", "Qwen2Tokenizer", "RobertaTokenizer", "WhisperTokenizer"),
    )
)
"""Classes that read vocab.json and merges.txt."""

WORD_PIECES = frozenset(("BertTokenizer", "MPNetTokenizer"))
"""Classes that read vocab.txt."""

TOKENIZES_AS_SENTENCEPIECE = frozenset(("CamembertTokenizer", "T5Tokenizer", "XLMRobertaTokenizer"))
"""Those that read a SentencePiece model and of which a test shows that they tokenize text like it."""

SENTENCE_PIECES = TOKENIZES_AS_SENTENCEPIECE | frozenset(
    (
        *("AlbertTokenizer", "BarthezTokenizer", "BigBirdTokenizer", "DebertaV2Tokenizer", "MBart50Tokenizer"),
        *("MBartTokenizer", "NllbTokenizer", "PegasusTokenizer", "SeamlessM4TTokenizer", "XLNetTokenizer"),
    )
)
"""Classes that read a SentencePiece model and give its pieces ids, or add tokens, in a way of their own."""

TIKTOKEN_FILES = ("*.tiktoken", "tiktoken.model", "tokenizer.model")


@dataclass(frozen=True)
class Remedy:
    """How a directory gets its tokenizer.json.

    Args:
        has: The files that it has instead; None where there are none.
        command: What makes one; None where nothing does.
        remarks: What has to be installed, where the result is not known to be exact, or why there is no command.
    """

    has: str | None
    command: str | None
    remarks: tuple[str, ...] = ()


def no_tokenizer_json(directory: Path, documents: Mapping[str, Json]) -> TokenizerError:
    """Return the refusal of a directory without tokenizer.json; it names the command that makes one."""
    found = remedy(directory, documents)
    command = f"make one, which is then migrated with the rest:\n  {found.command}"
    other = f"but {found.has}" if found.has else "and no other file that one can be made of"
    return TokenizerError(
        f"there is no tokenizer.json, {other}",
        where=str(directory),
        hint="\n".join((*([command] if found.command else []), *found.remarks)),
    )


def remedy(directory: Path, documents: Mapping[str, Json]) -> Remedy:
    """Return how a directory gets its tokenizer.json; config.json is among its parsed files."""
    model_type = str(documents[CONFIG].get("model_type", ""))
    tekken = next((file for file in entries(directory) if file.match(TEKKEN_FILES)), None)
    if tekken is not None:
        made = f"convert_tekken_tokenizer({_quote(tekken)}).backend_tokenizer"
        code = f"from transformers.integrations.mistral.tokenizer import convert_tekken_tokenizer; {made}"
        return Remedy(tekken.name, _python(code, tekken))
    if is_python_class(registered_class(model_type)):
        reason = (
            f"the tokenizer that transformers has for model type '{model_type}' is Python code, without such a file"
        )
        return Remedy("files of another kind", None, remarks=(reason,))
    named = (
        (documents.get(TOKENIZER_CONFIG) or {}).get("tokenizer_class") or documents[CONFIG].get("tokenizer_class") or ""
    )
    # The class that a file names, or else the one of the model type.
    classes = (named.removesuffix("Fast"), registered_class(model_type))
    sentencepiece = _first(directory, ("*.model",), is_sentencepiece)
    if sentencepiece is not None:
        return _of_sentencepiece(sentencepiece, next((name for name in classes if name in SENTENCE_PIECES), None))
    tiktoken = _first(directory, TIKTOKEN_FILES, is_tiktoken)
    if tiktoken is not None:
        return _of_tiktoken(tiktoken)
    for files, known, default, like in (
        ((VOCAB_JSON, MERGES), VOCABULARY_AND_MERGES, "GPT2Tokenizer", "GPT-2"),
        ((VOCAB_TXT,), WORD_PIECES, "BertTokenizer", "BERT"),
    ):
        if all(exists(directory / file) for file in files):
            has, name = " and ".join(files), next((name for name in classes if name in known), None)
            remarks = [] if name else [_no_class(has, model_type, like)]
            if known is WORD_PIECES and "do_lower_case" not in (documents.get(TOKENIZER_CONFIG) or {}):
                why = "not exact for a cased model: it lower-cases unless tokenizer_config.json says do_lower_case"
                remarks.append(why)
            return Remedy(has, _by_class(name or default, directory), tuple(remarks))
    return Remedy(None, None, remarks=("copy tokenizer.json from the model that this one was trained from",))


def _no_class(files: str, model_type: str, like: str) -> str:
    return (
        f"not known to be exact: transformers has no class that reads {files} for model type '{model_type}',"
        f" and no file names one as tokenizer_class; this one splits text as {like} does"
    )


def _first(directory: Path, patterns: Iterable[str], fits: Callable[[bytes], bool]) -> Path | None:
    files = (file for pattern in patterns for file in entries(directory) if file.match(pattern) and has_file(file))
    return next((file for file in files if fits(read_file(file))), None)


def _of_sentencepiece(file: Path, name: str | None) -> Remedy:
    if name is not None:
        remarks = ["it needs: pip install sentencepiece protobuf"]
        if name not in TOKENIZES_AS_SENTENCEPIECE:
            remarks.append(f"not exact: transformers' {name} tokenizes some texts differently from {file.name}")
        return Remedy(file.name, _by_class(name, file.parent), tuple(remarks))
    model = SentencePieceModel.read(read_file(file), str(file))
    return Remedy(
        file.name,
        f"python -m tokmigrate.model.from_sentencepiece {shlex.quote(str(file.parent))}",
        remarks=(
            *(f"not exact: {text} may be tokenized differently" for text in known_differences(model)),
            "it puts tokens around a text only where tokenizer_config.json says `add_bos_token: true`"
            " or `add_eos_token: true`",
        ),
    )


def _of_tiktoken(file: Path) -> Remedy:
    if file.suffix == ".model":
        command = _by_class("TokenizersBackend", file.parent)
        specials = "special tokens are those that tokenizer_config.json lists in added_tokens_decoder"
    else:
        code = f"from transformers.convert_slow_tokenizer import TikTokenConverter; TikTokenConverter({_quote(file)})"
        command = _python(f"{code}.converted()", file)
        specials = "special tokens are not in it; add them with a migration, in the order of their ids"
    remarks = (
        "it needs: pip install tiktoken",
        "not known to be exact: the file does not say how text is split first; this takes the rule of Llama 3",
        specials,
    )
    return Remedy(file.name, f"TIKTOKEN_CACHE_DIR= {command}", remarks)


def _by_class(name: str, directory: Path) -> str:
    made = f"{name}.from_pretrained({_quote(directory)}).backend_tokenizer"
    return _python(f"from transformers import {name}; {made}", directory / FILE)


def _python(code: str, beside: Path) -> str:
    """Return the command that runs `code`, which ends in a tokenizer, and saves that beside a file."""
    return f"python -c {shlex.quote(f'{code}.save({_quote(beside.with_name(FILE))})')}"


def _quote(path: Path) -> str:
    """Return a path as Python's text; json's quotes stand well within those of a shell."""
    return json.dumps(str(path), ensure_ascii=False)
