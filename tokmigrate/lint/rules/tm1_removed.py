"""TM1: what a removal of many tokens takes with it: scripts, digits, and letters that text is made of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from tokmigrate.formatting import format_count, format_list, format_quoted
from tokmigrate.lint.rule import WARNING, Found, operations, rule
from tokmigrate.lint.subjects import OnModel
from tokmigrate.model.tokenizer.byte_level import is_byte_level
from tokmigrate.model.tokenizer.token_meaning import TokenTexts
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.operations.token_checks import find_letters
from tokmigrate.vocabulary.scripts import COMMON, find_main_script

_SCRIPT = 20
"""Fewer tokens of a script are names and symbols in the text of others."""
_CYRILLIC = [chr(number) for number in range(0x410, 0x430)]
_DIGITS = re.compile("(\u0120|\u2581|##|)([0-9]{1,3})")


@rule(
    "TM117",
    WARNING,
    given=f"operations:\n  - add_tokens: [{', '.join(_CYRILLIC)}]\n",
    wrong=operations(f"remove_tokens: {{tokens: [{', '.join(_CYRILLIC)}], ids: compact, acknowledge: breaking}}"),
    right=operations(f"remove_tokens: {{tokens: [{', '.join(_CYRILLIC[16:])}], ids: compact, acknowledge: breaking}}"),
)
def script_vanishes(seen: OnModel) -> Iterator[Found]:
    """All tokens of a script are removed, or all but its single letters.

    Text in that script is then made of letters or bytes, several times as many tokens as before, or of unknown tokens.
    Where the languages of the corpus do not use the script, that is what a removal is for. Scripts of fewer than 20
    tokens are not reported.
    """
    if len(seen.removed) < _SCRIPT:
        return
    texts = TokenTexts(seen.step.before.documents[FILE])
    removed: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for token in seen.removed:
        script, is_word = _describe(texts.find_text(token) or "")
        removed[script] += 1
        words[script] += is_word
    gone = {script for script, count in removed.items() if count >= _SCRIPT and script != COMMON}
    left: Counter[str] = Counter()
    for token in seen.step.after.tokenizer.ids if gone else ():
        script, is_word = _describe(texts.find_text(token) or "")
        if script in gone:
            left[script] += 1
            if is_word:
                gone.remove(script)
                if not gone:
                    return
    named = [
        f"{script} ({removed[script]:,} removed, {left[script]:,} left)"
        for script, _ in removed.most_common()
        if script in gone and (words[script] >= _SCRIPT or not left[script])
    ]
    if named:
        scripts = "a script" if len(named) == 1 else f"{len(named)} scripts"
        message = f"no word of {scripts} is left: {format_list(named, 5)}"
        yield Found(
            seen.find_removal().location, message, "keep some; if it is intended, write `# noqa: TM117` and why"
        )


def _describe(text: str) -> tuple[str, bool]:
    """Return the script of a text, and whether it has more than one letter."""
    letters = sum(map(str.isalpha, text))
    if text.isascii():
        return "Latin" if letters else COMMON, letters > 1
    return find_main_script(text), letters > 1


@rule(
    "TM118",
    WARNING,
    given=operations("set_pre_tokenizer: {pre_tokenizer: {type: Whitespace}, acknowledge: breaking}"),
    wrong=operations('remove_tokens: {tokens: ["5"], ids: tombstone, acknowledge: breaking}'),
    right=operations('remove_tokens: {tokens: ["Ġ417"], ids: tombstone, acknowledge: breaking}'),
)
def numbers_uneven(seen: OnModel) -> Iterator[Found]:
    """Of all tokens with one, two or three digits some are removed.

    A tokenizer that has all of them writes numbers of one length with the same number of tokens, and the model learnt
    to compute with these. Afterwards `127` may be one token and `128` two. All tokens of two or three digits may go
    together.
    """
    groups: dict[tuple[str, int], list[str]] = {}
    for token in seen.removed:
        found = _DIGITS.fullmatch(token) if len(token) <= 5 else None
        if found is not None:
            groups.setdefault((found[1], len(found[2])), []).append(token)
    for (prefix, digits), tokens in sorted(groups.items()):
        size = 10**digits
        is_even = len(tokens) == size and digits > 1
        known = seen.step.before.tokenizer.ids
        if not is_even and all(f"{prefix}{number:0{digits}}" in known for number in range(size)):
            message = f"{len(tokens):,} of the {size:,} tokens of {format_count(digits, 'digit')} "
            message += f"{'is' if len(tokens) == 1 else 'are'} removed: {format_quoted(sorted(tokens))}"
            help_ = "keep them, so that numbers stay even; if it is intended, write `# noqa: TM118` and why"
            yield Found(seen.find_removal(*tokens).location_of(*tokens), message, help_)


@rule(
    "TM119",
    WARNING,
    given=operations("set_pre_tokenizer: {pre_tokenizer: {type: Whitespace}, acknowledge: breaking}"),
    wrong=operations('remove_tokens: {tokens: ["~"], ids: tombstone, acknowledge: breaking}'),
    right=operations('remove_tokens: {tokens: ["Ġ417"], ids: tombstone, acknowledge: breaking}'),
)
def letters_vanish(seen: OnModel) -> Iterator[Found]:
    """Letters or bytes that text is made of are removed.

    A tokenizer with tokens for all bytes can write any text. One without them writes an unknown token for a letter that
    it does not have: what stood there is lost to the model, and so is the whole word in a WordPiece tokenizer.
    """
    document = seen.step.before.documents[FILE]
    has_bytes = is_byte_level(document) or bool(document["model"].get("byte_fallback"))
    texts = TokenTexts(document)
    is_letter = find_letters(document) if has_bytes else lambda token: len(texts.without_affixes(token)) == 1
    letters = [token for token in seen.removed if is_letter(token) and (has_bytes or not _DIGITS.fullmatch(token))]
    if letters:
        what = "byte" if has_bytes else "letter"
        message = f"{format_count(len(letters), what)} can no longer be written: {format_quoted(letters)}"
        help_ = "keep them; if it is intended, write `# noqa: TM119` and why"
        yield Found(seen.find_removal(*letters).location_of(*letters), message, help_)
