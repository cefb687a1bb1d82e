"""TM1 and TM3: what one file says twice."""

from __future__ import annotations

from collections.abc import Iterator

from tokmigrate.lint.file import MigrationFile, Written
from tokmigrate.lint.rule import WARNING, Found, rule
from tokmigrate.operations.base import TokenChanges

_POINTLESS = {
    ("added", "renamed"): "add it with that text",
    ("added", "removed"): "leave it out",
    ("added", "reinitialised"): "say with `init:` where it is added how its row starts",
    ("added", "flagged"): "give it the flags where it is added",
    ("renamed", "renamed"): "give it the last text at once",
    ("renamed", "removed"): "remove it by its old text",
    ("renamed", "reinitialised"): "give rename_tokens the `init:`",
    ("reinitialised", "removed"): "remove it only",
    ("reinitialised", "reinitialised"): "say once how its row starts",
    ("moved", "moved"): "move it once",
    ("moved", "removed"): "remove it only",
    ("removed", "added"): "reinit_tokens initialises a row again, and the id stays",
}
"""What becomes of a token in one file, one after the other, where one operation would do."""


@rule(
    "TM113",
    "changed-twice",
    WARNING,
    wrong="""\
operations:
  - add_tokens: ["<tool>"]
  - set_token_flags: {tokens: "<tool>", special: true}
""",
    right="""\
operations:
  - add_tokens:
      tokens:
        - {content: "<tool>", special: true}
""",
)
def changed_twice(file: MigrationFile) -> Iterator[Found]:
    """A token is changed by one operation, and then by another one of the same file.

    One operation says what it shall be; a reader of two has to work it out.
    """
    history: dict[str, tuple[str, int]] = {}
    for written in file.operations:
        changes = list(_changes(written.tokens))
        for text, change in changes:
            held = history.get(text)
            help_ = _POINTLESS.get((held[0], change)) if held else None
            if held and help_:
                message = f"'{text}' is {change} here, and was {held[0]} in line {held[1]} of the same file"
                yield Found(written.spot(text), message, help_)
        after = [*changes, *((text, "renamed") for text in written.tokens.renamed.values())]
        history |= {text: (change, written.place.line) for text, change in after}


def _changes(tokens: TokenChanges) -> Iterator[tuple[str, str]]:
    """Yield each token that an operation changes, with what it does to it."""
    yield from ((token.content, "added") for token in tokens.added if token.content not in tokens.roles.get("chat", ()))
    yield from ((text, "renamed") for text in tokens.renamed)
    yield from ((text, "removed") for text in tokens.removed)
    yield from ((text, "reinitialised") for text in tokens.reinitialised if text not in tokens.renamed.values())
    yield from ((text, "moved") for text in tokens.moved)
    yield from ((text, "flagged") for text in tokens.flagged)


@rule(
    "TM307",
    "said-twice",
    WARNING,
    wrong="""\
operations:
  - set_normalizer: NFC
  - set_normalizer: NFKC
""",
    right="""\
operations:
  - set_normalizer: NFKC
""",
)
def said_twice(file: MigrationFile) -> Iterator[Found]:
    """The same thing is set twice in one file.

    Only the last one counts; who reads the first is misled.
    """
    said: dict[str, Written] = {}
    for written in file.operations:
        for what in sorted(written.footprint.replaces):
            if what in said:
                message = f"{what} is set here, and was set in line {said[what].place.line} already"
                yield Found(written.place, message, "leave one of the two out")
            said[what] = written
