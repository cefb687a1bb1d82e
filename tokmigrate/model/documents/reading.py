"""The files of a model directory that migrations read and write, besides weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from tokmigrate.errors import ModelError
from tokmigrate.files import entries, has_directory, read_if_present
from tokmigrate.model.documents import state as names
from tokmigrate.model.documents.other_vocabularies import read_other_vocabularies
from tokmigrate.model.documents.shapes import check_shape
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.documents.stamp import Stamp
from tokmigrate.model.formats.json_text import Json, Layout, layout_of, parse
from tokmigrate.model.tokenizer import tokenizer_json as tokenizer

JSON_FILES = (
    tokenizer.FILE,
    names.TOKENIZER_CONFIG,
    names.SPECIAL_TOKENS_MAP,
    names.ADDED_TOKENS,
    names.CONFIG,
    names.GENERATION,
    names.LEGACY_TEMPLATE,
    names.PROCESSOR,
    names.PREPROCESSOR,
    names.SENTENCE_TRANSFORMERS,
    names.VOCAB_JSON,
)
TEXT_FILES = (names.TEMPLATE, names.VOCAB_TXT, names.MERGES)


Read = tuple[dict[str, bytes], dict[str, Json], dict[str, Layout]]
"""The bytes of each file, what it is parsed to (JSON, text, or bytes again), and the layout of JSON; by its name."""


def read_documents(directory: Path, stamp: Stamp | None, json_files: Sequence[str] = JSON_FILES) -> Read:
    """Read the documents of a directory, without the weights' index; raises ModelError where one is damaged.

    Args:
        directory: The directory of a model or an adapter.
        stamp: Its stamp, which knows how changed files were laid out.
        json_files: The names of the JSON objects that it may have.
    """
    texts = read_texts(directory, json_files)
    values: dict[str, Json] = dict(texts)
    layouts: dict[str, Layout] = {}
    parsed = {*json_files, *_module_files(directory)}
    for name, data in texts.items():
        where = str(directory / name)
        if name in parsed:
            text = _decoded(data, directory / name)
            values[name] = parse(text, where)
            layouts[name] = json_layout(name, text, stamp)
            check_shape(name, text, values[name], where)
        elif name in TEXT_FILES or name.endswith(".jinja"):
            values[name] = _decoded(data, directory / name)
    return texts, values, layouts


def read_texts(directory: Path, json_files: Sequence[str] = JSON_FILES) -> dict[str, bytes]:
    """Return the bytes of each document of a directory by its name, without the weights' index."""
    named = (*json_files, *_module_files(directory), *TEXT_FILES, *_template_files(directory))
    texts = {name: data for name in named if (data := read_if_present(directory / name)) is not None}
    return texts | read_other_vocabularies(directory)


def writable_names(texts: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the names of the files that a migration may write, there or not: weights and their index are others.

    Args:
        texts: The documents that are there, by name.
    """
    return tuple(dict.fromkeys((*JSON_FILES, *TEXT_FILES, STAMP, *texts)))


def with_files(documents: Mapping[str, Json], files: Mapping[str, bytes | None]) -> dict[str, Json]:
    """Return documents with the files of another time laid over them, None for those that were not there; no stamp.

    Args:
        documents: The parsed files by name.
        files: Bytes by name.
    """
    found = dict(documents)
    for name, data in files.items():
        if data is None:
            found.pop(name, None)
        elif name != STAMP:
            found[name] = document_of(name, data, documents.get(name))
    return found


def document_of(name: str, data: bytes, held: Json) -> Json:
    """Return what the bytes of a document mean: JSON, text, or bytes where `held`, which stands there now, is bytes."""
    if isinstance(held, bytes):
        return data
    if name.endswith(".json"):
        text = data.decode("utf-8")
        value = parse(text, name)
        check_shape(name, text, value, name)
        return value
    return data.decode("utf-8") if name in TEXT_FILES or name.endswith(".jinja") else data


def json_layout(name: str, text: str, stamp: Stamp | None) -> Layout:
    """Return the layout that the stamp records for a JSON file, else the one that its text shows."""
    recorded = stamp.files.get(name) if stamp else None
    return recorded.layout if recorded and recorded.layout else layout_of(text)


def _template_files(directory: Path) -> list[str]:
    folder = directory / names.MORE_TEMPLATES
    files = entries(folder) if has_directory(folder) else []
    return [f"{names.MORE_TEMPLATES}/{file.name}" for file in files if file.suffix == ".jinja"]


def _module_files(directory: Path) -> Iterator[str]:
    """Yield the configurations of sentence-transformers' modules in folders of their own."""
    data = read_if_present(directory / names.MODULES)
    modules = parse(_decoded(data, directory / names.MODULES), str(directory / names.MODULES)) if data else []
    for module in modules if isinstance(modules, list) else []:
        path = PurePosixPath(str(module.get("path") or ".") if isinstance(module, dict) else ".")
        if path.parts and not path.is_absolute() and ".." not in path.parts:
            yield f"{path}{names.MODULE_CONFIG}"


def _decoded(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(
            "not UTF-8", where=str(path), hint="fetch the file again, or restore it from a copy of the model"
        ) from error
