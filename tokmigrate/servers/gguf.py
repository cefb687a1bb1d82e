"""llama.cpp: what its converter writes into a GGUF of a model, and what llama.cpp does with that.

conversion/ of ggml-org/llama.cpp, commit 00bd27a621f9 (tokens, pre-tokenizer); gguf/vocab.py of gguf 0.19.0,
`SpecialVocab` (roles, chat template); src/llama-vocab.cpp, commit 00ad355e009e (loading, end of generation).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tokmigrate.formatting import format_count, format_quoted
from tokmigrate.model.documents.chat_template import read_chat_templates
from tokmigrate.model.documents.roles import ROLES, special_token, text_of
from tokmigrate.model.documents.slow_tokenizer_files import READ_ALONE
from tokmigrate.model.documents.state import CONFIG, GENERATION, TEMPLATE, TOKENIZER_CONFIG, ModelState
from tokmigrate.model.formats.sentencepiece import Kind as Type
from tokmigrate.model.gguf_vocabulary import looks_special
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.servers.finding import BAKE, SET_TEMPLATE, Finding, Reading, Subject, Target, find_rows
from tokmigrate.servers.gguf_tokens import (
    PLACEHOLDER,
    TokenList,
    find_architecture,
    is_known,
    is_written_as,
    list_parameters,
    read_tokens,
    take_mapping,
)
from tokmigrate.servers.pre_tokenizers import digest_of, find_pre_tokenizer

_ENDS = (
    "<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> </s> "
    "<|eom_id|> <EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response> "
    "<\uff5cend\u2581of\u2581sentence\uff5c> [e~["
)
"""The tokens at which llama.cpp stops by their text."""

_COMPARE = "compare the tokens of the GGUF with tokenizer.json: list it under `copies:`, and run `tokmigrate status`"
_WRITE_THERE = "`tokmigrate upgrade` writes what the converter reads; after a change by hand add the token there too"


def read(subject: Subject) -> Reading:
    """Return what the converter writes of a model, and what is lost."""
    state = subject.snapshot.state
    tokens = read_tokens(subject)
    if tokens is None:
        return Reading("reads no tokenizer", tuple(_explain_nothing(state)))
    counts = Counter(token.type for token in tokens.tokens)
    types = ", ".join(f"{counts[kind]:,} {kind.name.lower().replace('_', '-')}" for kind in Type if counts[kind])
    pre = find_pre_tokenizer(subject.loaded.check_ids) if tokens.has_digest else "default"
    summary = f"reads {len(tokens.tokens):,} tokens from {tokens.file} ({types}), pre-tokenizer {pre or 'unknown'}"
    findings = (
        *_check_class(state),
        *_check_tokens(state, tokens),
        *_check_types(state, tokens),
        *_check_size(subject, tokens),
        *_check_pre_tokenizer(subject, tokens),
        *_check_roles(state, tokens),
        *_check_ends(state, tokens),
        *_check_flags(state),
        *_check_template(state),
        *_check_adapters(subject),
    )
    return Reading(summary, findings)


def _explain_nothing(state: ModelState) -> Iterator[Finding]:
    architecture = find_architecture(state.documents[CONFIG])
    if is_known(architecture):
        message = f"the converter reads {READ_ALONE} for {architecture}, and stops without it"
        help_ = f"put the {READ_ALONE} of the original model beside tokenizer.json, and stamp the model"
        yield Finding("error", message, READ_ALONE, help_)
    else:
        message = f"how the converter reads the tokenizer of {architecture or 'this model'} is not known here"
        yield Finding("warning", message, FILE, _COMPARE)


def _check_class(state: ModelState) -> Iterator[Finding]:
    architecture = find_architecture(state.documents[CONFIG])
    if architecture is None:
        message = "the converter stops: config.json does not say the architecture"
        yield Finding("error", message, CONFIG, "add `architectures`, as the original model has it")
    elif not is_known(architecture):
        message = f"the rules here are those of the converter's base class; that of {architecture} is not known"
        yield Finding("warning", message, CONFIG, _COMPARE)


def _check_tokens(state: ModelState, tokens: TokenList) -> Iterator[Finding]:
    """Yield the tokens that the list does not have at their ids."""
    lost, changed, marked = [], [], []
    for text, number in sorted(state.tokenizer.ids.items(), key=lambda item: item[1]):
        written = tokens.tokens[number].text if number < len(tokens.tokens) else PLACEHOLDER
        if written.startswith(PLACEHOLDER) and written != text:
            lost.append(text)
        elif text in state.tokenizer.added and written == f"\u2581{text}":
            marked.append(text)
        elif not is_written_as(state.tokenizer, text, written):
            changed.append(text)
    if lost:
        message = f"placeholders such as [PAD7] take the place of {_name(lost, 'token')}"
        yield Finding("error", message, tokens.file, _WRITE_THERE)
    if changed:
        yield Finding("error", f"another text is written for {_name(changed, 'token')}", tokens.file, _WRITE_THERE)
    if marked:
        message = f"a mark, which text does not have, is written before {_name(marked, 'added token')}"
        yield Finding("error", message, tokens.file, "make them special: `set_token_flags`")
    texts = Counter(token.text for token in tokens.tokens)
    if twice := [text for text, times in texts.items() if times > 1]:
        message = f"llama.cpp stops at a text that two ids have: {format_quoted(twice)}"
        yield Finding("error", message, tokens.file, "rename one of the two tokens: `rename_tokens`")


def _name(texts: Sequence[str], noun: str) -> str:
    return f"{format_count(len(texts), noun)}: {format_quoted(texts)}"


def _check_types(state: ModelState, tokens: TokenList) -> Iterator[Finding]:
    """Yield added tokens whose type is not what their flag says: a control token has no text, and others have one."""
    shown, hidden = [], []
    for text, (token, number) in state.tokenizer.added.items():
        kind = tokens.tokens[number].type if number < len(tokens.tokens) else Type.UNUSED
        # A placeholder is reported as one.
        if kind not in (Type.UNKNOWN, Type.UNUSED):
            is_control = kind is Type.CONTROL
            # llama.cpp makes control tokens of those at which it stops.
            shown += [text] if token.special and not is_control and text not in _ENDS.split() else []
            hidden += [text] if is_control and not token.special else []
    if shown:
        message = f"the flag is lost, and the text is printed, of {_name(shown, 'special token')}"
        help_ = (
            "give each a role, or list it in `extra_special_tokens` of tokenizer_config.json: `set_token_flags` does"
        )
        yield Finding("error", message, tokens.file, help_)
    if hidden:
        why = "since it looks special" if all(map(looks_special, hidden)) else f"by {tokens.file}"
        message = f"the text of {format_count(len(hidden), 'token')} is not printed, {why}: {format_quoted(hidden)}"
        help_ = "make them special (`set_token_flags`), or give them texts without <| and |>"
        yield Finding("warning", message, tokens.file, help_)


def _check_size(subject: Subject, tokens: TokenList) -> Iterator[Finding]:
    state = subject.snapshot.state
    size, rows = list_parameters(state.documents[CONFIG]).get("vocab_size"), state.rows
    if tokens.has_digest and isinstance(size, int) and state.tokenizer.highest >= size:
        message = f"the converter stops: the id {state.tokenizer.highest} is not below `vocab_size`, {size}"
        yield Finding("error", message, CONFIG, "give config.json the number of rows, or remove the tokens behind it")
    if len(tokens.tokens) != rows:
        yield Finding(
            "error",
            f"llama.cpp does not load the GGUF: it has {len(tokens.tokens):,} tokens, and {rows:,} rows",
            tokens.file,
            f"put the model's {READ_ALONE} beside tokenizer.json, or remove the rows without a token: `resize_vocab`",
        )
    if not tokens.has_merges:
        message = f"{tokens.method} writes neither merges nor scores: llama.cpp may tokenize text differently"
        yield Finding("warning", message, tokens.file, f"put the model's {READ_ALONE} beside tokenizer.json")


def _check_pre_tokenizer(subject: Subject, tokens: TokenList) -> Iterator[Finding]:
    ids = subject.loaded.check_ids
    if tokens.has_digest and ids and find_pre_tokenizer(ids) is None:
        yield Finding(
            "error",
            f"the converter stops: it does not know this pre-tokenizer, by its digest {digest_of(ids)}",
            tokens.file,
            "a newer converter may know it; moved ids, new merges and another post-processor change the digest: give "
            "it the name of the original pre-tokenizer in get_vocab_base_pre of conversion/base.py",
        )


def _check_roles(state: ModelState, tokens: TokenList) -> Iterator[Finding]:
    ids, adds = list_roles(state, len(tokens.tokens))
    for role in ROLES:
        text = special_token(state, role)
        number = state.tokenizer.ids.get(text) if text else None
        if number is not None and ids.get(role) != number:
            found = "none" if role not in ids else f"{ids[role]} ('{state.tokenizer.texts.get(ids[role], '')}')"
            message = f"the GGUF gets another `{role}`: {found}, and transformers takes {number} ('{text}')"
            help_ = f"set it with `set_special_tokens: {{{role}: …}}`; what a template puts at the end replaces `eos`"
            yield Finding("error" if role in ("bos", "eos") else "warning", message, TOKENIZER_CONFIG, help_)
    for name in (name for name, is_added in adds.items() if is_added and name not in ids):
        yield Finding(
            "error",
            f"`add_{name}_token` is true, and the GGUF has no `{name}` token: llama.cpp takes another one, or stops",
            TOKENIZER_CONFIG,
            f"set one with `set_special_tokens`, or set `add_{name}_token` to false",
        )


def list_roles(state: ModelState, size: int) -> tuple[dict[str, int], dict[str, bool]]:
    """Return the id of each role, and which of them are put around a text, as gguf's `SpecialVocab` finds them."""
    config: dict[str, Any] = dict(state.documents.get(TOKENIZER_CONFIG) or {})
    added = {text: number for text, (_, number) in reversed(state.tokenizer.added.items())}
    roles, adds = [*ROLES], dict[str, bool]()
    if config:
        _apply_post_processor(state, config, roles, adds)
    ids: dict[str, int] = {}
    for role in roles if config else ():
        if isinstance(config.get(f"add_{role}_token"), bool):
            adds[role] = config[f"add_{role}_token"]
        number = added.get(text_of(config.get(f"{role}_token")) or "")
        if number is not None and number < size:
            ids[role] = number
    model = state.documents[CONFIG]
    for role in roles:
        number = model.get(f"{role}_token_id")
        number = take_mapping(model.get("text_config")).get(f"{role}_token_id") if number is None else number
        if isinstance(number, int) and number < size:
            ids.setdefault(role, number)
    return ids, adds


def _apply_post_processor(state: ModelState, config: dict[str, Any], roles: list[Any], adds: dict[str, bool]) -> None:
    """Change roles as the converter does for what stands around a text."""
    config["bos_token"] = config.get("bos_token") or config.get("cls_token")
    config["eos_token"] = config.get("eos_token") or config.get("sep_token")
    whole: Mapping[str, Any] = state.tokenizer.document.get("post_processor") or {}
    for part in whole.get("processors", [whole]):
        if part.get("type") == "RobertaProcessing":
            adds.update(dict.fromkeys(("bos", "eos", "sep"), True))
            config.update({f"{role}_token": config.get(f"{role}_token") or part[role][0] for role in ("cls", "sep")})
        single = part.get("single") or []
        if part.get("type") != "TemplateProcessing" or len(single) < 2:
            continue
        first, last = (single[place].get("SpecialToken", {}).get("id") for place in (0, -1))
        if first:
            adds["bos"] = first in (config["bos_token"], config.get("cls_token"))
        if last and last != config["eos_token"]:
            roles.append("eot" if "eot" not in roles else "eom")
            config[f"{roles[-1]}_token"], config["eos_token"] = config["eos_token"], last
        if last:
            adds["eos"] = True


def _check_ends(state: ModelState, tokens: TokenList) -> Iterator[Finding]:
    held = (state.documents.get(GENERATION) or {}).get("eos_token_id")
    ids, _ = list_roles(state, len(tokens.tokens))
    stops = {ids[role] for role in ("eos", "eot", "eom") if role in ids}
    texts = state.tokenizer.texts
    for number in held if isinstance(held, list) else []:
        text = texts.get(number) if isinstance(number, int) else None
        if text is not None and number not in stops and text not in _ENDS.split():
            message = f"llama.cpp does not stop at '{text}' ({number}), as `eos_token_id` says"
            help_ = "make it the `eos` token, or name it as a stop text in the request"
            yield Finding("warning", message, GENERATION, help_)


def _check_flags(state: ModelState) -> Iterator[Finding]:
    flags = ("single_word", "lstrip", "rstrip")
    held = [text for text, (token, _) in state.tokenizer.added.items() if any(getattr(token, flag) for flag in flags)]
    if held:
        message = f"a GGUF has no {', '.join(flags)}: {format_quoted(held)} match differently"
        help_ = "leave these flags out where the model is served with llama.cpp: `set_token_flags`"
        yield Finding("warning", message, FILE, help_)


def _check_template(state: ModelState) -> Iterator[Finding]:
    ours = read_chat_templates(state.documents)
    config = state.documents.get(TOKENIZER_CONFIG) or {}
    held = config.get("chat_template")
    named = {each["name"]: each["template"] for each in held} if isinstance(held, list) else {"default": held}
    if ours and not config:
        message = f"the converter reads no chat template where {TOKENIZER_CONFIG} is missing or empty"
        yield Finding("error", message, TEMPLATE, "write one that is not empty, as `save_pretrained` does")
    elif ours and "chat_template" in config and named.get("default") != ours.get("default"):
        message = f"the converter takes the template of {TOKENIZER_CONFIG}, and transformers another one"
        yield Finding("error", message, TOKENIZER_CONFIG, SET_TEMPLATE)


def _check_adapters(subject: Subject) -> Iterator[Finding]:
    for adapter in subject.adapters:
        for kind, tensor in find_rows(adapter, subject.snapshot).items():
            if kind != "factor":
                message = f"convert_lora_to_gguf.py stops at '{tensor}', which is no factor"
                yield Finding("error", message, str(adapter.directory), BAKE)


TARGET = Target("llama.cpp", "commit 00bd27a621f9, gguf 0.19.0", read, needs_loading=True)
