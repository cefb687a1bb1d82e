"""The names that vocabulary tensors have on disk, by families of models that call them alike.

transformers' own modules may have other names; it converts them on loading (its `conversion_mapping`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tokmigrate.vocabulary.recipes import Side

_AROUND = (
    "base_model model language_model text_model text_decoder text_encoder llm vlm thinker transformer backbone encoder"
    " decoder gpt_neox gpt_neox_japanese bert roberta distilbert electra albert mobilebert longformer deberta mpnet"
    " biogpt convbert cpmant data2vec_text ernie esm esmc fnet funnel git gte ibert layoutlm led luke mra nomic_bert"
    " nystromformer prophetnet reformer rembert roberta_prelayernorm roc_bert roformer rwkv squeezebert tapas ultrabert"
    " yoso"
)
# The modules that may stand around a language model's own; others, such as a vision tower, count other things.
_PREFIX = rf"(?:(?:{'|'.join(_AROUND.split())})\.)*"


@dataclass(frozen=True)
class TensorPattern:
    """Tensors of one kind that have a vocabulary axis.

    Args:
        name: A regular expression for the name without the prefixes of the modules around it.
        side: Whether the rows start like input or like output embeddings.
        axis: The axis that counts the vocabulary.
        copies: Whether it may repeat the embeddings of its side, which is seen by its bytes.
        table: Whether it may hold integers, of which a row can only be copied.
        mapped_by: The tensor that, where it is there, gives ids their rows in this one, which then counts other things.
    """

    name: str
    side: Side
    axis: int = 0
    copies: bool = False
    table: bool = False
    mapped_by: str | None = None

    def matches(self, name: str) -> bool:
        """Return whether a tensor of that name is meant, under any prefix that language models have."""
        return re.fullmatch(_PREFIX + self.name, name) is not None

    def resembles(self, name: str) -> bool:
        """Return whether a tensor's name ends like one that is meant: enough for a proposal."""
        return re.fullmatch(r"(?:.*\.)?" + self.name, name) is not None


Patterns = tuple[TensorPattern, ...]


def _input(name: str) -> TensorPattern:
    return TensorPattern(name, "input")


def _output(name: str, axis: int = 0) -> TensorPattern:
    return TensorPattern(name, "output", axis)


_EMBED, _WORDS = _input(r"embed_tokens\.weight"), _input(r"embeddings\.word_embeddings\.weight")
_HEAD = _output(r"lm_head\.(?:weight|bias)")
_HEAD_DECODER = (_output(r"lm_head\.bias"), _output(r"lm_head\.decoder\.(?:weight|bias)"))
_CLS = (_output(r"cls\.predictions\.bias"), _output(r"cls\.predictions\.decoder\.(?:weight|bias)"))

DECODER: Patterns = (
    _EMBED,
    _HEAD,
    TensorPattern(r"layers\.\d+\.embed_tokens\.weight", "input", copies=True),
    TensorPattern(r"layers\.\d+\.shared_head\.head\.weight", "output", copies=True),
)
"""Layers for multi-token prediction may carry copies of the embeddings, which transformers does not load."""
PER_LAYER: Patterns = (*DECODER, _input(r"embed_tokens_per_layer\.weight"))
DEEPSEEK_V4: Patterns = (
    *DECODER,
    _input(r"embed\.weight"),
    _output(r"head\.weight"),
    TensorPattern(r"layers\.\d+\.(?:mlp|ffn)\.gate\.tid2eid", "input", table=True),
)
STATIC: Patterns = (
    TensorPattern(r"embeddings", "input", table=True, mapped_by="mapping"),
    TensorPattern(r"mapping", "input", table=True),
    _input(r"weights"),
)
"""model2vec's. A quantized vocabulary has a row of `embeddings` for each cluster, and `mapping` from ids to them."""
GPT2: Patterns = (_input(r"wte\.weight"), _HEAD)
CTRL: Patterns = (_input(r"w\.weight"), _HEAD)
GPT: Patterns = (_input(r"tokens_embed\.weight"), _HEAD)
GPT_NEOX: Patterns = (_input(r"embed_in\.weight"), _output(r"embed_out\.weight"), _HEAD)
BLOOM: Patterns = (_input(r"word_embeddings\.weight"), _HEAD)
BAILING: Patterns = (*BLOOM, *DECODER)
MAMBA: Patterns = (_input(r"embeddings?\.weight"), _HEAD)
NEMOTRON_H: Patterns = (*MAMBA, _EMBED)
RWKV: Patterns = (_input(r"embeddings\.weight"), _output(r"head\.weight"))
CPMANT: Patterns = (_input(r"input_embedding\.weight"), _HEAD)
INKLING: Patterns = (_EMBED, _input(r"embed\.weight"), _HEAD, _output(r"unembed\.weight"))
MISTRAL_NATIVE: Patterns = (_EMBED, _input(r"tok_embeddings\.weight"), _HEAD, _output(r"output\.weight"))
MOLMO2: Patterns = (_EMBED, _input(r"wte\.embedding"), _HEAD)
MOSHI: Patterns = (*DECODER, _input(r"depth_decoder\.text_embed_tokens\.weight"))
KYUTAI: Patterns = (_input(r"embed_tokens\.embed_tokens\.weight"), _HEAD)
PI0: Patterns = (
    _EMBED,
    _input(r"dit\.embed_tokens\.weight"),
    _input(r"paligemma_with_expert\.paligemma\.model\.language_model\.(?:model\.)?embed_tokens\.weight"),
    _input(r"paligemma_with_expert\.gemma_expert\.lm_head\.weight"),
)
BERT: Patterns = (_WORDS, *_CLS)
MOBILEBERT: Patterns = (*BERT, _output(r"cls\.predictions\.dense\.weight", axis=1))
ROBERTA: Patterns = (_WORDS, *_HEAD_DECODER)
REFORMER: Patterns = (*ROBERTA, _output(r"lm_head\.weight"))
ALBERT: Patterns = (_WORDS, _output(r"predictions\.bias"), _output(r"predictions\.decoder\.(?:weight|bias)"))
DISTILBERT: Patterns = (_WORDS, _output(r"vocab_projector\.(?:weight|bias)"))
ELECTRA: Patterns = (_WORDS, _output(r"generator_lm_head\.(?:weight|bias)"))
FUNNEL: Patterns = (_WORDS, _HEAD)
GIT: Patterns = (_WORDS, _output(r"output\.(?:weight|bias)"))
MODERNBERT: Patterns = (_input(r"embeddings\.tok_embeddings\.weight"), _output(r"decoder\.(?:weight|bias)"), _HEAD)
ULTRABERT: Patterns = (_EMBED, _output(r"head\.decoder\.weight"), _output(r"cls\.weight"), _HEAD)
NEOMME: Patterns = (_input(r"embed_tokens\.word_embeddings\.weight"), _input(r"value_embeddings\.weight"), _HEAD)
XLM: Patterns = (_input(r"embeddings\.weight"), _output(r"pred_layer\.proj\.(?:weight|bias)"))
XLNET: Patterns = (_input(r"word_embedding\.weight"), _output(r"lm_loss\.(?:weight|bias)"))
PERCEIVER: Patterns = (
    _input(r"perceiver\.input_preprocessor\.embeddings\.weight"),
    _output(r"embedding_decoder\.bias"),
)
ESMC: Patterns = (_EMBED, *_HEAD_DECODER)
T5: Patterns = (_input(r"shared\.weight"), *DECODER)
T5_GEMMA: Patterns = (_EMBED, _output(r"lm_head\.out_proj\.weight"))
BART: Patterns = (*T5, _output(r"final_logits_bias", axis=1))
BIOGPT: Patterns = (_EMBED, _output(r"output_projection\.weight"))
WHISPER: Patterns = (_EMBED, _output(r"proj_out\.(?:weight|bias)"))
COHERE_ASR: Patterns = (
    *WHISPER,
    _input(r"transf_decoder\._embedding\.token_embedding\.weight"),
    _output(r"log_softmax\.mlp\.layer0\.(?:weight|bias)"),
)
SPEECHT5: Patterns = (
    _input(r"speecht5\.decoder\.prenet\.embed_tokens\.weight"),
    _output(r"text_decoder_postnet\.lm_head\.weight"),
)

_GENERIC = (PER_LAYER, GPT2, GPT_NEOX, BLOOM, MOBILEBERT, ROBERTA, DISTILBERT, ELECTRA, ALBERT, BART, GPT)
GENERIC: Patterns = (
    *dict.fromkeys(pattern for patterns in (*_GENERIC, T5_GEMMA, BIOGPT, WHISPER) for pattern in patterns),
    MODERNBERT[0],
    _output(r"(?:lm_loss|pred_layer\.proj)\.(?:weight|bias)"),
)
"""Names that a model of an unknown type may use; transformers' own model or the workspace must confirm them."""
