"""A SentencePiece model as a document: its pieces, whose place is their id; what is not changed keeps its bytes.

Format: `sentencepiece_model.proto` of google/sentencepiece, ModelProto.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

from tokmigrate.errors import TokenizerError
from tokmigrate.model.formats import protobuf
from tokmigrate.model.formats.protobuf import Field

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


@dataclass(frozen=True)
class Piece:
    """One piece, in the bytes of its message."""

    message: bytes

    @staticmethod
    def new(text: str, kind: Kind) -> Piece:
        """Return a piece without a score."""
        fields = (
            protobuf.bytes_field(_TEXT, text.encode()),
            protobuf.float_field(_SCORE, 0.0),
            protobuf.number_field(_KIND, kind),
        )
        return Piece(protobuf.join_fields(fields))

    @cached_property
    def _fields(self) -> tuple[Field, ...]:
        return tuple(protobuf.fields(self.message))

    @cached_property
    def text(self) -> str:
        """Its text."""
        found = protobuf.last(self._fields, _TEXT)
        return found.data.decode() if found else ""

    @property
    def score(self) -> float:
        """Its score: a logarithm of its probability, or the rank of its merge."""
        found = protobuf.last(self._fields, _SCORE)
        return float(struct.unpack("<f", found.data)[0]) if found else 0.0

    @property
    def kind(self) -> Kind:
        """What it is for."""
        found = protobuf.last(self._fields, _KIND)
        return Kind(found.value) if found and isinstance(found.value, int) else Kind.NORMAL

    def called(self, text: str) -> Piece:
        """Return the piece with another text."""
        field = protobuf.bytes_field(_TEXT, text.encode())
        return Piece(protobuf.join_fields(protobuf.with_field(self._fields, field)))


@dataclass(frozen=True)
class SentencePieceModel:
    """A view of a SentencePiece model's file.

    Args:
        fields: The fields of its message.
    """

    fields: tuple[Field, ...]

    @staticmethod
    def read(data: bytes, where: str) -> SentencePieceModel:
        """Return the model that a file holds; raises TokenizerError where it holds none."""
        try:
            model = SentencePieceModel(tuple(protobuf.fields(data)))
            has_pieces = bool(model.pieces) and all(piece.text for piece in model.pieces)
        except (TokenizerError, ValueError) as error:
            raise TokenizerError(f"not a SentencePiece model: {error}", where=where) from error
        if not has_pieces:
            raise TokenizerError("not a SentencePiece model: it has no pieces", where=where)
        return model

    @property
    def data(self) -> bytes:
        """The bytes of its file."""
        return protobuf.join_fields(self.fields)

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """The pieces; the place of each is its id."""
        return tuple(Piece(field.data) for field in self.fields if field.number == _PIECES)

    @cached_property
    def _trainer(self) -> tuple[Field, ...]:
        return self._part(_TRAINER)

    @cached_property
    def _normalizer(self) -> tuple[Field, ...]:
        return self._part(_NORMALIZER)

    def setting(self, name: str) -> int:
        """Return the value of a setting of `_SETTINGS`, by SentencePiece's name."""
        part, number, default = _SETTINGS[name]
        return _number(self._trainer if part == _TRAINER else self._normalizer, number, default)

    @property
    def charsmap(self) -> bytes:
        """The compiled table of characters that stand for others, empty where there is none."""
        found = protobuf.last(self._normalizer, 2)
        return found.data if found else b""

    def is_in_order_of(self, texts: Mapping[int, str]) -> bool:
        """Return whether the place of every piece is the id that `texts` gives it."""
        return all(texts.get(number) == piece.text for number, piece in enumerate(self.pieces))

    def role_id(self, role: str) -> int:
        """Return the id of the piece with a role of `ROLES`, -1 where there is none."""
        known = ROLES[role]
        return protobuf.signed(_number(self._trainer, known.id_field, known.id))

    def role_text(self, role: str) -> str:
        """Return the text of the piece with a role of `ROLES`; the library finds it by that."""
        found = protobuf.last(self._trainer, ROLES[role].text_field)
        return found.data.decode() if found else ROLES[role].text

    def with_pieces(self, pieces: Sequence[Piece]) -> SentencePieceModel:
        """Return the model with other pieces, and with a size that counts them."""
        start = next(place for place, field in enumerate(self.fields) if field.number == _PIECES)
        new = [protobuf.bytes_field(_PIECES, piece.message) for piece in pieces]
        after = (field for field in self.fields[start:] if field.number != _PIECES)
        model = SentencePieceModel((*self.fields[:start], *new, *after))
        if _number(self._trainer, _VOCAB_SIZE, 0) == len(self.pieces) != len(pieces):
            return model.with_trainer(protobuf.number_field(_VOCAB_SIZE, len(pieces)))
        return model

    def with_role_id(self, role: str, number: int) -> SentencePieceModel:
        """Return the model in which the piece with that id, or with -1 none, has `role`."""
        if number == self.role_id(role):
            return self
        return self.with_trainer(protobuf.number_field(ROLES[role].id_field, number))

    def with_role_text(self, role: str, text: str) -> SentencePieceModel:
        """Return the model in which the piece with `role` is found by `text`."""
        return self.with_trainer(protobuf.bytes_field(ROLES[role].text_field, text.encode()))

    def with_trainer(self, field: Field) -> SentencePieceModel:
        """Return the model with a field of the trainer's specification."""
        trainer = protobuf.join_fields(protobuf.with_field(self._trainer, field))
        return SentencePieceModel(protobuf.with_field(self.fields, protobuf.bytes_field(_TRAINER, trainer)))

    def _part(self, number: int) -> tuple[Field, ...]:
        found = protobuf.last(self.fields, number)
        return tuple(protobuf.fields(found.data)) if found else ()


def is_sentencepiece(data: bytes) -> bool:
    """Return whether a file begins like a SentencePiece model: with a piece that has a text."""
    try:
        first = next(protobuf.fields(data), None)
        return first is not None and first.number == _PIECES and bool(Piece(first.data).text)
    except (TokenizerError, ValueError):
        return False


def _number(message: Sequence[Field], number: int, default: int) -> int:
    found = protobuf.last(message, number)
    return found.value if found and isinstance(found.value, int) else default
