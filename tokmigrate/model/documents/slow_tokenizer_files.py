"""Files beside tokenizer.json that hold the vocabulary in a format of their own, and how they keep in step.

A SentencePiece model follows when its pieces stand in the order of ids, as in most models. Other files, and one whose
pieces have ids of another order, are left as they are, and no migration may then change what they hold. By
convention no such file holds the tokens that are added after its own: programs that read one find these in
tokenizer_config.json.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from tokmigrate.errors import OutOfStepError
from tokmigrate.files import entries, exists, has_directory, read_file
from tokmigrate.formatting import format_quoted
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.formats.sentencepiece import (
    ROLES,
    Algorithm,
    Kind,
    Piece,
    SentencePieceModel,
    is_sentencepiece,
)
from tokmigrate.model.tokenizer.tokenizer_json import FILE, Merge, Tokenizer, merges_of, model_kind
from tokmigrate.vocabulary.ids import AddedToken, Renumbering, is_tombstone

TEKKEN_FILES = "*tekken*.json"
SUFFIXES = (".model", ".spm", ".tiktoken")
READ_ALONE = "tokenizer.model"
"""The file that llama.cpp's converter reads in place of tokenizer.json."""
IN_ANOTHER_FORMAT = "remove the file if nothing reads it: tokenizer.json has all of its contents"


def read_slow_tokenizer_files(directory: Path) -> dict[str, bytes]:
    """Return the bytes of each such file of a model directory by its name."""
    named = [file for file in entries(directory) if file.suffix in SUFFIXES or file.match(TEKKEN_FILES)]
    files = {file.name: read_file(file) for file in named if not has_directory(file) and exists(file)}
    return {name: data for name, data in sorted(files.items()) if _format(name, data) is not None}


def with_slow_files_in_step(before: ModelState, after: ModelState, renumbering: Renumbering) -> ModelState:
    """Return `after`, whose tokenizer.json has changed, with each SentencePiece model in step with it.

    Raises:
        OutOfStepError: A file cannot follow.
    """
    old, new = before.tokenizer, after.tokenizer
    changed = {
        number for number, text in old.texts.items() if renumbering.touches(number) or new.texts.get(number) != text
    }
    for name, data in list_slow_files(before):
        if is_sentencepiece(data) and (model := SentencePieceModel.read(data, name)).is_in_order_of(old.texts):
            if any(number < len(model.pieces) for number in changed):
                after = after.with_document(name, _renumber(model, new, renumbering, name).data)
            continue
        held = _ids_held(name, data, old)
        token = next((old.texts[number] for number in sorted(changed) if number in held), None)
        if token is not None:
            raise OutOfStepError(
                f"it holds '{token}', whose id or text this migration changes, in a form that is not rewritten",
                where=name,
                hint=IN_ANOTHER_FORMAT,
            )
    return after


def with_merged_pieces(
    name: str, data: bytes, tokenizer: Tokenizer, new: Mapping[str, int]
) -> tuple[bytes, list[Merge]]:
    """Return a SentencePiece model with new pieces, and all merges of a tokenizer.json in step with it.

    SentencePiece joins any two neighbours whose text is a piece, that with the best score first. So the new pieces have
    the lowest scores, in their order, and each way to make one of two others is a merge.

    Args:
        tokenizer: tokenizer.json before the change.
        new: The texts of the pieces with their ids, in rising order: those of placeholders, or behind all others.

    Raises:
        OutOfStepError: The file cannot follow.
    """
    merges = merges_of(tokenizer.document["model"])
    model = _read_bpe(name, data, tokenizer, merges)
    score = min(piece.score for piece in model.pieces)
    pieces = [*model.pieces]
    for text, number in new.items():
        pieces += [_of_added_token(place, tokenizer, name) for place in range(len(pieces), number)]
        # A number of single precision that is lower.
        score -= max(1.0, abs(score) / 2**23)
        pieces[number : number + 1] = [Piece.new(text, Kind.NORMAL, score)]
    model = model.with_pieces(pieces)
    scores = {piece.text: piece.score for piece in model.pieces}
    known = set(merges)
    merges += [merge for merge in model.merges if merge not in known]
    # A new piece may be a part of an old one, whose score stays.
    return model.data, sorted(merges, key=lambda merge: -scores["".join(merge)])


def _read_bpe(name: str, data: bytes, tokenizer: Tokenizer, merges: Sequence[Merge]) -> SentencePieceModel:
    """Return a SentencePiece model that tokenizes text as the merges of tokenizer.json do; raises OutOfStepError."""
    reason = "it ranks tokens by their ids, and does not say which parts a token is merged from"
    if is_sentencepiece(data):
        model = SentencePieceModel.read(data, name)
        scores = {piece.text: piece.score for piece in model.pieces}
        if model.setting("model_type") != Algorithm.BPE:
            reason = "its pieces are not merged, as those of tokenizer.json are"
        elif not model.is_in_order_of(tokenizer.texts):
            reason = "its pieces have other ids than in tokenizer.json"
        elif {*merges} != {*model.merges} or any(
            scores["".join(left)] < scores["".join(right)] for left, right in pairwise(merges)
        ):
            reason = "its scores give other merges than tokenizer.json has: the two tokenize text differently already"
        else:
            return model
    raise OutOfStepError(f"no merges can be written into it: {reason}", where=name, hint=IN_ANOTHER_FORMAT)


def is_read_without_added_tokens(state: ModelState) -> bool:
    """Return whether a program that reads tokenizer.model does not see an added token, or not that it is special."""
    data = state.documents.get(READ_ALONE)
    if not isinstance(data, bytes) or not is_sentencepiece(data):
        return False
    pieces = SentencePieceModel.read(data, READ_ALONE).pieces
    added = state.tokenizer.added.values()
    return not all(number < len(pieces) and _says(pieces[number], token) for token, number in added)


def is_read_without_flags(state: ModelState) -> bool:
    """Return whether llama.cpp's converter reads tokenizer.json with `LlamaHfVocab` of gguf 0.19."""
    document = state.tokenizer.document
    is_sequence = (document.get("decoder") or {}).get("type") == "Sequence"
    falls_back = model_kind(document) == "BPE" and document["model"].get("byte_fallback")
    return bool(is_sequence and falls_back and READ_ALONE not in state.documents)


def slow_tokenizer_notes(before: ModelState, after: ModelState) -> Iterator[str]:
    """Yield what a program that reads only such a file does not see of a change."""
    files = list_slow_files(after)
    if not files:
        return
    new = [token for token in after.tokenizer.ids if token not in before.tokenizer.ids and not is_tombstone(token)]
    parts = ("normalizer", "pre_tokenizer")
    tokenizes_differently = any(before.documents[FILE].get(part) != after.documents[FILE].get(part) for part in parts)
    for name, data in files:
        kind = _format(name, data)
        reader = "transformers with mistral-common" if kind == "tekken" else f"a program that reads only {name}"
        held = _texts_held(name, data)
        unseen = [token for token in new if token not in held]
        if unseen:
            yield f"{name}: {reader} does not see {format_quoted(unseen, 1)}: added tokens are not written into it"
        if tokenizes_differently:
            yield f"{name}: {reader} tokenizes text as before: the file has rules of its own"


def is_tiktoken(data: bytes) -> bool:
    """Return whether a file begins like a tiktoken vocabulary: a token in base64, and its rank."""
    parts = data[:4096].split(b"\n", 1)[0].split()
    try:
        return len(parts) == 2 and bool(base64.b64decode(parts[0], validate=True)) and parts[1].isdigit()
    except binascii.Error:
        return False


def list_slow_files(state: ModelState) -> list[tuple[str, bytes]]:
    """Return the files that hold the vocabulary in a format of their own, by name."""
    return [(name, data) for name, data in state.documents.items() if isinstance(data, bytes)]


def _format(name: str, data: bytes) -> str | None:
    if is_sentencepiece(data):
        return "SentencePiece"
    if name.endswith(".json"):
        return "tekken"
    return "tiktoken" if is_tiktoken(data) else None


def _ids_held(name: str, data: bytes, tokenizer: Tokenizer) -> set[int]:
    """Return the ids whose tokens a file that does not follow has, in whatever order."""
    if is_sentencepiece(data):
        held = _texts_held(name, data)
        return {number for number, text in tokenizer.texts.items() if text in held}
    if is_tiktoken(data):
        return set(range(sum(1 for line in data.splitlines() if line.strip())))
    tekken = json.loads(data)
    size = (tekken.get("config") or {}).get("default_vocab_size")
    return set(range(size or len(tekken.get("vocab") or []) + len(tekken.get("special_tokens") or [])))


def _texts_held(name: str, data: bytes) -> frozenset[str]:
    if is_sentencepiece(data):
        return frozenset(piece.text for piece in SentencePieceModel.read(data, name).pieces)
    if name.endswith(".json"):
        return frozenset(special.get("token_str") for special in json.loads(data).get("special_tokens") or [])
    return frozenset()


def _renumber(model: SentencePieceModel, new: Tokenizer, renumbering: Renumbering, name: str) -> SentencePieceModel:
    """Return a model whose pieces have the ids and texts that their tokens have in `new`."""
    moved = {
        place: _rename(piece, new.texts[place])
        for number, piece in enumerate(model.pieces)
        if (place := renumbering.new(number)) is not None
    }
    for place in range(max(moved) + 1):
        if place not in moved:
            moved[place] = _of_added_token(place, new, name)
    followed = model.with_pieces([moved[place] for place in sorted(moved)])
    for role in ROLES:
        number = model.role_id(role)
        place = renumbering.new(number) if number >= 0 else None
        if place is None or is_tombstone(moved[place].text):
            followed = followed.with_role_id(role, -1)
            continue
        followed = followed.with_role_id(role, place)
        if moved[place].text != model.pieces[number].text == model.role_text(role):
            followed = followed.with_role_text(role, moved[place].text)
    return followed


def _rename(piece: Piece, text: str) -> Piece:
    if text == piece.text:
        return piece
    # A placeholder stands for no text.
    return Piece.new(text, Kind.CONTROL) if is_tombstone(text) else piece.with_text(text)


def _of_added_token(number: int, tokenizer: Tokenizer, name: str) -> Piece:
    """Return the piece of an added token that comes to stand among the pieces."""
    found = tokenizer.added.get(tokenizer.texts.get(number, ""))
    if found is None:
        raise OutOfStepError(
            f"id {number} would be left without a piece",
            where=name,
            hint=f"move another token there in the same operation, or {IN_ANOTHER_FORMAT}",
        )
    return Piece.new(found[0].content, Kind.CONTROL if found[0].special else Kind.USER_DEFINED)


def _says(piece: Piece, token: AddedToken) -> bool:
    """Return whether a piece has the text of an added token, and is found in no text."""
    return token.special and piece.text == token.content and piece.kind in (Kind.CONTROL, Kind.UNKNOWN)
