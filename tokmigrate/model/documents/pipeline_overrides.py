"""Which class of transformers 5 loads a tokenizer, and what it takes of tokenizer.json.

`AutoTokenizer.from_pretrained` chooses by `tokenizer_class` and by the model type. A class of its own has normalizer,
pre-tokenizer and decoder in its source, and often the post-processor; a file that says other is ignored, silently. So
it is given a class that reads it, `PreTrainedTokenizerFast`. A class of Python code takes nothing of the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from tokmigrate.errors import OperationError
from tokmigrate.model.documents.config_fields import parts_of
from tokmigrate.model.documents.roles import ROLES, list_specials, text_of
from tokmigrate.model.documents.state import CONFIG, SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG, ModelState
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.tokenizer.tokenizer_json import FILE, SECTIONS

READS_THE_FILE = "PreTrainedTokenizerFast"
ONLY_FAST = "a change is accepted with `verify: fast` in tokmigrate.yaml only"
_CLASS = "tokenizer_class"
_GENERIC = frozenset({"TokenizersBackend", "PythonBackend", READS_THE_FILE, "MistralCommonBackend"})
"""Classes of model types that have none of their own."""
_TEMPLATE_SETTINGS = ("add_bos_token", "add_eos_token")
"""Where tokenizer_config.json has one of them, transformers makes the post-processor of bos and eos."""


def loading_class(documents: Mapping[str, Json]) -> str | None:
    """Return the class with which transformers loads a tokenizer, None where that reads tokenizer.json."""
    table = _table()
    config, held = documents.get(CONFIG) or {}, documents.get(TOKENIZER_CONFIG) or {}
    model_type = str(config.get("model_type", ""))
    registered = table["registered"].get(model_type)
    named = held.get(_CLASS) or config.get(_CLASS)
    if not isinstance(named, str):
        return _find_class(registered)
    plain = named.removesuffix("Fast")
    if "auto_map" in held:
        return _find_class(plain)
    forced = model_type in table["not_asked"]
    parts = [(documents.get(FILE) or {}).get(section) for section in SECTIONS]
    if plain == "LlamaTokenizer" and not forced and '"ByteLevel"' in json.dumps(parts):
        return None
    if registered in (None, plain):
        return _find_class(plain)
    if registered in _GENERIC:
        return None
    return _find_class(registered if forced else named)


def registered_class(model_type: str) -> str | None:
    """Return the class of a model type, None where that is the one that reads tokenizer.json."""
    return _find_class(_table()["registered"].get(model_type))


def is_python_class(name: str | None) -> bool:
    """Return whether a class is Python code, which takes nothing of tokenizer.json."""
    return name in _table()["python"]


def builder_of(state: ModelState, section: str) -> str | None:
    """Return the class with which transformers builds a part of `SECTIONS` itself, None where it reads the file."""
    name = loading_class(state.documents)
    return name if is_python_class(name) or section in _entry(name).get("builds", ()) else None


def default_roles(documents: Mapping[str, Json]) -> Mapping[str, str]:
    """Return the text of the token of each role that transformers takes where no file says one."""
    held = _entry(loading_class(documents))
    return {role: held[f"{role}_token"] for role in ROLES if f"{role}_token" in held}


def missing_files(documents: Mapping[str, Json], directory: Path) -> Iterator[str]:
    """Yield why transformers cannot load a tokenizer: its class is Python code that needs files which are not there."""
    name = loading_class(documents)
    missing = [file for file in _entry(name).get("needs", ()) if not (directory / file).exists()]
    if missing:
        yield f"transformers cannot load the tokenizer: {name} needs {', '.join(missing)}; {ONLY_FAST}"


def find_added_on_loading(state: ModelState) -> Iterator[str]:
    """Yield the special tokens that transformers adds when it loads a tokenizer, because it has no such tokens."""
    held = state.documents.get(TOKENIZER_CONFIG) or {}
    if "auto_map" in held:
        return
    decoder = held.get("added_tokens_decoder")
    listed = decoder.values() if isinstance(decoder, dict) else ()
    if "added_tokens_decoder" not in held:
        held = {**held, **(state.documents.get(SPECIAL_TOKENS_MAP) or {})}
    found: dict[str, str] = {}
    loading = loading_class(state.documents)
    for role, text in default_roles(state.documents).items():
        if f"{role}_token" not in held:
            found.setdefault(text, f"{role} token of {loading}")
    for role in ROLES:
        found.setdefault(text_of(held.get(f"{role}_token")) or "", f"{role} token of {TOKENIZER_CONFIG}")
    for content in (*list_specials({TOKENIZER_CONFIG: held}), *map(text_of, listed)):
        found.setdefault(content or "", f"token that {TOKENIZER_CONFIG} lists")
    for text, token in found.items():
        if text and text not in state.tokenizer.ids:
            yield f"transformers adds '{text}' when it loads the tokenizer, the {token}, and it has no row; {ONLY_FAST}"


def template_settings(state: ModelState) -> tuple[str, ...]:
    """Return the settings of tokenizer_config.json of which transformers makes the post-processor itself."""
    held = state.documents.get(TOKENIZER_CONFIG) or {}
    return tuple(key for key in _TEMPLATE_SETTINGS if key in held)


def with_the_file_read(state: ModelState, section: str) -> ModelState:
    """Return the state in which transformers takes a part of the pipeline from tokenizer.json.

    What the class that built it took by default is then written into tokenizer_config.json.

    Raises:
        OperationError: transformers loads the class of this model type whatever the files say, or one of Python code.
    """
    held = state.documents.get(TOKENIZER_CONFIG) or {}
    if section == "post_processor" and template_settings(state):
        kept = {key: value for key, value in held.items() if key not in _TEMPLATE_SETTINGS}
        state = state.with_document(TOKENIZER_CONFIG, kept)
    name = builder_of(state, section)
    if name is None:
        return state
    if state.traits.model_type in _table()["not_asked"]:
        raise OperationError(
            f"transformers loads a {state.traits.model_type} model with its class {name}, which builds the {section}"
            " itself and does not read it from tokenizer.json",
            where=TOKENIZER_CONFIG,
            hint="the change would have no effect there, and no setting of the model's files changes that",
        )
    if is_python_class(name):
        raise OperationError(
            f"transformers loads this model with its class {name}, which is Python code and does not read"
            " tokenizer.json",
            where=TOKENIZER_CONFIG,
            hint=f'"tokenizer_class": "{READS_THE_FILE}" in tokenizer_config.json makes transformers read it',
        )
    for key, value in _entry(name).items():
        if key not in held and key != "builds" and (not key.endswith("_token") or value in state.tokenizer.ids):
            state = state.with_value(TOKENIZER_CONFIG, (key,), value)
    return state.with_value(TOKENIZER_CONFIG, (_CLASS,), READS_THE_FILE)


def _find_class(name: str | None) -> str | None:
    """Return the class of a name as transformers finds it, None for one that reads tokenizer.json."""
    if name is None:
        return None
    found: str = _table()["aliases"].get(name, name)
    if found in _table()["classes"] or found in _table()["python"]:
        return found
    return _find_class(name.removesuffix("Fast")) if name.endswith("Fast") else None


def _entry(name: str | None) -> Mapping[str, Any]:
    found: Mapping[str, Any] = {**_table()["classes"], **_table()["python"]}.get(str(name), {})
    return found


def _table() -> Mapping[str, Mapping[str, Any]]:
    return _read_table("pipeline_overrides")


def default_ids(model_type: str) -> Mapping[str, Json]:
    """Return the ids by field that the config of a model type has by default, in transformers."""
    return _read_table("default_ids").get(model_type, {})


def part_defaults(state: ModelState) -> Iterator[tuple[tuple[str | int, ...], Json, Mapping[str, Json]]]:
    """Yield each part of config.json that describes the vocabulary, with its path and the ids that it leaves unsaid."""
    for path, part in parts_of(state.documents[CONFIG], state.vocab_size):
        model_type = part.get("model_type", "" if path else state.traits.model_type)
        defaults = default_ids(str(model_type))
        yield path, part, {name: value for name, value in defaults.items() if name not in part}


@cache
def _read_table(name: str) -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = json.loads(files(__package__).joinpath(f"{name}.json").read_text("utf-8"))
    return found
