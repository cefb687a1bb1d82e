"""tokenizer.json out of a SentencePiece model: the same ids, and every text tokenized into the same pieces.

`python -m tokmigrate.model.from_sentencepiece DIRECTORY` makes it beside the model. transformers
5.23 does not do this: of Mistral's tokenizer.model its AutoTokenizer makes one that leaves out the space before a text,
and its LlamaTokenizer orders merges by ids where SentencePiece goes by scores.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokmigrate.errors import OutOfStepError, TokenizerError, TokmigrateError
from tokmigrate.files import exists
from tokmigrate.model.documents.reading import read_documents
from tokmigrate.model.documents.roles import text_of
from tokmigrate.model.documents.state import ADDED_TOKENS, SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG
from tokmigrate.model.formats.json_text import Json, Layout
from tokmigrate.model.formats.sentencepiece import Algorithm, Kind, SentencePieceModel, is_sentencepiece
from tokmigrate.model.references.token_texts import token_entries
from tokmigrate.model.tokenizer.token_meaning import SPACE
from tokmigrate.model.tokenizer.tokenizer_json import FILE, Tokenizer, read_entry, write_entry
from tokmigrate.vocabulary.ids import AddedToken

_ELSEWHERE = "look for a tokenizer.json where the model was published, or use a model of another kind"


def make_tokenizer_json(directory: Path) -> Path:
    """Make tokenizer.json beside the SentencePiece model of a directory, and return its path.

    Tokens that tokenizer_config.json or added_tokens.json adds are in it, with the ids that they have there.

    Raises:
        TokenizerError: There is a tokenizer.json, no SentencePiece model or more than one, or one of a kind that
            the tokenizers library does not have.
        OutOfStepError: An added token has another id than the library would give it.
    """
    path = directory / FILE
    if exists(path):
        raise TokenizerError("there is a tokenizer.json already", where=str(path), hint="remove it first")
    _, documents = read_documents(directory)
    models = {name: data for name, data in documents.items() if name.endswith(".model") and is_sentencepiece(data)}
    if len(models) != 1:
        message = f"{len(models)} files hold a SentencePiece model, and one has to"
        raise TokenizerError(message, where=str(directory), hint="copy the model's own there, and move others away")
    ((name, data),) = models.items()
    document = tokenizer_document(SentencePieceModel.read(data, str(directory / name)), documents)
    with path.open("xb") as file:
        file.write(Layout().encode(document))
    return path


def tokenizer_document(model: SentencePieceModel, settings: Mapping[str, Json]) -> dict[str, Any]:
    """Return tokenizer.json for a SentencePiece model and the other files of its directory; raises as above."""
    _check_can_be_made(model)
    added = _find_added_tokens(model, settings)
    entries = [write_entry(token, number) for number, token in sorted(added.items())]
    post_processor = _post_processor(model, settings.get(TOKENIZER_CONFIG) or {}, added)
    document = {**_build_pipeline(model), "added_tokens": entries, "post_processor": post_processor}
    Tokenizer(document).check()
    return document


def known_differences(model: SentencePieceModel) -> list[str]:
    """Return the texts, besides special tokens, that the tokenizer made tokenizes differently from SentencePiece."""
    found = []
    if model.charsmap:
        found.append("text with combining marks, which the tokenizers library normalises together with their letter")
    named = [piece.text for piece in model.pieces if piece.kind is Kind.USER_DEFINED]
    if named and (model.setting("add_dummy_prefix") or any(SPACE in text for text in named)):
        found.append(f"text around its {len(named)} user-defined pieces, as '{named[0]}'")
    return found


def _check_can_be_made(model: SentencePieceModel) -> None:
    algorithm = Algorithm(model.setting("model_type"))
    if algorithm not in (Algorithm.BPE, Algorithm.UNIGRAM):
        message = f"the tokenizers library has no model that tokenizes text like {algorithm.name}"
        raise TokenizerError(message, hint=_ELSEWHERE)
    if model.setting("treat_whitespace_as_suffix") or not model.setting("escape_whitespaces"):
        raise TokenizerError("it treats spaces in a way that is not carried over", hint=_ELSEWHERE)
    if any(piece.kind is Kind.UNUSED for piece in model.pieces):
        message = "it has pieces that are marked as not in use, which are not carried over"
        raise TokenizerError(message, hint=_ELSEWHERE)


def _build_pipeline(model: SentencePieceModel) -> dict[str, Any]:
    """Return tokenizer.json as the tokenizers library writes it, without added tokens and post-processor."""
    from tokenizers import Regex, decoders, models, normalizers  # noqa: PLC0415 - only who makes one pays for it
    from tokenizers import Tokenizer as LibraryTokenizer  # noqa: PLC0415

    byte_fallback = bool(model.setting("byte_fallback"))
    if model.setting("model_type") == Algorithm.UNIGRAM:
        scores = [(piece.text, piece.score) for piece in model.pieces]
        made = LibraryTokenizer(models.Unigram(scores, model.role_id("unk"), byte_fallback))
    else:
        vocabulary = {piece.text: number for number, piece in enumerate(model.pieces)}
        unknown = model.role_text("unk")
        merges = list(model.merges)
        bpe = models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=byte_fallback)
        made = LibraryTokenizer(bpe)
    steps: list[Any] = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if model.setting("remove_extra_whitespaces"):
        # The library's own `Strip` takes line ends and tabs as well.
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    back: list[Any] = [
        decoders.Replace(SPACE, " "),
        *([decoders.ByteFallback()] if byte_fallback else []),
        decoders.Fuse(),
    ]
    if model.setting("add_dummy_prefix"):
        steps.append(normalizers.Prepend(SPACE))
        back.append(decoders.Strip(" ", 1, 0))
    made.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    made.decoder = decoders.Sequence(back)
    document: dict[str, Any] = json.loads(made.to_str())
    return document


def _find_added_tokens(model: SentencePieceModel, settings: Mapping[str, Json]) -> dict[int, AddedToken]:
    """Return the added tokens by id: pieces that are not made of others, and what the settings add."""
    flagged = {
        number: AddedToken(piece.text, special=piece.kind is not Kind.USER_DEFINED)
        for number, piece in enumerate(model.pieces)
        if piece.kind in (Kind.UNKNOWN, Kind.CONTROL, Kind.USER_DEFINED)
    }
    config = settings.get(TOKENIZER_CONFIG) or {}
    if isinstance(config.get("added_tokens_decoder"), dict):
        for number, entry in config["added_tokens_decoder"].items():
            flagged[int(number)] = read_entry(entry)
    else:
        entries = (token_entries(settings.get(name) or {}) for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP))
        specials = {text_of(entry) for found in entries for _, entry in found}
        for content, number in (settings.get(ADDED_TOKENS) or {}).items():
            special = content in specials
            flagged[int(number)] = AddedToken(content, special=special, normalized=not special)
    for number, token in flagged.items():
        if number < len(model.pieces) and model.pieces[number].text != token.content:
            raise OutOfStepError(
                f"id {number} is '{token.content}' in the settings, and '{model.pieces[number].text}' in the model",
                where=TOKENIZER_CONFIG,
                hint="take the entry out of the settings, or give the directory the model that belongs to them",
            )
    return flagged


def _post_processor(
    model: SentencePieceModel, config: Mapping[str, Json], added: Mapping[int, AddedToken]
) -> dict[str, Any] | None:
    """Return what puts tokens around a text where tokenizer_config.json says so; SentencePiece itself puts none."""
    from tokenizers.processors import TemplateProcessing  # noqa: PLC0415

    ids = {token.content: number for number, token in added.items()}

    def find_role(role: str) -> list[str]:
        text = text_of(config.get(f"{role}_token")) or model.role_text(role)
        return [text] if config.get(f"add_{role}_token") is True and text in ids else []

    bos, eos = find_role("bos"), find_role("eos")
    if not bos and not eos:
        return None
    single, second = [*bos, "$A", *eos], [*bos, "$B", *eos]
    made = TemplateProcessing(
        single=single,
        pair=[*single, *(f"{piece}:1" for piece in second)],
        special_tokens=[(text, ids[text]) for text in dict.fromkeys((*bos, *eos))],
    )
    document: dict[str, Any] = json.loads(made.__getstate__())
    return document


if __name__ == "__main__":
    try:
        print(f"made {make_tokenizer_json(Path(sys.argv[1]))}")
    except TokmigrateError as error:
        sys.exit("\n".join(filter(None, (f"error: {error}", error.hint and f"what to do: {error.hint}"))))
