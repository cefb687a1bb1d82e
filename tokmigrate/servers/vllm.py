"""vLLM: what it reads of a model and of LoRA adapters.

vllm-project/vllm: vllm/tokenizers/hf.py, commit 04d9363ee4a3 (AutoTokenizer); vllm/sampling_params.py, commit
00388f6573cc (ends); vllm/model_executor/layers/vocab_parallel_embedding.py, commit 00db0119c376 (rows);
vllm/lora/peft_helper.py, commit e745bafffc44, lora/utils.py, commit 0fd157078c53, lora/lora_model.py, commit
0306474e9d1f, and lora/layers/logits_processor.py, commit 01815c62d751 (adapters).
"""

from __future__ import annotations

from collections.abc import Iterator

from tokmigrate.formatting import format_quoted
from tokmigrate.model.documents.roles import special_token
from tokmigrate.model.documents.state import ADAPTER_CONFIG, CONFIG, GENERATION
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.servers.finding import BAKE, Finding, Reading, Subject, Target, find_rows

_MULTIPLE = 64
"""What it pads the number of rows to, in memory."""

_MOST_ROWS = 258048
"""How large a vocabulary may be where an adapter changes the head."""


def read(subject: Subject) -> Reading:
    """Return what vLLM reads of a model and its adapters, and what it refuses."""
    snapshot = subject.snapshot
    state = snapshot.state
    padded = -(-state.rows // _MULTIPLE) * _MULTIPLE
    summary = (
        f"reads {len(state.tokenizer.ids):,} tokens with AutoTokenizer from {FILE}, and {state.rows:,} rows, which it "
        f"pads to {padded:,} in memory"
    )
    adapters = (finding for adapter in subject.adapters for finding in _check_adapter(adapter, snapshot))
    return Reading(summary, (*_check_ends(snapshot), *adapters))


def _check_ends(snapshot: Snapshot) -> Iterator[Finding]:
    """Yield where it stops at more tokens than transformers: it adds the tokenizer's own."""
    state = snapshot.state
    held = (state.documents.get(GENERATION) or state.documents[CONFIG]).get("eos_token_id")
    eos = special_token(state, "eos")
    number = state.tokenizer.ids.get(eos) if eos else None
    if number is not None and held is not None and number not in (held if isinstance(held, list) else [held]):
        message = f"it stops at the tokenizer's '{eos}' ({number}) too, and transformers only at {held}"
        help_ = "let both say the same: `set_special_tokens: {eos: …}` does"
        yield Finding("warning", message, GENERATION if GENERATION in state.documents else CONFIG, help_)


def _check_adapter(adapter: Snapshot, base: Snapshot) -> Iterator[Finding]:
    where = str(adapter.directory)
    if modules := [*((adapter.state.documents.get(ADAPTER_CONFIG) or {}).get("modules_to_save") or ())]:
        message = f"it refuses the adapter: `modules_to_save` has {format_quoted(modules)}"
        yield Finding("error", message, f"{where}/{ADAPTER_CONFIG}", BAKE)
    rows = find_rows(adapter, base)
    for kind, tensor in rows.items():
        if kind == "listed" or (kind == "whole" and not modules):
            yield Finding("error", f"it refuses the adapter: '{tensor}' is an unsupported LoRA weight", where, BAKE)
    if "factor" in rows:
        message = f"it takes '{rows['factor']}' only for models whose class names `embedding_modules`"
        yield Finding("warning", message, where, "where it refuses the adapter, merge it into the model")
        if base.state.rows > _MOST_ROWS:
            message = f"with LoRA on the head it takes {_MOST_ROWS:,} rows, and the model has {base.state.rows:,}"
            yield Finding("error", message, where, "merge the adapter into the model")


TARGET = Target("vLLM", "commits on tokmigrate.github.io/tokmigrate/servers.html", read)
