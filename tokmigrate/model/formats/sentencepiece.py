"""A SentencePiece model as a document: its pieces, whose place is their id; what is not changed keeps its bytes.

Format: `sentencepiece_model.proto` of google/sentencepiece, ModelProto.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from enum import IntEnum
from functools import cached_property, lru_cache
from typing import NamedTuple

from tokmigrate.errors import TokenizerError
from tokmigrate.memo import forget_with_all
from tokmigrate.model.formats.protobuf import (
    DAMAGED,
    Field,
    Message,
    bytes_field,
    float_field,
    number_field,
    read_fields,
)

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_TEXT, _SCORE, _KIND = 1, 2, 3
_VOCAB_SIZE = 4


class Kind(IntEnum):
    """What a piece is for, as `ModelProto.SentencePiece.Type` numbers it."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Algorithm(IntEnum):
    """How text is tokenized, as `TrainerSpec.ModelType` numbers it."""

    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


class Role(NamedTuple):
    """A piece with a role: the trainer's fields with its id and its text, and both where these say nothing."""

    id_field: int
    text_field: int
    id: int
    text: str


ROLES: Mapping[str, Role] = {
    "unk": Role(40, 45, 0, "<unk>"),
    "bos": Role(41, 46, 1, "<s>"),
    "eos": Role(42, 47, 2, "</s>"),
    "pad": Role(43, 48, -1, "<pad>"),
}

_SETTINGS: Mapping[str, tuple[int, int, int]] = {
    "model_type": (_TRAINER, 3, Algorithm.UNIGRAM),
    "treat_whitespace_as_suffix": (_TRAINER, 24, 0),
    "byte_fallback": (_TRAINER, 35, 0),
    "add_dummy_prefix": (_NORMALIZER, 3, 1),
    "remove_extra_whitespaces": (_NORMALIZER, 4, 1),
    "escape_whitespaces": (_NORMALIZER, 5, 1),
}
"""The part and the field of each setting, and its value where it is not given."""


class Piece(Message):
    """One piece: its text, its score, and what it is for."""

    @staticmethod
    def new(text: str, kind: Kind, score: float = 0.0) -> Piece:
        """Return a piece; one that is not made of others has no score."""
        fields = (bytes_field(_TEXT, text.encode()), float_field(_SCORE, score), number_field(_KIND, kind))
        return Piece(b"".join(field.raw for field in fields))

    @cached_property
    def text(self) -> str:
        return self.octets(_TEXT).decode()

    @property
    def score(self) -> float:
        """Its score: a logarithm of its probability, or the rank of its merge."""
        return float(struct.unpack("<f", self.octets(_SCORE, bytes(4)))[0])

    @property
    def kind(self) -> Kind:
        return Kind(self.integer(_KIND, Kind.NORMAL))

    def with_text(self, text: str) -> Piece:
        return Piece(self.with_field(bytes_field(_TEXT, text.encode())))


class SentencePieceModel(Message):
    """The file of a SentencePiece model."""

    @staticmethod
    # One step of a migration reads the model before it changes, and the one after.
    @lru_cache(maxsize=2)
    def read(data: bytes, where: str) -> SentencePieceModel:
        """Return the model that a file holds; raises TokenizerError where it holds none."""
        try:
            model = SentencePieceModel(data)
            has_pieces = bool(model.pieces) and all(piece.text for piece in model.pieces)
        except (TokenizerError, ValueError) as error:
            raise TokenizerError(f"not a SentencePiece model: {error}", where=where, hint=DAMAGED) from error
        if not has_pieces:
            raise TokenizerError("not a SentencePiece model: it has no pieces", where=where, hint=DAMAGED)
        return model

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """The pieces; the place of each is its id."""
        return tuple(Piece(field.data) for field in self.fields if field.number == _PIECES)

    @cached_property
    def _trainer(self) -> Message:
        return Message(self.octets(_TRAINER))

    @cached_property
    def _normalizer(self) -> Message:
        return Message(self.octets(_NORMALIZER))

    def setting(self, name: str) -> int:
        """Return the value of a setting of `_SETTINGS`, by SentencePiece's name."""
        part, number, default = _SETTINGS[name]
        return (self._trainer if part == _TRAINER else self._normalizer).integer(number, default)

    @property
    def charsmap(self) -> bytes:
        """The compiled table of characters that stand for others, empty where there is none."""
        return self._normalizer.octets(2)

    @cached_property
    def merges(self) -> tuple[tuple[str, str], ...]:
        """The merges of a BPE model: each way to make a piece of two others, the best score first."""
        ids = {piece.text: number for number, piece in enumerate(self.pieces) if piece.kind is Kind.NORMAL}
        found = [
            (-self.pieces[number].score, number, ids[text[:cut]], ids[text[cut:]])
            for text, number in ids.items()
            for cut in range(1, len(text))
            if text[:cut] in ids and text[cut:] in ids
        ]
        return tuple((self.pieces[left].text, self.pieces[right].text) for _, _, left, right in sorted(found))

    def is_in_order_of(self, texts: Mapping[int, str]) -> bool:
        """Return whether the place of every piece is the id that `texts` gives it."""
        return all(texts.get(number) == piece.text for number, piece in enumerate(self.pieces))

    def role_id(self, role: str) -> int:
        """Return the id of the piece with a role of `ROLES`, -1 where there is none."""
        # The field holds 32 bits in two's complement.
        value = self._trainer.integer(ROLES[role].id_field, ROLES[role].id) % (1 << 32)
        return value - (1 << 32) if value >> 31 else value

    def role_text(self, role: str) -> str:
        """Return the text of the piece with a role of `ROLES`; the library finds it by that."""
        return self._trainer.octets(ROLES[role].text_field, ROLES[role].text.encode()).decode()

    def with_pieces(self, pieces: Sequence[Piece]) -> SentencePieceModel:
        """Return the model with other pieces, and with a size that counts them."""
        model = SentencePieceModel(self.with_field(*(bytes_field(_PIECES, piece.data) for piece in pieces)))
        if self._trainer.integer(_VOCAB_SIZE, 0) == len(self.pieces) != len(pieces):
            return model.with_trainer(number_field(_VOCAB_SIZE, len(pieces)))
        return model

    def with_role_id(self, role: str, number: int) -> SentencePieceModel:
        """Return the model in which the piece with that id, or with -1 none, has `role`."""
        if number == self.role_id(role):
            return self
        return self.with_trainer(number_field(ROLES[role].id_field, number))

    def with_role_text(self, role: str, text: str) -> SentencePieceModel:
        """Return the model in which the piece with `role` is found by `text`."""
        return self.with_trainer(bytes_field(ROLES[role].text_field, text.encode()))

    def with_trainer(self, field: Field) -> SentencePieceModel:
        """Return the model with a field of the trainer's specification."""
        return SentencePieceModel(self.with_field(bytes_field(_TRAINER, self._trainer.with_field(field))))


def is_sentencepiece(data: bytes) -> bool:
    """Return whether a file begins like a SentencePiece model: with a piece that has a text."""
    try:
        first = next(read_fields(data), None)
        return first is not None and first.number == _PIECES and bool(Piece(first.data).text)
    except (TokenizerError, ValueError):
        return False


forget_with_all(SentencePieceModel.read.cache_clear)
