"""Tokens that a chat template writes out, in every place where a model keeps templates."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from tokmigrate.model.chat_template import check_template
from tokmigrate.model.json_text import Json
from tokmigrate.model.state import LEGACY_TEMPLATE, TEMPLATE, TOKENIZER_CONFIG, ModelState


def templates(state: ModelState) -> Iterator[tuple[str, tuple[str | int, ...], str]]:
    """Yield each chat template with its file and its place there."""
    if TEMPLATE in state.documents:
        yield TEMPLATE, (), str(state.documents[TEMPLATE])
    for name in (TOKENIZER_CONFIG, LEGACY_TEMPLATE):
        held = (state.documents.get(name) or {}).get("chat_template")
        yield from ((name, ("chat_template", *path), text) for path, text in _texts(held))


def written_in_templates(state: ModelState, tokens: Iterable[str]) -> tuple[str, ...]:
    """Return those of `tokens` that a chat template of the model writes out."""
    wanted = tuple(tokens)
    pattern = _pattern(state, wanted)
    found = {match for _, _, text in templates(state) for match in pattern.findall(text)}
    return tuple(token for token in wanted if token in found)


def with_tokens_in_templates(state: ModelState, names: Mapping[str, str]) -> ModelState:
    """Return the state whose chat templates write the new texts of tokens.

    Args:
        state: The state, with the tokens by their old names.
        names: New texts by the old ones.
    """
    pattern = _pattern(state, names)
    for name, path, text in list(templates(state)):
        renamed = pattern.sub(lambda match: names.get(match[0], match[0]), text)
        if renamed != text:
            check_template(renamed)
            state = state.with_value(name, path, renamed) if path else state.with_document(name, renamed)
    return state


def _pattern(state: ModelState, tokens: Iterable[str]) -> re.Pattern[str]:
    """Return what finds `tokens`, and the added tokens that hold one, so that a part of those is not taken for it."""
    wanted = set(tokens)
    longer = {other for other in state.tokenizer.added if any(token in other for token in wanted)}
    ordered = sorted(wanted | longer, key=lambda token: (-len(token), token))
    return re.compile("|".join(re.escape(token) for token in ordered))


def _texts(held: Json) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(held, str):
        yield (), held
    elif isinstance(held, list):
        for position, named in enumerate(held):
            if isinstance(named.get("template"), str):
                yield (position, "template"), named["template"]
