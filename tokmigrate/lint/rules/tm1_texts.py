"""TM1: how tokens are written, and what they look like beside others."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping

from tokmigrate.lint.rule import ERROR, WARNING, Found, add_special, escape_text, operations, rule
from tokmigrate.lint.subjects import MigrationFile, OnModel, Written
from tokmigrate.model.documents.state import ModelState
from tokmigrate.operations.token_checks import risk_of_added

_JOINER = "\u200d"
# Cyrillic and Greek letters whose shape a Latin letter has too (Unicode Technical Standard 39, confusables).
_LIKE_LATIN = frozenset(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u04bb\u0501\u051b\u051d"
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u0406\u0408\u0405"
    "\u03bf\u03bd\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7"
)


@rule("TM103", WARNING, wrong=operations('add_tokens: ["<tool> "]'), right=operations('add_tokens: ["<tool>"]'))
def space_at_the_edge(file: MigrationFile) -> Iterator[Found]:
    """The text of a token begins or ends with white space.

    It is found only where that very white space stands; a neighbour with `lstrip` or `rstrip` takes it away, and so do
    normalizers that strip or replace it. `lstrip` and `rstrip` are no way out: they take white space out of the text,
    and decoding does not give it back.
    """
    for written, text in _new_texts(file):
        if text.strip() and text != text.strip():
            side = "begins" if text != text.lstrip() else "ends"
            help_ = f"write {escape_text(text.strip())}; the text keeps its white space."
            help_ += " If the token needs it, write `# noqa: TM103` and why"
            yield Found(written.location_of(text), f"'{text}' {side} with white space", help_)


@rule("TM104", WARNING, wrong=operations('add_tokens: ["<cafe\\u0301>"]'), right=operations('add_tokens: ["<cafe>"]'))
def unstable_text(file: MigrationFile) -> Iterator[Found]:
    """The text of a token is another one in Unicode's normal form NFC.

    Editors, browsers and many tokenizers write text in that form. It looks the same, and the token is not found in it.
    Byte-level tokenizers do not decode all letters of that form (TM116); ASCII is safe everywhere.
    """
    for written, text in _new_texts(file):
        composed = unicodedata.normalize("NFC", text)
        if composed != text:
            help_ = f"write {escape_text(composed)}, or a text of ASCII letters"
            yield Found(written.location_of(text), f"'{text}' is not in the form NFC", help_)


@rule("TM105", ERROR, wrong=operations('add_tokens: ["<tool\\u200b>"]'), right=operations('add_tokens: ["<tool>"]'))
def invisible_character(file: MigrationFile) -> Iterator[Found]:
    """The text of a token holds a character that cannot be seen.

    It cannot be typed, and a text that looks the same is tokenized differently. It mostly comes from copying from a
    browser. Inside emoji, joiners are left alone.
    """
    for written, text in _new_texts(file):
        hidden = invisible(text)
        if hidden:
            shown = ", ".join(f"U+{ord(letter):04X} {unicodedata.name(letter, 'without a name')}" for letter in hidden)
            visible = "".join(letter for letter in text if letter not in hidden)
            help_ = f"write {escape_text(visible)}" if visible.strip() else "choose a text that can be seen"
            yield Found(written.location_of(text), f"'{visible}' holds {shown}", help_)


def invisible(text: str) -> list[str]:
    """Return the characters of a text that cannot be seen, each once; plain spaces and emoji's joiners are none."""
    found: dict[str, None] = {}
    for place, letter in enumerate(text):
        if letter in " \t\n\r" or unicodedata.category(letter) not in {"Cc", "Cf", "Co", "Cn", "Zs", "Zl", "Zp"}:
            continue
        around = text[max(0, place - 2) : place] + text[place + 1 : place + 2]
        if letter != _JOINER or all(unicodedata.category(other) != "So" for other in around):
            found[letter] = None
    return list(found)


@rule(
    "TM107",
    WARNING,
    wrong=operations('add_tokens: ["<t\\u043e\\u043el>"]  # two Cyrillic letters'),
    right=operations('add_tokens: ["<tool>"]'),
)
def mixed_scripts(file: MigrationFile) -> Iterator[Found]:
    """A token's text mixes Latin letters with a similar letter of another script.

    A Cyrillic or Greek letter between Latin ones cannot be distinguished from the Latin letter that it looks like.
    """
    for written, text in _new_texts(file):
        foreign = dict.fromkeys(letter for letter in text if letter in _LIKE_LATIN)
        if foreign and any(unicodedata.name(letter, "").startswith("LATIN") for letter in text):
            shown = ", ".join(f"U+{ord(letter):04X} {unicodedata.name(letter)}" for letter in foreign)
            message = f"'{text}' holds {shown} among Latin letters"
            yield Found(written.location_of(text), message, "write it in one script")


@rule(
    "TM109",
    WARNING,
    wrong=operations('add_tokens: ["cat"]'),
    right=operations('add_tokens: {tokens: [{content: "cat", single_word: true}]}'),
)
def found_inside_words(file: MigrationFile) -> Iterator[Found]:
    """A token that is a word is also found inside other words.

    An added token is matched anywhere in a text: `cat` splits `category` in two.
    """
    for written, token in file.added_tokens:
        edges = {unicodedata.category(token.content[0]), unicodedata.category(token.content[-1])}
        # Scripts without case are mostly written without spaces too.
        if edges <= {"Lu", "Ll", "Nd"} and not token.single_word and not written.tokens.roles:
            message = f"'{token.content}' is also found inside longer words"
            yield Found(written.location_of(token.content), message, "give it `single_word: true`")


@rule("TM114", WARNING, wrong=operations('add_tokens: ["<|tool|>"]'), right=operations(add_special("<|tool|>")))
def mark_not_special(file: MigrationFile) -> Iterator[Found]:
    """A token written `<|…|>` is added without `special`.

    Without it is not, so that decoding with `skip_special_tokens=True` shows it to users. `special: false`
    confirms that.
    """
    for written, token in file.added_tokens:
        is_mark = token.content.startswith("<|") and token.content.endswith("|>")
        if is_mark and "special" not in token.model_fields_set:
            help_ = "give it `special: true`, or `special: false` if it is intended"
            yield Found(written.location_of(token.content), f"'{token.content}' looks special, and is not", help_)


def _new_texts(file: MigrationFile) -> Iterator[tuple[Written, str]]:
    """Yield the text of each token that the file brings, or gives another text."""
    for written in file.operations:
        yield from ((written, token.content) for token in written.tokens.added)
        yield from ((written, text) for text in written.tokens.renamed.values())


@rule(
    "TM106",
    WARNING,
    wrong=operations('add_tokens: ["<|tool|>", "<|Tool|>"]'),
    right=operations('add_tokens: ["<|tool|>", "<|result|>"]'),
)
def lookalike(seen: OnModel) -> Iterator[Found]:
    """A new token differs from another added token only in case, width or compatibility forms.

    `<|Im_Start|>` beside `<|im_start|>`, or `<|user|>` with full-width bars beside `<|user|>`: one of the two will be
    used instead of the other, without an error.
    """
    others: dict[str, list[str]] = {}
    for text in seen.step.after.tokenizer.added:
        others.setdefault(_fold(text), []).append(text)
    for text, cause in seen.causes.items():
        alike = others[_fold(text)]
        # Of a pair of new ones the first is reported.
        alike.remove(text)
        if alike:
            message = f"'{text}' looks like '{alike[0]}'"
            yield Found(cause.location_of(text), message, "use the token that is there, or choose another text")


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().strip()


_RESERVED = re.compile(
    r"<\|?(reserved|buffer|placeholder|dummy|unused|extra|special)[_a-z]*[-_ ]?\d+\|?>|\[unused\d+\]",
    re.IGNORECASE,
)
# T5's are no spare ones: it was trained to write them.
_IN_USE = re.compile(r"<extra_id_\d+>")


@rule(
    "TM108",
    WARNING,
    given=operations('add_tokens: ["<|reserved_0|>"]'),
    wrong=operations('add_tokens: ["<tool>"]'),
    right=operations('rename_tokens: {tokens: {"<|reserved_0|>": "<tool>"}, init: {strategy: mean}}'),
)
def reserved_token_free(seen: OnModel) -> Iterator[Found]:
    """Tokens are added after the vocabulary although the tokenizer has unused reserved tokens.

    A reserved token has an id and a row already: with `rename_tokens` it gets the new text, and no matrix grows.
    """
    for written, effect in seen.effects:
        before, after = effect.before, effect.after
        if not written.tokens.added or after.rows == before.rows:
            continue
        new = [token for token in after.tokenizer.ids if token not in before.tokenizer.ids]
        free = [t for t in before.tokenizer.ids if _RESERVED.fullmatch(t) and not _IN_USE.fullmatch(t)]
        if len(free) >= len(new):
            message = f"the tokenizer has reserved tokens, such as '{free[0]}': the matrices need not grow"
            texts = dict(zip(free, new, strict=False))
            yield Found(written.location, message, _explain_renaming(written, texts, before, after))


def _explain_renaming(written: Written, texts: Mapping[str, str], before: ModelState, after: ModelState) -> str:
    """Return the operations that give reserved tokens their new texts, with the flags that the new ones should have."""
    named = ", ".join(f"{escape_text(free)}: {escape_text(new)}" for free, new in texts.items())
    parts = [f"rename_tokens: {{tokens: {{{named}}}, init: {{strategy: mean}}}}"]
    wrong: dict[bool, list[str]] = {True: [], False: []}
    for free, new in texts.items():
        held, token = before.tokenizer.token(free), after.tokenizer.token(new)
        if token is not None and (held is None or held.special != token.special):
            wrong[token.special].append(escape_text(new))
    for special, names in wrong.items():
        if names:
            parts.append(f"set_token_flags: {{tokens: [{', '.join(names)}], special: {str(special).lower()}}}")
    if written.tokens.roles:
        parts.append(f"{written.operation.name} with `existing: reuse`")
    return "; then ".join(parts)


@rule(
    "TM110",
    WARNING,
    wrong=operations('set_padding: {token: "!"}'),
    right=operations(add_special("<|pad|>"), 'set_padding: {token: "<|pad|>"}'),
)
def ordinary_token_added(seen: OnModel) -> Iterator[Found]:
    """A token of ordinary text becomes an added token.

    It is then looked for before the text is tokenized, so that words that it is a part of are split differently than in
    training.
    """
    for written, effect in seen.effects:
        risk = risk_of_added(effect.before, effect.after)
        # Setting flags of such a token shows that it is intended.
        if risk is not None and not written.tokens.flagged:
            tokens = [t for t in effect.after.tokenizer.added if t not in effect.before.tokenizer.added]
            yield Found(written.location_of(*tokens), risk.reason, "add a token of its own for that")


@rule(
    "TM111",
    WARNING,
    given=operations('add_tokens: ["<tool>"]'),
    wrong=operations('set_token_flags: {tokens: "<tool>", special: true}'),
    right=operations('set_token_flags: {tokens: "<tool>", single_word: true}'),
)
def special_flag_changed(seen: OnModel) -> Iterator[Found]:
    """An existing token becomes special, or is no longer special.

    Decoding with `skip_special_tokens=True` then leaves it out where programs relied on it, or shows it to users.
    """
    for written, effect in seen.effects:
        for text, (token, _) in effect.after.tokenizer.added.items():
            held = effect.before.tokenizer.token(text)
            # A token that the same migration brings was not in use before.
            if held is not None and held.special != token.special and text not in seen.causes:
                does = "leaves it out" if token.special else "shows it"
                message = f"'{text}' is {'special' if token.special else 'not special any more'}: decoding {does}"
                help_ = "add a token of its own; if it is intended, write `# noqa: TM111`"
                yield Found(written.location_of(text), message, f"{help_} and tell everybody who decodes")
