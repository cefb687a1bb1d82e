"""Patterns that select tokens by the text that they stand for: regular expressions, scripts and presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import regex

from tokmigrate.errors import UsageError
from tokmigrate.formatting import format_list
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.tokenizer.token_meaning import TokenTexts
from tokmigrate.vocabulary.scripts import resolve_script

PRESETS: Mapping[str, str] = {
    "alphanumeric": r"\s*[A-Za-z0-9]+\s*",
    "ascii_letters": r"\s*[A-Za-z]+\s*",
    "ascii_printable": r"[\t-\r -~]+",
    "digits": r"\s*[0-9]+\s*",
    "punctuation": r"\s*[!-/:-@\[-`{-~]+\s*",
    "single_characters": r"\s*\S\s*",
    "whitespace": r"\s+",
}
"""What the whole text of a token matches, by name."""

KINDS = ("re", "script", "preset")


def is_pattern(word: str) -> bool:
    """Return whether a word of the command line is a pattern and not a file."""
    return word.partition(":")[0] in KINDS and ":" in word


def find_matches(state: ModelState, word: str) -> tuple[str, ...]:
    """Return the tokens of the tokenizer's model whose texts match a pattern, in the order of their ids.

    Args:
        word: `re:` and a regular expression that is searched for, `script:` and scripts with commas between them, or
            `preset:` and a name.

    Raises:
        UsageError: It is no pattern, or no token matches.
    """
    pattern = _compile(word)
    texts, tokenizer = TokenTexts(state.tokenizer.document), state.tokenizer
    found = [
        token
        for token in tokenizer.vocabulary
        if token not in tokenizer.added and (text := texts.find_text(token)) is not None and pattern.search(text)
    ]
    if not found:
        raise UsageError(f"no token matches '{word}'", hint="leave it out")
    return tuple(sorted(found, key=tokenizer.ids.__getitem__))


def _compile(word: str) -> Any:
    kind, _, name = word.partition(":")
    if kind == "re":
        try:
            return regex.compile(name)
        except regex.error as error:
            raise UsageError(
                f"'{name}' is not a regular expression: {error}",
                hint="correct it; its syntax is that of the regex package",
            ) from error
    if kind == "preset":
        pattern = PRESETS.get(name)
        if pattern is None:
            raise UsageError(
                f"'{name}' is not a preset", hint=f"the presets are {format_list([*PRESETS], len(PRESETS))}"
            )
    else:
        own = "".join(rf"\p{{Script={resolve_script(each)}}}" for each in name.split(","))
        # Digits, punctuation and spaces belong to no script.
        pattern = rf"(?=.*[{own}])[{own}\p{{Script=Common}}\p{{Script=Inherited}}]+"
    return regex.compile(rf"\A(?:{pattern})\Z", regex.DOTALL)
