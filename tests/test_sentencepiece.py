"""SentencePiece models as documents, and the tokenizer.json that is made of them: SentencePiece itself is the judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from making import write_json
from real_tokenizers import real
from test_tokenizer_kinds import train
from tokenizers import Tokenizer

from tokmigrate.errors import OutOfStepError, TokenizerError
from tokmigrate.model.formats.protobuf import Field, Message, bytes_field, float_field, number_field
from tokmigrate.model.formats.sentencepiece import Algorithm, Kind, Piece, SentencePieceModel, is_sentencepiece
from tokmigrate.model.from_sentencepiece import known_differences, make_tokenizer_json, tokenizer_document

PLAIN = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
MODELS: dict[str, dict[str, Any]] = {
    "bpe": {"model_type": "bpe", "byte_fallback": True, **PLAIN, "vocab_size": 700},
    "bpe without a space before": {"model_type": "bpe", "add_dummy_prefix": False, **PLAIN, "vocab_size": 500},
    "unigram": {**PLAIN, "vocab_size": 300},
    "unigram that joins spaces": {**PLAIN, "remove_extra_whitespaces": True, "vocab_size": 300},
    "unigram that normalises": {"byte_fallback": True, "vocab_size": 600},
    "marked pieces": {
        "model_type": "bpe",
        "add_dummy_prefix": False,
        "byte_fallback": True,
        **PLAIN,
        "user_defined_symbols": ["<mask>", "token", "to"],
        "vocab_size": 700,
    },
}
WORDS = (
    "the",
    "token",
    "a",
    "model",
    "is",
    "to",
    "of",
    "README,",
    "rows",
    "“x”",
    "漢字",
    "🦙",
    "né",
    "12.5%",
    "\t",
    "\n",
)
PARTS = st.sampled_from([*WORDS, " ", "  ", "<mask>"]) | st.text("aeintz 0.,é字🦙\n", max_size=5)
SENTENCES = st.lists(PARTS, max_size=9)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each of MODELS, and Mistral's."""
    root = tmp_path_factory.mktemp("pieces")
    for number, how in enumerate(MODELS.values()):
        train(root / str(number), **how)
    found = {name: root / f"{number}.model" for number, name in enumerate(MODELS)}
    return found | {"published": real("mistral-spm") / "tokenizer.model"}


def processor(data: bytes) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=data)


def read(data: bytes) -> SentencePieceModel:
    return SentencePieceModel.read(data, "tokenizer.model")


def test_bytes_come_back(trained: dict[str, Path]) -> None:
    for file in trained.values():
        data = file.read_bytes()
        model = read(data)
        assert is_sentencepiece(data)
        assert b"".join(field.raw for field in model.fields) == data
        assert model.with_pieces(model.pieces).data == data
        assert model.with_pieces([piece.with_text(piece.text) for piece in model.pieces]).data == data
        judge = processor(data)
        assert [piece.text for piece in model.pieces] == [judge.id_to_piece(n) for n in range(len(judge))]
        scores = [(piece.score, piece.kind is Kind.CONTROL, piece.kind is Kind.BYTE) for piece in model.pieces]
        assert scores == [(judge.get_score(n), judge.is_control(n), judge.is_byte(n)) for n in range(len(judge))]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_what_a_message_says_besides_stays(data: st.DataObject) -> None:
    number = st.integers(1, 2**20)
    field = (
        st.builds(number_field, number, st.integers(-(2**63), 2**63 - 1))
        | st.builds(bytes_field, number, st.binary(max_size=300))
        | st.builds(float_field, number, st.floats(width=32))
    )
    message = data.draw(st.lists(field, max_size=8))
    raw = b"".join(each.raw for each in message)
    assert list(Message(raw).fields) == [
        Field(each.number, each.value % 2**64 if isinstance(each.value, int) else each.value, each.raw)
        for each in message
    ]
    new = data.draw(field)
    kept = [each.raw for each in message if each.number != new.number]
    changed = Message(Message(raw).with_field(new))
    assert [each.raw for each in changed.fields if each.number != new.number] == kept
    assert [each.raw for each in changed.fields if each.number == new.number] == [new.raw]
    with pytest.raises(TokenizerError):
        list(Message(raw + b"\x0a\x05abc").fields)


def test_pieces_that_move_have_their_new_ids(trained: dict[str, Path]) -> None:
    for file in trained.values():
        data = file.read_bytes()
        model = read(data)
        pieces = [*model.pieces[:3], Piece.new("<new>", Kind.USER_DEFINED), *reversed(model.pieces[3:])]
        judge = processor(model.with_pieces(pieces).data)
        assert [judge.id_to_piece(n) for n in range(len(judge))] == [piece.text for piece in pieces]
        assert judge.encode("<new>")[-1] == 3
        swapped = [model.pieces[1], model.pieces[0], model.pieces[2].with_text("</end>"), *model.pieces[3:]]
        other = model.with_pieces(swapped).with_role_id("unk", 1).with_role_id("bos", 0).with_role_text("eos", "</end>")
        judge = processor(other.data)
        assert (judge.unk_id(), judge.bos_id(), judge.eos_id()) == (1, 0, 2)
        assert (other.role_id("unk"), other.role_id("pad")) == (1, -1)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_text_is_tokenized_as_by_sentencepiece(trained: dict[str, Path], made: dict[str, Any], data: Any) -> None:
    name = data.draw(st.sampled_from(list(trained)))
    text = data.draw(st.sampled_from(["", " "])).join(data.draw(SENTENCES))
    tokenizer, judge = made[name]
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert ids == judge.encode(text)
    if judge.unk_id() not in ids:
        assert tokenizer.decode(ids) == judge.decode(ids)


@pytest.fixture(scope="module")
def made(trained: dict[str, Path]) -> dict[str, Any]:
    """The tokenizer made of each model, and SentencePiece with the model."""
    return {
        name: (
            Tokenizer.from_str(json.dumps(tokenizer_document(read(file.read_bytes()), {}))),
            processor(file.read_bytes()),
        )
        for name, file in trained.items()
    }


def test_where_it_is_not_exact_is_reported(trained: dict[str, Path]) -> None:
    said = {name: known_differences(read(file.read_bytes())) for name, file in trained.items()}
    assert {name for name, texts in said.items() if texts} == {"unigram that normalises"}
    marked = read(trained["bpe"].read_bytes())
    marked = marked.with_pieces([*marked.pieces, Piece.new("<mask>", Kind.USER_DEFINED)])
    assert "'<mask>'" in known_differences(marked)[0]


def test_added_tokens_and_what_stands_around_a_text(trained: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(trained["published"].read_bytes())
    decoder = {
        "2": {"content": "</s>", "rstrip": True, "special": True},
        "32000": {"content": "<|user|>", "special": True},
        "32001": {"content": "qqword", "normalized": True},
    }
    write_json(
        tmp_path / "tokenizer_config.json",
        {"added_tokens_decoder": decoder, "add_bos_token": True, "add_eos_token": False, "bos_token": "<s>"},
    )
    tokenizer = Tokenizer.from_file(str(make_tokenizer_json(tmp_path)))
    assert tokenizer.encode("<|user|>").ids == [1, 32000]
    assert tokenizer.get_added_tokens_decoder()[2].rstrip
    assert tokenizer.token_to_id("qqword") == 32001
    with pytest.raises(TokenizerError, match="already"):
        make_tokenizer_json(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    write_json(tmp_path / "special_tokens_map.json", {"pad_token": "<pad>"})
    write_json(tmp_path / "added_tokens.json", {"<pad>": 32000})
    tokenizer = Tokenizer.from_file(str(make_tokenizer_json(tmp_path)))
    assert tokenizer.get_added_tokens_decoder()[32000].special
    assert tokenizer.encode("a").ids == processor(trained["published"].read_bytes()).encode("a")
    (tmp_path / "tokenizer.json").unlink()
    write_json(tmp_path / "added_tokens.json", {"<pad>": 32005})
    with pytest.raises(OutOfStepError, match="id 32005"):
        make_tokenizer_json(tmp_path)
    write_json(tmp_path / "added_tokens.json", {"<pad>": 5})
    with pytest.raises(OutOfStepError, match="id 5 is '<pad>'"):
        make_tokenizer_json(tmp_path)


def test_what_the_library_cannot_do_is_refused(trained: dict[str, Path]) -> None:
    model = read(trained["bpe"].read_bytes())
    for field in (number_field(3, Algorithm.WORD), number_field(24, 1)):
        with pytest.raises(TokenizerError):
            tokenizer_document(model.with_trainer(field), {})
    with pytest.raises(TokenizerError, match="not in use"):
        tokenizer_document(model.with_pieces([*model.pieces, Piece.new("x", Kind.UNUSED)]), {})
    for broken in (b"", b"\x0a\x00", model.data[:-3], b"IQ== 0\n", b"{}"):
        with pytest.raises(TokenizerError, match="not a SentencePiece model"):
            read(broken)
