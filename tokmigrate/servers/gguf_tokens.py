"""The tokens that llama.cpp's converter writes for a model, as its classes read them.

conversion/ of ggml-org/llama.cpp: base.py at commit 00bd27a621f9, llama.py at 0274f0fc7d7f, qwen.py at 03173d5e78f8,
gemma.py at 061b8c5f9188, bert.py at 2ca8afc1cb0f, phi.py at 7bca1fd9ca2a; and gguf/vocab.py of gguf 0.19.0, said again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tokmigrate.model.documents.slow_tokenizer_files import READ_ALONE, is_read_without_flags
from tokmigrate.model.documents.state import ADDED_TOKENS, CONFIG, TOKENIZER_CONFIG, ModelState
from tokmigrate.model.formats.sentencepiece import Kind as Type
from tokmigrate.model.formats.sentencepiece import SentencePieceModel, is_sentencepiece
from tokmigrate.model.gguf_vocabulary import spellings, write_added
from tokmigrate.model.tokenizer.tokenizer_json import FILE, Tokenizer, model_kind
from tokmigrate.servers.finding import Subject


class Written(NamedTuple):
    """A token of the list in a GGUF."""

    text: str
    type: Type


@dataclass(frozen=True)
class TokenList:
    """The list of a GGUF, in which the place of a token is its id.

    Args:
        file: Where the tokens come from.
        method: The method of the converter that reads them.
        has_digest: Whether that method looks the pre-tokenizer up by a digest.
        has_merges: Whether the rules by which text is tokenized are written: merges, or scores.
    """

    file: str
    method: str
    tokens: tuple[Written, ...]
    has_digest: bool = False
    has_merges: bool = True


_Read = Callable[[Subject], TokenList | None]
"""Reads the tokens; None where its files are not there, and the converter tries the next."""


def list_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return config.json as the converter reads it: values of the text model replace those of the whole."""
    thinker = take_mapping(take_mapping(config.get("thinker_config")).get("text_config"))
    text = thinker or take_mapping(config.get("llm_config")) or take_mapping(config.get("text_config"))
    return {**config, **text}


def find_architecture(config: Mapping[str, Any]) -> str | None:
    """Return the name by which the converter chooses a class, None where it stops."""
    own = take_mapping(config.get("text_config")).get("architectures") or config.get("architectures")
    return str(own[0]) if isinstance(own, list) and own else None


def take_mapping(value: object) -> Mapping[str, Any]:
    """Return a value that is a mapping, and an empty one for any other."""
    return value if isinstance(value, Mapping) else {}


def is_known(architecture: str | None) -> bool:
    """Return whether it is known here which methods the class of an architecture uses."""
    return architecture in _METHODS


def read_tokens(subject: Subject) -> TokenList | None:
    """Return the tokens that the converter writes, None where it finds no file that it can read."""
    methods = _METHODS.get(find_architecture(subject.snapshot.state.documents[CONFIG]) or "", (_read_gpt2,))
    return next((found for read in methods if (found := read(subject)) is not None), None)


PLACEHOLDER = "[PAD"
"""How the converter begins the text of an id without a token."""


def is_written_as(tokenizer: Tokenizer, text: str, written: str) -> bool:
    """Return whether the converter may write a token in this way."""
    if written == text or (text in tokenizer.added and written in spellings(text)):
        return True
    # A WordPiece marks the beginnings of words in place of their continuations.
    return written == (text[2:] if text.startswith("##") else f"\u2581{text}")


def _placeholders(rows: int) -> list[Written]:
    return [Written(f"{PLACEHOLDER}{number}]", Type.UNUSED) for number in range(rows)]


def _size(state: ModelState) -> int:
    size = list_parameters(state.documents[CONFIG]).get("vocab_size")
    return size if isinstance(size, int) and size > 0 else len(state.tokenizer.ids)


def _read_sentencepiece(subject: Subject) -> TokenList | None:
    state = subject.snapshot.state
    found = _read_pieces(state)
    return None if found is None else TokenList(READ_ALONE, "_set_vocab_sentencepiece", tuple(found))


def _read_pieces(state: ModelState) -> list[Written] | None:
    data = state.documents.get(READ_ALONE)
    if not isinstance(data, bytes) or not is_sentencepiece(data):
        return None
    found = _placeholders(_size(state))
    for number, piece in enumerate(SentencePieceModel.read(data, READ_ALONE).pieces[: len(found)]):
        kind = piece.kind
        # The converter does not ask whether a user defined a piece.
        found[number] = Written(piece.text, Type.NORMAL if kind is Type.USER_DEFINED else kind)
    for text, number in (state.documents.get(ADDED_TOKENS) or {}).items():
        if number < len(found):
            found[number] = Written(text, Type.USER_DEFINED)
    for number, text, is_special in _list_decoder(state):
        if number < len(found):
            found[number] = Written(*write_added(text, is_special=is_special))
    return found


def _list_decoder(state: ModelState) -> Iterator[tuple[int, str, bool]]:
    decoder = (state.documents.get(TOKENIZER_CONFIG) or {}).get("added_tokens_decoder") or {}
    for key, entry in decoder.items():
        yield int(key), entry["content"], bool(entry.get("special"))


def _read_llama_hf(subject: Subject) -> TokenList | None:
    tokenizer = subject.snapshot.state.tokenizer
    if not is_read_without_flags(subject.snapshot.state):
        return None
    specials, base = subject.loaded.specials, len(tokenizer.vocabulary)
    found = []
    for number in range(base):
        text = tokenizer.texts.get(number)
        if text is None:
            return None
        is_byte = re.fullmatch(r"<0x[0-9A-Fa-f]{2}>", text)
        found.append(Written(text, Type.BYTE if is_byte else Type.CONTROL if text in specials else Type.NORMAL))
    behind = sorted((number, text) for text, (_, number) in tokenizer.added.items() if number >= base)
    found += [Written(text, Type.CONTROL if text in specials else Type.USER_DEFINED) for _, text in behind]
    return TokenList(FILE, "_set_vocab_llama_hf", tuple(found), has_merges=False)


def _read_gpt2(subject: Subject) -> TokenList | None:
    if model_kind(subject.snapshot.state.tokenizer.document) != "BPE":
        return None
    return TokenList(FILE, "_set_vocab_gpt2", tuple(_read_base(subject)), has_digest=True)


def _read_wordpiece(subject: Subject) -> TokenList | None:
    def spell(token: Written) -> Written:
        if token.type is Type.CONTROL:
            return token
        return token._replace(text=token.text[2:] if token.text.startswith("##") else f"\u2581{token.text}")

    return TokenList(FILE, "get_vocab_base", tuple(map(spell, _read_base(subject))), has_digest=True)


def _read_base(subject: Subject) -> list[Written]:
    state = subject.snapshot.state
    found = _placeholders(_size(state))
    for text, number in state.tokenizer.ids.items():
        if number < len(found):
            token = state.tokenizer.token(text)
            if token is None:
                found[number] = Written(text, Type.NORMAL)
                continue
            decoded = text if token.normalized else subject.loaded.decoded.get(text, text)
            found[number] = Written(*write_added(decoded, is_special=token.special))
    return found


def _read_phi3(subject: Subject) -> TokenList | None:
    state = subject.snapshot.state
    if (state.documents.get(TOKENIZER_CONFIG) or {}).get("tokenizer_class") == "GPT2Tokenizer":
        return _read_gpt2(subject)
    found = _read_pieces(state)
    if found is None:
        return None
    # Of all classes it alone reads tokenizer.json too, and leaves texts as they are.
    added = ((number, text, token.special) for text, (token, number) in state.tokenizer.added.items())
    for number, text, is_special in (*_list_decoder(state), *added):
        if number < len(found):
            found[number] = Written(text, Type.CONTROL if is_special else Type.USER_DEFINED)
    return TokenList(READ_ALONE, "Phi3MiniModel.set_vocab", tuple(found))


def _classes(names: str, *methods: _Read) -> dict[str, Sequence[_Read]]:
    return dict.fromkeys(names.split(), methods)


_METHODS: Mapping[str, Sequence[_Read]] = {
    **_classes(
        "LLaMAForCausalLM LlamaForCausalLM MistralForCausalLM MixtralForCausalLM VLlama3ForCausalLM LlamaModel"
        " LlavaForConditionalGeneration VoxtralForConditionalGeneration GraniteForCausalLM SmolLM3ForCausalLM",
        _read_sentencepiece,
        _read_llama_hf,
        _read_gpt2,
    ),
    **_classes(
        "Qwen2Model Qwen2ForCausalLM Qwen2AudioForConditionalGeneration Qwen3ForCausalLM Qwen3Model",
        _read_sentencepiece,
        _read_gpt2,
    ),
    **_classes(
        "PhiForCausalLM Qwen2MoeForCausalLM Qwen3MoeForCausalLM RobertaModel RobertaForSequenceClassification"
        " GPT2LMHeadModel GPTNeoXForCausalLM"
        " GPTBigCodeForCausalLM Starcoder2ForCausalLM FalconForCausalLM SeedOssForCausalLM OlmoForCausalLM"
        " Olmo2ForCausalLM Olmo3ForCausalLM OlmoeForCausalLM",
        _read_gpt2,
    ),
    **_classes("GemmaForCausalLM Gemma2ForCausalLM", _read_sentencepiece),
    **_classes(
        "Gemma3ForCausalLM Gemma3ForConditionalGeneration Gemma3TextModel Gemma3nForCausalLM"
        " Gemma3nForConditionalGeneration",
        _read_sentencepiece,
        _read_gpt2,
    ),
    **_classes(
        "BertModel BertForMaskedLM BertForSequenceClassification DistilBertModel DistilBertForMaskedLM"
        " DistilBertForSequenceClassification",
        _read_wordpiece,
    ),
    **_classes("Phi3ForCausalLM PhiMoEForCausalLM", _read_phi3),
}
"""The methods that a class tries, in order; a class that is not here has that of the base class, `_set_vocab_gpt2`."""
