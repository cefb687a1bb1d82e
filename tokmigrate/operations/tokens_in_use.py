"""Where a token is used by its text, so that it cannot go."""

from __future__ import annotations

from collections.abc import Iterator

from tokmigrate.errors import OperationError
from tokmigrate.model.documents.chat_template import written_in_templates
from tokmigrate.model.documents.roles import text_of
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.references.token_texts import named_tokens
from tokmigrate.model.tokenizer.tokenizer_json import FILE, post_processor_tokens


def check_not_in_use(state: ModelState, gone: frozenset[str]) -> None:
    """Raise OperationError, naming the place, where a token of `gone` is used.

    Args:
        state: The state before.
        gone: The texts of tokens that are to go.
    """
    for file, place, token in (*_in_tokenizer(state), *_roles(state), *_templates(state, gone)):
        if token in gone:
            raise OperationError(
                f"'{token}' is used by {place}", where=file, hint="let another token do that first, or keep it"
            )
    model = state.documents[FILE]["model"]
    for token in gone:
        if token in state.tokenizer.vocabulary and _is_letter(token, model, state.documents[FILE]):
            raise OperationError(f"'{token}' is a letter of the alphabet; text with it could not be written any more")


def _is_letter(token: str, model: Json, document: Json) -> bool:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bool(model.get("byte_fallback"))
    return len(token) == 1 and '"ByteLevel"' in str(document.get("pre_tokenizer")).replace("'", '"')


def _in_tokenizer(state: ModelState) -> Iterator[tuple[str, str, str]]:
    document = state.documents[FILE]
    for token in post_processor_tokens(document):
        yield FILE, "the post-processor", token
    if document.get("padding"):
        yield FILE, "padding", document["padding"].get("pad_token", "")
    yield FILE, "the model, for what is unknown", state.tokenizer.unknown or ""


def _roles(state: ModelState) -> Iterator[tuple[str, str, str]]:
    for file, path, entry in named_tokens(state):
        # A token that is only listed loses its place in the list.
        if path[0] != "added_tokens_decoder" and not isinstance(path[-1], int):
            yield file, f"'{'.'.join(map(str, path))}'", text_of(entry) or ""


def _templates(state: ModelState, gone: frozenset[str]) -> Iterator[tuple[str, str, str]]:
    # A word of the vocabulary stands in a template by chance; an added token does not.
    named = sorted(token for token in gone if token in state.tokenizer.added)
    for token, template in written_in_templates(state, named).items():
        yield template.file, template.kind, token
