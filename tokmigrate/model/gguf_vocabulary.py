"""What a GGUF says of a vocabulary, compared with a model, and what a migration makes of it.

The texts, types and scores of new tokens are those that llama.cpp's converter gives them: `get_vocab_base` and
`_create_vocab_sentencepiece` of convert_hf_to_gguf.py in ggml-org/llama.cpp, commit a458664fc83b. Those of the other
tokens stay as the file has them, whatever converter wrote it.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NoReturn

from tokmigrate.errors import ModelError, OperationError, OutOfStepError
from tokmigrate.model.documents.chat_template import read_chat_templates
from tokmigrate.model.documents.roles import ROLES, Role, special_token
from tokmigrate.model.documents.slow_tokenizer_files import READ_ALONE
from tokmigrate.model.documents.state import CONFIG, TOKENIZER_CONFIG, ModelState
from tokmigrate.model.formats.gguf import Head, Kind, Number, Value
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.formats.sentencepiece import Kind as Type
from tokmigrate.model.formats.sentencepiece import SentencePieceModel
from tokmigrate.model.tokenizer.byte_level import text_of_letters
from tokmigrate.model.tokenizer.tokenizer_json import BYTE, FILE, merges_of

TOKENS = "tokenizer.ggml.tokens"
TYPES = "tokenizer.ggml.token_type"
SCORES = "tokenizer.ggml.scores"
MERGES = "tokenizer.ggml.merges"
MODEL = "tokenizer.ggml.model"
TEMPLATE = "tokenizer.chat_template"
AGAIN = "remove `follow: true` in tokmigrate.yaml, and convert the model again after the migration"
"""What to do where a GGUF cannot follow."""

_BYTE_LEVEL, _SENTENCEPIECE = "gpt2", "llama"
_ID = re.compile(r".+_token_ids?")
_SPELLED = {"unk": "unknown", "sep": "seperator", "pad": "padding"}
"""How GGUF spells roles, where otherwise than transformers."""

_BYTES = (Kind.UINT8, Kind.INT8)
_INTEGERS = (*_BYTES, Kind.UINT16, Kind.INT16, Kind.UINT32, Kind.INT32, Kind.UINT64, Kind.INT64)
_FLAGS = ("add_bos_token", "add_eos_token", "add_sep_token")
_ADDED_SCORE, _SPARE_SCORE = -1000.0, -10000.0


_Change = tuple[str, Value | None]


_Token = tuple[str, Number, Number]
"""Text, type and score of a token."""


def check_vocabulary(head: Head, state: ModelState, where: str) -> None:
    """Check that a GGUF has the tokens of a model.

    Raises:
        ModelError: It is of a kind of tokenizer that cannot follow.
        OutOfStepError: An id has another token.
    """
    kind = head.text(MODEL)
    if kind not in (_BYTE_LEVEL, _SENTENCEPIECE):
        raise ModelError(
            f"its tokenizer is '{kind}', and only '{_BYTE_LEVEL}' (byte-level BPE) and '{_SENTENCEPIECE}'"
            " (SentencePiece) can follow",
            where=where,
            hint=AGAIN,
        )
    tokens = _read_tokens(head, where)
    if len(tokens) != state.rows:
        message = f"it has {len(tokens)} tokens, the model has {state.rows} rows"
        raise OutOfStepError(message, where=where, hint=f"convert the model as it is now; or {AGAIN}")
    ours = state.tokenizer.texts
    for number, (theirs, type_, _) in enumerate(tokens):
        text = ours.get(number)
        if theirs == text:
            continue
        if text is None:
            is_right = type_ == Type.UNUSED or theirs == f"[PAD{number}]"
        else:
            is_right = text in state.tokenizer.added and theirs in spellings(text)
        if not is_right:
            held = "no token" if text is None else f"'{text}'"
            raise OutOfStepError(
                f"id {number} is {held} in the model, '{theirs}' in the GGUF",
                where=where,
                hint=f"convert the model as it is now; or {AGAIN}",
            )
    for key, value in head.pairs.items():
        if value.count == len(tokens) and key not in (TOKENS, TYPES, SCORES, MERGES):
            raise ModelError(
                f"'{key}' has an item for each token, and its meaning is not known", where=where, hint=AGAIN
            )
        if key == "tokenizer.huggingface.json":
            raise ModelError(f"'{key}' holds a whole tokenizer, which is not changed", where=where, hint=AGAIN)


def migrate_pairs(head: Head, before: ModelState, after: ModelState, where: str) -> dict[str, Value | None]:
    """Return the values that a migration changes, None for a key that goes.

    Raises:
        OperationError: The migration changes what a GGUF cannot express, or what is not as in the model.
    """
    _refuse_pipeline_changes(before, after, where)
    parts = (_migrate_tokens, _migrate_merges, _migrate_ids, _migrate_template, _migrate_flags, _migrate_sizes)
    try:
        return {key: value for migrate in parts for key, value in migrate(head, before, after, where)}
    except struct.error:
        _refuse("an id or a size would not fit where the GGUF has it", where)
    except UnicodeDecodeError:
        _refuse("a text that would be changed is not UTF-8", where)


def _refuse(message: str, where: str) -> NoReturn:
    raise OperationError(message, where=where, hint=AGAIN)


def _read_tokens(head: Head, where: str) -> list[_Token]:
    """Return text, type and score of each id; raises ModelError where the lists are missing or have other lengths."""
    try:
        texts = head.pairs[TOKENS].texts
        types = head.pairs[TYPES].numbers if TYPES in head.pairs else (Type.NORMAL,) * len(texts)
        scores = head.pairs[SCORES].numbers if SCORES in head.pairs else (0.0,) * len(texts)
        return list(zip(texts, types, scores, strict=True))
    except (KeyError, ValueError, struct.error) as error:
        message = "its lists of tokens, types and scores are missing, damaged or of different lengths"
        raise ModelError(message, where=where, hint="convert the model again") from error


def spellings(text: str) -> set[str]:
    """Return how converters write an added token."""
    return {each.replace("\u2581", " ") for each in (text, text_of_letters(text))} | {text_of_letters(text)}


def _migrate_tokens(head: Head, before: ModelState, after: ModelState, where: str) -> Iterator[_Change]:
    if after.tokenizer is before.tokenizer and after.rows == before.rows:
        return
    old = _read_tokens(head, where)
    ids, added = before.tokenizer.ids, {*before.tokenizer.added, *after.tokenizer.added}
    others = {text for text in added if _flags(before, text) != _flags(after, text)}

    def find(number: int) -> _Token:
        text = after.tokenizer.texts.get(number)
        known = None if text is None or text in others else ids.get(text)
        return _make_token(number, text, head, old, before, after, where) if known is None else old[known]

    tokens = list(map(find, range(after.rows)))
    texts = [text for text, _, _ in tokens]
    if len(set(texts)) < len(texts) and len({text for text, _, _ in old}) == len(old):
        ((twice, _),) = Counter(texts).most_common(1)
        _refuse(f"two ids would have the text '{twice}'", where)
    if tokens == old:
        return
    yield TOKENS, Value.of_texts(texts)
    if TYPES in head.pairs:
        yield TYPES, head.pairs[TYPES].with_numbers([type_ for _, type_, _ in tokens])
    if SCORES in head.pairs:
        yield SCORES, head.pairs[SCORES].with_numbers([score for _, _, score in tokens])


def _make_token(
    number: int,
    text: str | None,
    head: Head,
    old: Sequence[_Token],
    before: ModelState,
    after: ModelState,
    where: str,
) -> _Token:
    """Return the token of an id that the GGUF does not have, or has with other flags."""
    if text is None:
        was_spare = number < before.rows and number not in before.tokenizer.texts
        return old[number] if was_spare else (f"[PAD{number}]", Type.UNUSED, _SPARE_SCORE)
    has_pieces = head.text(MODEL) == _SENTENCEPIECE
    if text in after.tokenizer.added:
        token, _ = after.tokenizer.added[text]
        written = text if has_pieces or token.normalized else text_of_letters(text)
        return *write_added(written, is_special=token.special), _ADDED_SCORE
    if not has_pieces:
        return text, Type.NORMAL, 0.0
    kind = Type.BYTE if BYTE.fullmatch(text) else Type.NORMAL
    return (text, kind, _score(after, text, where) if SCORES in head.pairs else 0.0)


def _flags(state: ModelState, text: str) -> tuple[bool, bool] | None:
    """Return what of an added token decides how it is written, None for a token of the model's vocabulary."""
    entry = state.tokenizer.added.get(text)
    return (entry[0].special, entry[0].normalized) if entry else None


def write_added(text: str, *, is_special: bool) -> tuple[str, Type]:
    """Return the text and type that the converter gives an added token, of which `text` is what it decodes to."""
    if is_special or looks_special(text):
        return text, Type.CONTROL
    return text.replace("\u2581", " "), Type.USER_DEFINED


def looks_special(text: str) -> bool:
    """Return what `does_token_look_special` of the converter returns."""
    around = (("<|", "|>"), ("<\uff5c", "\uff5c>"), ("<unused", ">"))
    named = ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
    return text in named or any(text.startswith(begin) and text.endswith(end) for begin, end in around)


def _score(state: ModelState, text: str, where: str) -> float:
    """Return the score of a new piece, which only tokenizer.model has."""
    data = state.documents.get(READ_ALONE)
    pieces = SentencePieceModel.read(data, READ_ALONE).pieces if isinstance(data, bytes) else ()
    for piece in pieces:
        if piece.text == text:
            return piece.score
    _refuse(f"the new token '{text}' has no score, which only {READ_ALONE} holds", where)


def _migrate_merges(head: Head, before: ModelState, after: ModelState, where: str) -> Iterator[_Change]:
    # Compared as they are first: to spell hundreds of thousands takes a second.
    was, now = (state.documents[FILE]["model"].get("merges") for state in (before, after))
    if was == now or (MERGES not in head.pairs and head.text(MODEL) == _SENTENCEPIECE):
        return
    if MERGES not in head.pairs or list(head.pairs[MERGES].texts) != _format_merges(before):
        _refuse("the migration changes merges, and its own are not those of the model", where)
    yield MERGES, Value.of_texts(_format_merges(after))


def _format_merges(state: ModelState) -> list[str]:
    """Return the merges as the converter writes them: a space in a part is the letter for it."""
    parts = merges_of(state.documents[FILE]["model"])
    return [" ".join(part.replace(" ", "\u0120") for part in merge) for merge in parts]


def _migrate_ids(head: Head, before: ModelState, after: ModelState, where: str) -> Iterator[_Change]:
    positions = after.edit.positions()

    def find(number: int) -> int | None:
        """Return where the token of an id is afterwards, None where it is removed."""
        text = before.tokenizer.texts.get(number, "")
        return after.tokenizer.ids.get(text, positions.get(number))

    settled: set[str] = set()
    for role in ROLES:
        key = f"tokenizer.ggml.{_SPELLED.get(role, role)}_token_id"
        was, now = (_role_id(state, role) for state in (before, after))
        if now == (None if was is None else find(was)):
            continue
        held = head.pairs.get(key)
        if held is not None and (held.count is not None or held.numbers != (was,)):
            _refuse(f"the migration gives another token the role {role}, and '{key}' is not what the model has", where)
        value = held or Value(Kind.UINT32, bytes(4))
        yield key, None if now is None else value.with_numbers([now])
        settled.add(key)
    for key, value in head.pairs.items():
        is_id = _ID.fullmatch(key) is not None
        if key in settled or value.kind not in _INTEGERS or not (is_id or _is_unknown_list(key, value)):
            continue
        numbers = [find(int(number)) if 0 <= number < before.rows else number for number in value.numbers]
        if not is_id:
            if tuple(numbers) != value.numbers:
                _refuse(f"whether '{key}' holds ids is not known, and the migration moves what they would be", where)
            continue
        if None in numbers:
            _refuse(f"'{key}' names a token that the migration removes", where)
        yield key, value.with_numbers([number for number in numbers if number is not None])


def _is_unknown_list(key: str, value: Value) -> bool:
    # An array of bytes is a table for normalization.
    is_list = value.count is not None and value.kind not in _BYTES
    return is_list and key.startswith("tokenizer.") and key not in (TYPES, SCORES)


def _role_id(state: ModelState, role: Role) -> int | None:
    """Return the id of a role as the converter finds it: of an added token, else from config.json."""
    added = state.tokenizer.added.get(special_token(state, role) or "")
    if added is not None:
        return added[1]
    config = state.documents[CONFIG]
    found = config.get(f"{role}_token_id", (config.get("text_config") or {}).get(f"{role}_token_id"))
    return found if isinstance(found, int) else None


def _migrate_template(head: Head, before: ModelState, after: ModelState, where: str) -> Iterator[_Change]:
    was, now = (read_chat_templates(state.documents) for state in (before, after))
    if was == now:
        return
    if {**was, "default": ""} != {**now, "default": ""}:
        _refuse("the migration changes a chat template besides the default one", where)
    if head.text(TEMPLATE) != was.get("default"):
        _refuse("the migration changes the chat template, and its own is not that of the model", where)
    yield TEMPLATE, Value.of_text(now["default"]) if "default" in now else None


def _migrate_flags(head: Head, before: ModelState, after: ModelState, where: str) -> Iterator[_Change]:
    was, now = (state.documents.get(TOKENIZER_CONFIG) or {} for state in (before, after))
    for flag in _FLAGS:
        if was.get(flag) == now.get(flag):
            continue
        key = f"tokenizer.ggml.{flag}"
        held = head.pairs.get(key)
        if (held.numbers if held else (None,)) != (was.get(flag),):
            _refuse(f"the migration changes `{flag}`, and '{key}' is not what the model has", where)
        yield key, None if now.get(flag) is None else Value(Kind.BOOL, bytes([bool(now[flag])]))


def _migrate_sizes(head: Head, before: ModelState, after: ModelState, where: str) -> Iterator[_Change]:
    if before.rows == after.rows:
        return
    for key, value in head.pairs.items():
        if key.endswith(".vocab_size"):
            if value.count is not None or value.numbers != (before.rows,):
                _refuse(f"'{key}' is not the {before.rows} rows that the model has", where)
            yield key, value.with_numbers([after.rows])


def _refuse_pipeline_changes(before: ModelState, after: ModelState, where: str) -> None:
    was, now = (state.documents[FILE] for state in (before, after))
    if was is now:
        return
    for section in ("normalizer", "pre_tokenizer", "decoder"):
        if was.get(section) != now.get(section):
            _refuse(f"the migration changes the {section}, and a GGUF has only the name of a known one", where)
    if _describe_processor(before) != _describe_processor(after):
        _refuse("the migration changes the post-processor, and a GGUF has only what is added before and after", where)
    ignored = ("vocab", "merges", "unk_token", "unk_id")
    fields = [{key: held for key, held in each["model"].items() if key not in ignored} for each in (was, now)]
    if fields[0] != fields[1]:
        _refuse("the migration changes how the tokenizer's model works, which a GGUF does not hold", where)


def _describe_processor(state: ModelState) -> Json:
    """Return the post-processor without ids, and with the roles of tokens for their texts."""
    roles = {special_token(state, role): f"<{role}>" for role in reversed(ROLES)}

    def describe(value: Json, key: str = "") -> Json:
        if isinstance(value, dict):
            return {roles.get(name, name): describe(held, name) for name, held in value.items()}
        if isinstance(value, list):
            return [describe(held, key) for held in value]
        if isinstance(value, str):
            return roles.get(value, value)
        return value if key == "type_id" or isinstance(value, bool) else None

    return describe(state.documents[FILE].get("post_processor"))
