"""What an id means to some models besides its row, and what can therefore not be done to their vocabulary.

Read off the sources of transformers 5; the tests hold the lists against them where that can be done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tokmigrate.errors import OperationError
from tokmigrate.model.documents.state import GENERATION, ModelState
from tokmigrate.vocabulary.ids import Renumbering


@dataclass(frozen=True)
class Refusal:
    """Why a vocabulary cannot be changed at all, and what to do instead."""

    reason: str
    hint: str


_TAKE_OUT = "take it out of `models:` in tokmigrate.yaml"
_AUDIO_CODES = Refusal(
    "its ids are an audio codec's, no tokens of a text", f"{_TAKE_OUT}: the ids of a codec are a fixed set"
)
_DRAFT = f"{_TAKE_OUT}; the migrated model needs a draft model that is trained for it"
_CLUSTERS = Refusal("its tensor `token_ordering` holds ids, sorted into clusters of a fixed size", _DRAFT)
_HASHED = ("qwen4_exp", "qwen4_exp_text")
_BEHIND = "ids right after its vocabulary are {}"

REFUSED: Mapping[str, Refusal] = MappingProxyType(
    {
        "blt": Refusal(
            "its ids are bytes, and rows are found by a hash of several of them", f"{_TAKE_OUT}: bytes are a fixed set"
        ),
        **dict.fromkeys(
            ("dia", "musicgen", "musicgen_decoder", "musicgen_melody", "musicgen_melody_decoder"), _AUDIO_CODES
        ),
        "gemma4_assistant": _CLUSTERS,
        "gemma4_unified_assistant": _CLUSTERS,
        "ibert": Refusal(
            "it keeps a quantized copy of its embeddings, for which no new row can be computed",
            "migrate the RoBERTa model that it was quantized from, then quantize again",
        ),
    }
)
"""Model types that are refused as a whole."""

FIXED_SIZE: Mapping[str, str] = MappingProxyType(
    {
        "gemma3n": _BEHIND.format("taken for sounds"),
        "kyutai_speech_to_text": _BEHIND.format("an audio codec's"),
        "molmo2": _BEHIND.format("those of images, in a second matrix"),
        **dict.fromkeys(
            _HASHED, "the hash by which it finds rows for several tokens depends on the size of its vocabulary"
        ),
    }
)
"""Model types whose number of rows cannot change, with the reason."""

FIXED_IDS: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(_HASHED, "finds rows by a hash of the ids of several tokens")
)
"""Model types in which no id can change, with what they do with ids."""

_FROM_PAD = (
    "altclip_text_model bridgetower_text_model camembert clap_text_model data2vec-text esm fsmt ibert kosmos-2"
    " kosmos-2.5 kosmos_2_5_text_model kosmos_2_text_model layoutlmv3 lilt longformer luke m2m_100 markuplm mpnet"
    " nllb-moe roberta roberta-prelayernorm seamless_m4t seamless_m4t_v2 speech_to_text speecht5 trocr xlm-roberta"
    " xlm-roberta-xl xmod"
)
POSITION_IDS_FROM_PAD: frozenset[str] = frozenset(_FROM_PAD.split())
"""Model types whose position ids begin after the pad token's id: with another pad id they read other positions.

Those whose code in transformers 5 has `create_position_ids_from_input_ids` or fairseq's `make_positions`.
"""

IDS_AFTER_THE_LAST: frozenset[str] = frozenset({"whisper"})
"""Model types in which ids after the last named token mean something: Whisper's timestamps."""


_SIDES = ("encoder", "decoder")
TWO_SIDED = ("encoder-decoder", "fsmt")
"""Model types whose encoder and decoder may have a vocabulary each."""


def refusal(config: Mapping[str, Any], tensors: frozenset[str]) -> Refusal | None:
    """Return why a model with that config.json and those tensors cannot be changed, None where it can."""
    refused = REFUSED.get(str(config.get("model_type")))
    if refused is not None:
        return refused
    sizes = side_sizes(config)
    if sizes is not None and sizes[0] != sizes[1]:
        reason = f"encoder and decoder have a vocabulary each, of {sizes[0]} and {sizes[1]} tokens"
        return Refusal(reason, f"{_TAKE_OUT}: only models with one vocabulary can be migrated")
    draft = sorted(name for name in tensors if name.rpartition(".")[2] in {"d2t", "t2d"})
    if draft:
        return Refusal(f"its tensor '{draft[0]}' maps ids of a draft model's vocabulary to another model's", _DRAFT)
    return None


def side_sizes(config: Mapping[str, Any]) -> tuple[int | None, int | None] | None:
    """Return the sizes of the vocabularies of encoder and decoder, None where the model type has one for both."""
    if config.get("model_type") not in TWO_SIDED and config.get("share_encoder_decoder_embeddings") is not False:
        return None
    encoder, decoder = (config[side] if isinstance(config.get(side), Mapping) else config for side in _SIDES)
    size = encoder.get("src_vocab_size", encoder.get("vocab_size"))
    # A Marian without a word on its decoder gives it the encoder's size.
    return size, decoder.get("tgt_vocab_size") or decoder.get("decoder_vocab_size") or decoder.get("vocab_size")


def is_static(config: Mapping[str, Any]) -> bool:
    """Return whether a model is one of model2vec: embeddings alone, which transformers does not load."""
    # Newer versions of model2vec state no model type.
    return config.get("model_type") == "model2vec" or ("model_type" not in config and "embedding_dtype" in config)


def fixed_size(config: Mapping[str, Any]) -> str | None:
    """Return why the number of rows cannot change, None where it can."""
    if config.get("model_type") == "idefics" and config.get("additional_vocab_size"):
        return _BEHIND.format("those of a second, additional vocabulary")
    return FIXED_SIZE.get(str(config.get("model_type")))


NO_TIMESTAMPS = "<|notimestamps|>"
_SILENCE = ("<|nospeech|>", "<|nocaptions|>")
_TASKS = ("<|translate|>", "<|transcribe|>")
LANGUAGES = "lang_to_id"


@dataclass(frozen=True)
class OrderedTail:
    """The ids from `start` up to, not including, `stop`, which stay together and last."""

    start: int
    stop: int

    def describe(self, model_type: str) -> str:
        """Return what they are to a model of that type."""
        return f"a {model_type} model takes each id from {self.start} on for a timestamp by its order"

    def is_kept(self, renumbering: Renumbering) -> bool:
        """Return whether they all move by the same number, and no other id comes to stand among or after them."""
        start = renumbering.new(self.start)
        if start is None:
            return False
        shift = start - self.start
        inside = range(self.start, self.stop)
        return all(renumbering.new(number) == number + shift for number in inside) and not any(
            (new or 0) >= start and renumbering.touches(old)
            for old, new in renumbering.moves.items()
            if old not in inside
        )


def ordered_tail(state: ModelState) -> OrderedTail | None:
    """Return the ids of a model that mean something by their order, None for a model without such ids."""
    if state.traits.model_type not in IDS_AFTER_THE_LAST:
        return None
    texts = state.tokenizer.texts
    last = state.tokenizer.highest
    first = state.tokenizer.ids.get(NO_TIMESTAMPS)
    if first is None:
        return OrderedTail(last + 1, max(last + 1, state.vocab_size))
    start = first - 1 if texts.get(first - 1) in _SILENCE else first
    # Older tokenizers end at <|notimestamps|>, and all rows after it are timestamps.
    return OrderedTail(start, last + 1 if last > first else state.vocab_size)


def place_of_languages(state: ModelState) -> int:
    """Return the id that the next language gets, behind those that there are.

    Raises:
        OperationError: The model has no languages.
    """
    if ordered_tail(state) is not None:
        known = (state.documents.get(GENERATION) or {}).get(LANGUAGES)
        if known:
            return int(max(known.values())) + 1
        if found := [state.tokenizer.ids[token] for token in _TASKS if token in state.tokenizer.ids]:
            return min(found)
    raise OperationError(
        f"this {state.traits.model_type} model has no tokens of languages", hint="leave out `language: true`"
    )


def with_languages(state: ModelState, tokens: tuple[str, ...]) -> ModelState:
    """Return the state in which generation_config.json lists `tokens`, which it has to have, as languages."""
    known = (state.documents.get(GENERATION) or {}).get(LANGUAGES)
    if not known:
        return state
    added = {token: state.tokenizer.ids[token] for token in tokens}
    return state.with_value(GENERATION, (LANGUAGES,), {**known, **added})


def tail_move(before: ModelState, after: ModelState) -> str | None:
    """Describe how the ids that stay last change, None if they do not."""
    old, new = ordered_tail(before), ordered_tail(after)
    if old is None or new is None or old == new:
        return None
    ids = after.tokenizer.ids
    texts = before.tokenizer.texts
    first = texts.get(old.start, f"id {old.start}")
    moved = min((n for token, n in before.tokenizer.ids.items() if ids.get(token, n) != n), default=old.start)
    ahead = (
        f"'{texts[moved]}' and the ids after it move up by {ids[texts[moved]] - moved}; " if moved < old.start else ""
    )
    return (
        f"{ahead}'{first}' and the {old.stop - old.start - 1} ids after it move up by {new.start - old.start} as one"
        " block; data that hold their ids have to be tokenized again"
    )
