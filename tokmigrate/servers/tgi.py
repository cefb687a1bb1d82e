"""text-generation-inference 3.3.7: what its router and its server read of a model and of LoRA adapters.

huggingface/text-generation-inference, commit db931fcf42da: router/src/server.rs, lib.rs and infer/ (tokenizer,
templates), server/text_generation_server/models/flash_causal_lm.py and utils/tokens.py (ends), adapters/lora.py and
utils/adapter.py (adapters).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from tokmigrate.errors import OperationError
from tokmigrate.model.documents.chat_template import read_chat_templates
from tokmigrate.model.documents.roles import special_token
from tokmigrate.model.documents.state import (
    GENERATION,
    LEGACY_TEMPLATE,
    PROCESSOR,
    TEMPLATE,
    TOKENIZER_CONFIG,
    ModelState,
)
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.servers.finding import BAKE, SET_TEMPLATE, Finding, Reading, Subject, Target, find_rows
from tokmigrate.servers.templates import find_unsupported, keeps_block_lines, list_missing_tokens

_SHOWN = 5


def read(subject: Subject) -> Reading:
    """Return what text-generation-inference reads of a model and its adapters, and what it leaves out."""
    state = subject.snapshot.state
    file, template = _find_template(state)
    held = f"the chat template of {file}" if template else "no chat template"
    summary = f"reads {len(state.tokenizer.ids):,} tokens with AutoTokenizer from {FILE}, and {held}"
    adapters = (each for adapter in subject.adapters for each in _check_adapter(adapter, subject.snapshot))
    return Reading(summary, (*_check_template(state), *_check_ends(state), *adapters))


def _find_template(state: ModelState) -> tuple[str, str | None]:
    """Return the file and the text of the chat template that the router takes."""
    for file in (LEGACY_TEMPLATE, TOKENIZER_CONFIG, PROCESSOR):
        held = (state.documents.get(file) or {}).get("chat_template")
        if held is not None:
            return file, _default_of(held)
    return TOKENIZER_CONFIG, None


def _default_of(held: Json) -> str | None:
    """Return the template of a field: of a list the one that is called `default`."""
    if isinstance(held, list):
        return next((each["template"] for each in held if each["name"] == "default"), None)
    return held if isinstance(held, str) else None


def _check_template(state: ModelState) -> Iterator[Finding]:
    ours = read_chat_templates(state.documents).get("default")
    file, template = _find_template(state)
    if ours is not None and template is None:
        message = f"it has no chat template: it does not read {TEMPLATE}, and refuses requests with messages"
        help_ = f"write the template into {TOKENIZER_CONFIG} as `chat_template`; `set_chat_template` keeps both in step"
        yield Finding("error", message, TEMPLATE, help_)
    elif ours != template:
        message = f"it takes the chat template of {file}, and transformers another one"
        yield Finding("error", message, file, SET_TEMPLATE)
    # Where it has none, what it would make of the one that is to be copied.
    if template is None:
        file, template = TEMPLATE, ours
    if template is None:
        return
    try:
        unsupported = [*islice(find_unsupported(template), _SHOWN)]
    except OperationError as error:
        yield Finding("error", f"it does not start: {error}", file, error.hint or "correct the chat template")
        return
    for what in unsupported:
        yield Finding("error", f"minijinja does not take the chat template: {what}", file, "write it without that")
    for name in list_missing_tokens(template):
        message = f"the chat template names `{name}`, which is empty there: it gives `bos_token` and `eos_token` only"
        yield Finding("warning", message, file, "write the text of the token in its place")
    if keeps_block_lines(template):
        message = "prompts have line breaks or spaces that transformers leaves out: it does not trim the lines of tags"
        yield Finding("error", message, file, "write `{%-` and `-%}` around tags, so that both render the same")


def _check_ends(state: ModelState) -> Iterator[Finding]:
    """Yield where it stops at other tokens: at all of a list in generation_config.json, else at the tokenizer's."""
    held = (state.documents.get(GENERATION) or {}).get("eos_token_id")
    eos = special_token(state, "eos")
    number = state.tokenizer.ids.get(eos) if eos else None
    if isinstance(held, int) and held != number:
        stops = f"'{eos}' ({number})" if number is not None else "no token"
        message = f"it stops at {stops}, and transformers at {held}: it reads `eos_token_id` only where it is a list"
        help_ = f"write it as a list, [{held}], or let both say the same: `set_special_tokens: {{eos: …}}` does"
        yield Finding("error", message, GENERATION, help_)


def _check_adapter(adapter: Snapshot, base: Snapshot) -> Iterator[Finding]:
    for kind, tensor in find_rows(adapter, base).items():
        # The head takes factors, as the layers do.
        if kind != "factor" or "lm_head" not in tensor:
            message = f"it leaves '{tensor}' of the adapter out, without a word"
            yield Finding("error", message, str(adapter.directory), BAKE)


TARGET = Target("text-generation-inference", "3.3.7", read)
