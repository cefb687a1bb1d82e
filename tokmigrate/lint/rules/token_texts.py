"""TM1: how tokens are written."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from tokmigrate.lint.file import MigrationFile, Written
from tokmigrate.lint.rule import ERROR, WARNING, Found, rule
from tokmigrate.lint.spelling import escaped, foreign_letters, invisible

_MEANT = "if it is meant, write `# noqa: {}` and why"


@rule(
    "TM103",
    "space-at-the-edge",
    WARNING,
    wrong="""\
operations:
  - add_tokens: ["<tool> "]
""",
    right="""\
operations:
  - add_tokens: ["<tool>"]
""",
)
def space_at_the_edge(file: MigrationFile) -> Iterator[Found]:
    """The text of a token begins or ends with white space.

    It is found only where that very white space stands; a neighbour with `lstrip` or `rstrip` takes it away, and so do
    normalizers that strip or replace it. `lstrip` and `rstrip` are no way out: they take white space out of the text,
    and decoding does not give it back.
    """
    for written, text in _new_texts(file):
        if text.strip() and text != text.strip():
            side = "begins" if text != text.lstrip() else "ends"
            help_ = f"write {escaped(text.strip())}, the white space stays in the text; {_MEANT.format('TM103')}"
            yield Found(written.spot(text), f"'{text}' {side} with white space", help_)


@rule(
    "TM104",
    "unstable-text",
    WARNING,
    wrong="""\
operations:
  - add_tokens: ["<cafe\\u0301>"]
""",
    right="""\
operations:
  - add_tokens: ["<cafe>"]
""",
)
def unstable_text(file: MigrationFile) -> Iterator[Found]:
    """The text of a token is another one in Unicode's normal form NFC.

    Editors, browsers and many tokenizers write text in that form. It looks the same, and the token is not found in it.
    Byte-level tokenizers do not decode all letters of that form (TM116); ASCII is safe everywhere.
    """
    for written, text in _new_texts(file):
        composed = unicodedata.normalize("NFC", text)
        if composed != text:
            yield Found(
                written.spot(text),
                f"'{text}' is not in the form NFC",
                f"write {escaped(composed)}, or a text of ASCII letters",
            )


@rule(
    "TM105",
    "invisible-character",
    ERROR,
    wrong="""\
operations:
  - add_tokens: ["<tool\\u200b>"]
""",
    right="""\
operations:
  - add_tokens: ["<tool>"]
""",
)
def invisible_character(file: MigrationFile) -> Iterator[Found]:
    """The text of a token holds a character that cannot be seen.

    Nobody can type it, and a text that looks the same is tokenized differently. It mostly comes from copying out of a
    browser. Inside emoji, joiners are left alone.
    """
    for written, text in _new_texts(file):
        hidden = invisible(text)
        if hidden:
            shown = ", ".join(f"U+{ord(letter):04X} {unicodedata.name(letter, 'without a name')}" for letter in hidden)
            visible = "".join(letter for letter in text if letter not in hidden)
            help_ = f"write {escaped(visible)}" if visible.strip() else "choose a text that can be seen"
            yield Found(written.spot(text), f"'{visible}' holds {shown}", help_)


@rule(
    "TM107",
    "mixed-scripts",
    WARNING,
    wrong="""\
operations:
  - add_tokens: ["<t\\u043e\\u043el>"]  # two Cyrillic letters
""",
    right="""\
operations:
  - add_tokens: ["<tool>"]
""",
)
def mixed_scripts(file: MigrationFile) -> Iterator[Found]:
    """Among the Latin letters of a token's text stands one of another script that looks like one of them.

    A Cyrillic or Greek letter between Latin ones cannot be told from the Latin letter that it looks like.
    """
    for written, text in _new_texts(file):
        foreign = foreign_letters(text)
        if foreign:
            shown = ", ".join(f"U+{ord(letter):04X} {unicodedata.name(letter)}" for letter in foreign)
            yield Found(written.spot(text), f"'{text}' holds {shown} among Latin letters", "write it in one script")


@rule(
    "TM109",
    "found-inside-words",
    WARNING,
    wrong="""\
operations:
  - add_tokens: ["cat"]
""",
    right="""\
operations:
  - add_tokens:
      tokens:
        - {content: "cat", single_word: true}
""",
)
def inside_words(file: MigrationFile) -> Iterator[Found]:
    """A token that is a word is also found inside other words.

    An added token is looked for in all text, wherever it stands: `cat` splits `category` in two.
    """
    for written, token in file.added_tokens:
        edges = {unicodedata.category(token.content[0]), unicodedata.category(token.content[-1])}
        # Scripts without case are mostly written without spaces too.
        if edges <= {"Lu", "Ll", "Nd"} and not token.single_word and not written.tokens.roles:
            message = f"'{token.content}' is also found inside longer words"
            yield Found(written.spot(token.content), message, "give it `single_word: true`")


@rule(
    "TM114",
    "mark-not-special",
    WARNING,
    wrong="""\
operations:
  - add_tokens: ["<|tool|>"]
""",
    right="""\
operations:
  - add_tokens:
      tokens:
        - {content: "<|tool|>", special: true}
""",
)
def mark_not_special(file: MigrationFile) -> Iterator[Found]:
    """A token written `<|…|>` is added without a word on whether it is special.

    Without it is not, so that decoding with `skip_special_tokens=True` shows it to users. `special: false` says that
    this is meant.
    """
    for written, token in file.added_tokens:
        is_mark = token.content.startswith("<|") and token.content.endswith("|>")
        if is_mark and "special" not in token.model_fields_set:
            help_ = "give it `special: true`, or `special: false` if it is meant"
            yield Found(written.spot(token.content), f"'{token.content}' looks special, and is not", help_)


def _new_texts(file: MigrationFile) -> Iterator[tuple[Written, str]]:
    """Yield the text of each token that the file brings, or gives another text."""
    for written in file.operations:
        yield from ((written, token.content) for token in written.tokens.added)
        yield from ((written, text) for text in written.tokens.renamed.values())
