"""Classes of transformers 5 that build their own pipeline and take of tokenizer.json tokens and merges only.

`AutoTokenizer.from_pretrained` chooses by `tokenizer_class` of tokenizer_config.json and by the model type. A class of
its own has normalizer, pre-tokenizer and decoder in its source, and often the post-processor; a file that says other
is ignored, silently. So it is given a class that reads it, `PreTrainedTokenizerFast`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from tokmigrate.errors import OperationError
from tokmigrate.model.documents.state import CONFIG, TOKENIZER_CONFIG, ModelState
from tokmigrate.model.formats.json_text import Json

READS_THE_FILE = "PreTrainedTokenizerFast"
_CLASS = "tokenizer_class"


def builder_of(state: ModelState, section: str) -> str | None:
    """Return the class with which transformers builds a part of the pipeline itself, None where it reads the file.

    Args:
        state: The model.
        section: `normalizer`, `pre_tokenizer`, `post_processor` or `decoder`.
    """
    name = _class_of(state)
    return name if name is not None and section in _table()["classes"][name]["builds"] else None


def with_the_file_read(state: ModelState, section: str) -> ModelState:
    """Return the state in which transformers takes a part of the pipeline from tokenizer.json.

    What the class that built it took by default is then written into tokenizer_config.json.

    Args:
        state: The state before.
        section: The part.

    Raises:
        OperationError: transformers loads the class of this model type whatever the files say.
    """
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
    held = state.documents.get(TOKENIZER_CONFIG) or {}
    defaults = {key: value for key, value in _table()["classes"][name].items() if key != "builds"}
    known = state.tokenizer.ids
    for key, value in defaults.items():
        if key not in held and (not key.endswith("_token") or value in known):
            state = state.with_value(TOKENIZER_CONFIG, (key,), value)
    return state.with_value(TOKENIZER_CONFIG, (_CLASS,), READS_THE_FILE)


def _class_of(state: ModelState) -> str | None:
    classes, registered = _table()["classes"], _table()["registered"].get(state.traits.model_type)
    said: Json = (state.documents.get(TOKENIZER_CONFIG) or {}).get(_CLASS) or state.documents[CONFIG].get(_CLASS)
    named = str(said).removesuffix("Fast") if said else registered
    # A type that is registered with the class that reads the file is loaded with it, whatever the config says.
    if registered is not None and (registered not in classes or state.traits.model_type in _table()["not_asked"]):
        named = registered
    return named if named in classes else None


@cache
def _table() -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = json.loads(
        files(__package__).joinpath("own_pipelines.json").read_text("utf-8")
    )
    return found
