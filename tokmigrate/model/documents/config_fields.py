"""The fields of config.json: its nested parts, the sizes that it declares, and which fields hold ids of tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tokmigrate.model.documents.architecture_quirks import is_static
from tokmigrate.model.documents.state import CONFIG, TOKENIZER_CONFIG, ModelState
from tokmigrate.model.formats.json_text import Json
from tokmigrate.settings import FieldShape

Path = tuple[str | int, ...]


def format_place(place: Path) -> str:
    """Return a place as the workspace and messages name it: positions in lists have no name."""
    return ".".join(step for step in place if isinstance(step, str))


NESTED = (
    "text_config",
    "decoder",
    "decoder_config",
    "generator",
    "text_encoder",
    "llm_config",
    "lm_config",
    "language_config",
    "thinker_config",
    "vlm_config",
    "dit_config",
    "encoder",
)
"""The names under which config.json keeps a language model inside another one, the one that counts first."""


def config_parts(config: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Json]]:
    """Yield the root of config.json and each nested language model, with its path."""
    yield path, config
    for name in NESTED:
        if isinstance(config.get(name), Mapping):
            yield from config_parts(config[name], (*path, name))


def parts_of(config: Mapping[str, Any], size: int) -> Iterator[tuple[Path, Json]]:
    """Yield the parts of config.json that describe the vocabulary of that size: those that give no other one."""
    for path, part in config_parts(config):
        if not path or part.get("vocab_size", size) == size:
            yield path, part


def read_declared_sizes(config: Mapping[str, Any], path: str = "") -> list[tuple[str, int]]:
    """Return every `vocab_size` that config.json gives, with its dotted place; the one that counts comes first."""
    found = []
    for name in NESTED:
        if isinstance(config.get(name), Mapping):
            found += read_declared_sizes(config[name], f"{path}{name}.")
    names = ("vocab_size", "tgt_vocab_size")
    return found + [(f"{path}{name}", config[name]) for name in names if isinstance(config.get(name), int)]


Shape = FieldShape

Declared = Mapping[str, Shape | Literal["ignore"]]
"""What the workspace says about fields, by name or dotted path; `ignore` for one that holds no ids."""


_ROLES = "pad|bos|eos|sep|cls|mask|unk|eod|start|end|decoder_start|forced_bos|forced_eos|blank|document|question|pred"
_MEDIA = "image|video|audio|vision|speech|frame|low_res_image"
_PARTS = "start|end|bos|eos|pad|prompt|latent|delay|prompt_bos"

ID_FIELDS: tuple[tuple[str, Shape], ...] = (
    (rf"_?(?:{_ROLES})_token_ids?", "ids"),
    (rf"(?:{_MEDIA})(?:_(?:{_PARTS}))?_token_(?:id|ids|index)", "ids"),
    (r"(?:boi|eoi|boa|eoa|bov|eov)_token_(?:id|index)", "ids"),
    (r"(?:user|system|assistant|im_start|im_end|timestamp|no_timestamps|prev_sot)_token_id", "ids"),
    (r"tts_(?:bos|eos|pad|text_start|text_end|text_pad)_token_id", "ids"),
    (r"(?:yes|no)_token_index|(?:true|false)_token_id|visual_indicator_token_ids", "ids"),
    (r"(?:image|slice)_(?:start|end|patch)_id|im_(?:start|end|newline)_id|newline_id", "ids"),
    (r"(?:pad|bos|eos|unk|mask)_index", "ids"),
    (r"suppress_tokens|begin_suppress_tokens|bad_words_ids|force_words_ids", "list"),
    (r"vocabulary_map|lang_to_id|task_to_id", "map"),
    (r"vocab_list|keep_only_token_ids", "list"),
    (r"forced_decoder_ids", "positions"),
    (r"sequence_bias", "bias"),
)
"""Regular expressions for whole names of fields, and how these hold ids.

The names are those of transformers' configurations, generation settings and processors.
"""

_ID_FIELD = re.compile("|".join(f"({names})" for names, _ in ID_FIELDS))

OTHER_IDS = re.compile(
    r"(?:codebook|codec|tts_codec|t2u|char|entity|ngram|type|tag|subs|speaker|lang|task|layer)_\w*"
    r"|(?:num|max|min|n|use|default|out|backbone_out|local|insert|moe|mtp|ple|attn|head|merge|decode|target)_\w*"
    r"|_out_indices|extra_ids|vision_use_cls_token|router_ignore_padding_tokens|pad_token_type_id|begin_suppress_tokens_index|trainable_token_indices"
    r"|\w*(?:ignore_index|layer_ids?|layer_indices|layers_index|layers_indices|label_index|block_indices|hook_ids"
    r"|hidden_state_indices|channel_indices|projection_indices|consumer_indices|sequence_id|_num_tokens|_per_token"
    r"|token_type_ids?)"
)
"""Names that end like ids and count something else: codebooks, layers, labels, speakers."""

LOOKS_LIKE_IDS = re.compile(r"\w*_(?:id|ids|index|indices|token|tokens)")
"""Names that may hold ids of tokens."""


ROLES_BY_ID = (
    *("image", "video", "audio", "vision_start", "vision_end", "boi", "eoi", "boa", "eoa", "decoder_start"),
    *("forced_bos", "forced_eos", "no_timestamps", "prev_sot", "suppress_tokens", "begin_suppress_tokens"),
    *("bad_words_ids", "lang_to_id", "task_to_id", "forced_decoder_ids"),
)
"""Some of the names by which fields can be set, for hints."""

_ENDINGS = ("_token_id", "_token_ids", "_token_index", "_index", "_id")


def shape_of(name: str) -> Shape | None:
    """Return how the field `name` holds ids, None if it is not known to hold any."""
    found = _ID_FIELD.fullmatch(name)
    return ID_FIELDS[found.lastindex - 1][1] if found and found.lastindex else None


def shape_at(place: Path, declared: Declared) -> Shape | Literal["ignore"] | None:
    """Return how the field at a place holds ids, None if that is not known; what the workspace says goes before."""
    name = str(place[-1])
    # Most workspaces say nothing, and a file may have 100,000 fields.
    stated = declared.get(format_place(place)) or declared.get(name) if declared else None
    return stated or shape_of(name)


def may_hold_ids(name: str) -> bool:
    """Return whether a field that is not known looks by its name as if it held ids."""
    if shape_of(name) is not None or OTHER_IDS.fullmatch(name):
        return False
    return LOOKS_LIKE_IDS.fullmatch(name) is not None


def role_of(name: str) -> str:
    """Return the role whose token a field names: `image` of `image_token_id` and `image_token_index`."""
    ending = next((ending for ending in _ENDINGS if name.endswith(ending)), "")
    return name.removesuffix(ending).removeprefix("_") if shape_of(name) == "ids" else name


def can_be_set(name: str) -> bool:
    """Return whether there may be a field that `name` means: a role, or the name of a field."""
    if any(shape_of(f"{name}{ending}") == "ids" for ending in _ENDINGS):
        return True
    return shape_of(name) not in (None, "bias") or may_hold_ids(name)


SIZES = ("vocab_size", "decoder_vocab_size", "src_vocab_size", "tgt_vocab_size", "vocab_size_per_layer_input")
"""The fields that give the size of the vocabulary, or of a table beside it, where they give the same number."""
REPEATED = ("depth_decoder_config",)
"""The parts that repeat the size, and whose ids are other things: Moshi's counts codes of audio."""
UNPADDED = "unpadded_vocab_size"
"""The field that gives the number of rows that are not padding: logits after it are cut off."""


def with_sizes(state: ModelState, before: ModelState) -> ModelState:
    """Return the state in which config.json gives the rows that there are now; so far it gives those of `before`."""
    old, new = before.vocab_size, state.vocab_size
    parts = list(parts_of(state.documents[CONFIG], old))
    if new != old:
        config = state.documents[CONFIG]
        repeating = [((name,), part) for name in REPEATED if isinstance(part := config.get(name), Mapping)]
        holders = [(path, field) for path, part in (*parts, *repeating) for field in SIZES if part.get(field) == old]
        # Where no file states the size, transformers' default held so far; the language model inside gets it.
        for path, field in holders or ([] if is_static(config) else [(_innermost(config), "vocab_size")]):
            state = state.with_value(CONFIG, (*path, field), new)
    for path, part in parts:
        held = part.get(UNPADDED)
        if isinstance(held, int):
            state = state.with_value(CONFIG, (*path, UNPADDED), min(max(held, state.tokenizer.highest + 1), new))
    return state


def _innermost(config: Mapping[str, Any]) -> Path:
    name = next((name for name in NESTED if isinstance(config.get(name), Mapping)), None)
    return () if name is None else (name, *_innermost(config[name]))


NO_LIMIT = 10**9
"""transformers writes a huge `model_max_length` where there is none."""

_LENGTH = "model_max_length"
_POSITIONS = ("max_position_embeddings", "n_positions")


@dataclass(frozen=True)
class Limit:
    """The most tokens that a text may have, special ones included, and the field that says so."""

    tokens: int
    source: str


def limit_of(state: ModelState) -> Limit | None:
    """Return the limit that a model states for its texts, None where it states none.

    It is `model_max_length` of tokenizer_config.json, at which transformers truncates; where that is missing or
    stands for no limit, the positions that config.json gives the model.
    """
    length = (state.documents.get(TOKENIZER_CONFIG) or {}).get(_LENGTH)
    if isinstance(length, int) and length < NO_LIMIT:
        return Limit(length, _LENGTH)
    config = state.documents.get(CONFIG) or {}
    for part in (config, config.get("text_config") or {}):
        for name in _POSITIONS:
            if isinstance(part.get(name), int):
                return Limit(part[name], name)
    return None
