"""Every architecture that the package promises: a model as transformers saves it, two tokens more, and back again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import making
import pytest
import torch
import transformers
from workspaces import image

from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.inspect import status, verify
from tokmigrate.commands.upgrade import upgrade

NEW = ("<first>", "<second>")
MIGRATION = {"operations": [{"add_tokens": {"tokens": [NEW[0], {"content": NEW[1], "special": True}]}}]}

IDS = {"bos_token_id": making.TOKENS - 2, "eos_token_id": making.TOKENS - 1, "pad_token_id": making.TOKENS - 1}
DECODER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
GPT = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
WITH_ENDS = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
WITH_ENDS |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
# Whisper's mel spectrogram: two frames for each position of its encoder.
WHISPER = {"num_mel_bins": 4, "max_source_positions": 8, "max_target_positions": 32}
WHISPER |= {"decoder_start_token_id": making.TOKENS - 2, "suppress_tokens": [], "begin_suppress_tokens": []}

MODELS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "Llama": ("LlamaForCausalLM", DECODER),
    "Llama, tied": ("LlamaForCausalLM", {**DECODER, "tie_word_embeddings": True}),
    "Mistral": ("MistralForCausalLM", DECODER),
    "Qwen2": ("Qwen2ForCausalLM", DECODER),
    "Qwen2, tied": ("Qwen2ForCausalLM", {**DECODER, "tie_word_embeddings": True}),
    "Qwen3": ("Qwen3ForCausalLM", DECODER),
    "Gemma": ("GemmaForCausalLM", DECODER),
    "Gemma 2": ("Gemma2ForCausalLM", DECODER),
    "Gemma 3": ("Gemma3ForCausalLM", DECODER),
    "Phi": ("PhiForCausalLM", DECODER),
    "Phi 3": ("Phi3ForCausalLM", DECODER),
    "GPT-2": ("GPT2LMHeadModel", GPT),
    "GPT-NeoX": ("GPTNeoXForCausalLM", {**SMALL, "max_position_embeddings": 64}),
    "Falcon": ("FalconForCausalLM", {**SMALL, "ffn_hidden_size": 24}),
    "BLOOM": ("BloomForCausalLM", {"hidden_size": 16, "n_layer": 1, "n_head": 2}),
    "Mamba": ("MambaForCausalLM", {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}),
    "BERT": ("BertForMaskedLM", SMALL),
    "RoBERTa": ("RobertaForMaskedLM", SMALL),
    "DistilBERT": ("DistilBertForMaskedLM", {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 24}),
    "T5": ("T5ForConditionalGeneration", T5),
    "T5, untied": ("T5ForConditionalGeneration", {**T5, "tie_word_embeddings": False}),
    "BART": ("BartForConditionalGeneration", WITH_ENDS),
    "Whisper": ("WhisperForConditionalGeneration", {**WITH_ENDS, **WHISPER}),
}


def build(name: str) -> Any:
    """Return a random model of its class with as many rows as `making`'s tokenizer has tokens."""
    class_name, options = MODELS[name]
    model_class = getattr(transformers, class_name)
    torch.manual_seed(1)
    config = model_class.config_class(vocab_size=making.TOKENS, **IDS, **options)
    model = model_class(config)
    # What starts as zeros, biases above all, would not show that it moved.
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.normal_(std=0.05)
    return model.eval()


def load(directory: Path, class_name: str) -> Any:
    """Load the model and assert that transformers finds each tensor as it expects it."""
    model, found = getattr(transformers, class_name).from_pretrained(directory, output_loading_info=True)
    assert not any(found[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")), found
    return model.eval()


def forward(model: Any, ids: list[int]) -> torch.Tensor:
    """Return the logits for one text."""
    text = torch.tensor([ids])
    with torch.no_grad():
        if isinstance(model, transformers.WhisperForConditionalGeneration):
            logits = model(input_features=torch.ones(1, 4, 16), decoder_input_ids=text).logits
        elif model.config.is_encoder_decoder:
            logits = model(input_ids=text, decoder_input_ids=text).logits
        else:
            logits = model(input_ids=text).logits
    assert isinstance(logits, torch.Tensor)
    return logits[0]


@pytest.mark.parametrize("name", MODELS)
def test_two_tokens_more_and_back(name: str, tmp_path: Path) -> None:
    class_name, _ = MODELS[name]
    model = build(name)
    directory = tmp_path / "model"
    model.save_pretrained(directory)
    making.write_tokenizer(directory)
    made = making.workspace(tmp_path, {"model": directory}, [MIGRATION])
    place, entry = made.workspace, made.entry("model")
    base, old = image(directory), making.tensors_of(directory)
    before = load(directory, class_name)
    text = [5, 40, 7]
    old_logits = forward(before, text)

    upgrade(place, entry)

    rows = making.TOKENS + len(NEW)
    after = load(directory, class_name)
    tied = before.get_input_embeddings().weight is before.get_output_embeddings().weight
    assert (after.get_input_embeddings().weight is after.get_output_embeddings().weight) == tied
    assert status(place, entry).tied == tied
    assert after.get_input_embeddings().weight.shape[0] == rows
    assert after.config.get_text_config().vocab_size == rows

    new = making.tensors_of(directory)
    assert new.keys() == old.keys()
    widened = set()
    for tensor, was in old.items():
        axes = [axis for axis in range(was.dim()) if was.shape[axis] != new[tensor].shape[axis]]
        assert [new[tensor].shape[axis] for axis in axes] == [rows] * len(axes)
        assert new[tensor].dtype == was.dtype
        kept = new[tensor]
        for axis in axes:
            kept = kept.narrow(axis, 0, was.shape[axis])
            widened.add(tensor)
        assert torch.equal(kept, was), tensor
    assert widened == {tensor for tensor, was in old.items() if making.TOKENS in was.shape}

    # Old text has the logits that it had, and the new tokens can be read and predicted.
    logits = forward(after, text)
    assert logits.shape[-1] == rows
    torch.testing.assert_close(logits[:, : making.TOKENS], old_logits, rtol=1e-4, atol=1e-5)
    assert torch.isfinite(forward(after, [*text, making.TOKENS, making.TOKENS + 1])).all()
    assert not verify(place, entry).changed

    downgrade(place, entry, "base")
    assert image(directory) == base
