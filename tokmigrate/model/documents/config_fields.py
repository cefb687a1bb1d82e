"""The fields of config.json: its nested parts, and which fields hold ids of tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tokmigrate.model.formats.json_text import Json
from tokmigrate.settings import FieldShape

Path = tuple[str | int, ...]

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
    """Yield the parts of config.json that describe the vocabulary of that size: those that give no other one.

    Args:
        config: The parsed file.
        size: The `vocab_size` of the language model.
    """
    for path, part in config_parts(config):
        if not path or part.get("vocab_size", size) == size:
            yield path, part


def read_declared_sizes(config: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return every `vocab_size` that config.json gives, with its dotted place; the one that counts comes first."""
    return list(_list_sizes(config, ""))


def _list_sizes(config: Mapping[str, Any], path: str) -> Iterator[tuple[str, int]]:
    for name in NESTED:
        if isinstance(config.get(name), Mapping):
            yield from _list_sizes(config[name], f"{path}{name}.")
    for name in ("vocab_size", "tgt_vocab_size"):
        if isinstance(size := config.get(name), int):
            yield f"{path}{name}", size


Shape = FieldShape

Declared = Mapping[str, Shape | Literal["ignore"]]
"""What the workspace says about fields, by name or dotted path; `ignore` for one that holds no ids."""


@dataclass(frozen=True)
class IdField:
    """Fields that hold ids in one way.

    Args:
        name: A regular expression for the whole name of a field.
        shape: How it holds them.
    """

    name: str
    shape: Shape


_ROLES = "pad|bos|eos|sep|cls|mask|unk|eod|start|end|decoder_start|forced_bos|forced_eos|blank|document|question|pred"
_MEDIA = "image|video|audio|vision|speech|frame|low_res_image"
_PARTS = "start|end|bos|eos|pad|prompt|latent|delay|prompt_bos"

ID_FIELDS: tuple[IdField, ...] = (
    IdField(rf"_?(?:{_ROLES})_token_ids?", "ids"),
    IdField(rf"(?:{_MEDIA})(?:_(?:{_PARTS}))?_token_(?:id|ids|index)", "ids"),
    IdField(r"(?:boi|eoi|boa|eoa|bov|eov)_token_(?:id|index)", "ids"),
    IdField(r"(?:user|system|assistant|im_start|im_end|timestamp|no_timestamps|prev_sot)_token_id", "ids"),
    IdField(r"tts_(?:bos|eos|pad|text_start|text_end|text_pad)_token_id", "ids"),
    IdField(r"(?:yes|no)_token_index|(?:true|false)_token_id|visual_indicator_token_ids", "ids"),
    IdField(r"(?:image|slice)_(?:start|end|patch)_id|im_(?:start|end|newline)_id|newline_id", "ids"),
    IdField(r"(?:pad|bos|eos|unk|mask)_index", "ids"),
    IdField(r"suppress_tokens|begin_suppress_tokens|bad_words_ids|force_words_ids", "list"),
    IdField(r"vocabulary_map|lang_to_id|task_to_id", "map"),
    IdField(r"vocab_list|keep_only_token_ids", "list"),
    IdField(r"forced_decoder_ids", "positions"),
    IdField(r"sequence_bias", "bias"),
)
"""The names of transformers' configurations, generation settings and processors."""

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
    return next((field.shape for field in ID_FIELDS if re.fullmatch(field.name, name)), None)


def shape_at(place: tuple[str, ...], declared: Declared) -> Shape | Literal["ignore"] | None:
    """Return how the field at a place holds ids, None if that is not known; what the workspace says goes before.

    Args:
        place: The names of the fields around it, and its own.
        declared: What the workspace says.
    """
    return declared.get(".".join(place)) or declared.get(place[-1]) or shape_of(place[-1])


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
