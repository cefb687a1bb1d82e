"""TM1: the texts of tokens, and whether they are found."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from tokmigrate.lint.file import MigrationFile, Place, Written
from tokmigrate.lint.model import OnModel
from tokmigrate.lint.rule import FileRule, Found, ModelRule, Severity
from tokmigrate.lint.spelling import foreign_letters, invisible, likeness
from tokmigrate.model.tombstones import is_tombstone
from tokmigrate.operations.add_role_tokens import AddRoleTokens
from tokmigrate.operations.add_tokens import AddTokens
from tokmigrate.operations.known_tokens import cut_out
from tokmigrate.operations.move_tokens import MoveTokens
from tokmigrate.operations.reinit_tokens import ReinitTokens
from tokmigrate.operations.remove_tokens import RemoveTokens
from tokmigrate.operations.rename_tokens import RenameTokens
from tokmigrate.operations.set_token_flags import SetTokenFlags


def _not_found(seen: OnModel) -> Iterator[Found]:
    """An added token is not found in text that holds it.

    A token with `normalized: true`, the default of those that are not special, is looked for in the text that the
    normalizer has made, and is itself normalised. Llama's and T5's put `▁` before it, so that it is found at the
    beginning of a word only; and a special token inside it takes its part of the text first.
    """
    for text, sighting in seen.after.items():
        held = seen.before.get(text)
        if not sighting.missed or (held is not None and held.missed):
            continue
        cause = seen.cause(text)
        place = cause.spot(text) if cause else _last_change(seen)
        example = f"'{sighting.missed[0]}'"
        message = f"'{text}' is not found in {example}"
        if sighting.found:
            message += f", though it is in '{sighting.found[0]}'"
        if sighting.sought != text:
            message += f": what is looked for is '{sighting.sought}', as the normalizer makes of it"
            yield Found(place, message, "give it `normalized: false`, or `special: true`")
        else:
            yield Found(place, message, "choose a text in which no other token is found first")


def _last_change(seen: OnModel) -> Place:
    return max((written.place for written in seen.file.operations), default=Place(1, 1))


def _within_another(seen: OnModel) -> Iterator[Found]:
    """The text of a new token is part of another added token's text, or holds one.

    Of tokens that begin at the same place the longest is found. What was cut into the shorter one and something else
    becomes the longer token from now on; and whoever looks for the shorter one in a text, to stop there, finds it
    inside the longer.
    """
    for cause, text in seen.new_tokens:
        for other in seen.step.after.tokenizer.added:
            if other == text or is_tombstone(other) or not text.strip() or not other.strip():
                continue
            if text in other or other in text:
                inner, outer = sorted((text, other), key=len)
                if seen.cause(other) and text == inner:
                    continue  # it is told of the other one
                help_ = "let no token begin, end or stand inside another one"
                yield Found(cause.spot(text), f"'{inner}' is part of '{outer}'", help_)


def _space_at_the_edge(file: MigrationFile) -> Iterator[Found]:
    """The text of a token begins or ends with white space.

    It is found only where that very white space stands; a neighbour with `lstrip` or `rstrip` takes it away, and so do
    normalizers that strip or replace it.
    """
    for written, text in _new_texts(file):
        if text.strip() and text != text.strip():
            side = "begins" if text != text.lstrip() else "ends"
            help_ = "leave it out; `lstrip` and `rstrip` take white space with the token"
            yield Found(written.spot(text), f"'{text}' {side} with white space", help_)


def _unstable_text(file: MigrationFile) -> Iterator[Found]:
    """The text of a token is another one in Unicode's normal form NFC.

    Editors, browsers and many tokenizers write text in that form. It looks the same, and the token is not found in it.
    """
    for written, text in _new_texts(file):
        composed = unicodedata.normalize("NFC", text)
        if composed != text:
            shown = " ".join(f"U+{ord(letter):04X}" for letter in composed if letter not in text)
            yield Found(written.spot(text), f"'{text}' is not in the form NFC", f"write it with {shown}")


def _invisible_character(file: MigrationFile) -> Iterator[Found]:
    """The text of a token holds a character that cannot be seen.

    Nobody can type it, and a text that looks the same is cut otherwise. It mostly comes from copying out of a
    browser. Inside emoji, joiners are left alone.
    """
    for written, text in _new_texts(file):
        hidden = invisible(text)
        if hidden:
            shown = ", ".join(f"U+{ord(letter):04X} {unicodedata.name(letter, 'without a name')}" for letter in hidden)
            visible = "".join(letter for letter in text if letter not in hidden)
            yield Found(written.spot(text), f"'{visible}' holds {shown}", "type the text anew")


def _lookalike(seen: OnModel) -> Iterator[Found]:
    """A new token differs from another added token only in case, width or compatibility forms.

    `<|Im_Start|>` beside `<|im_start|>`, or `<|user|>` with full-width bars beside `<|user|>`: one of the two will be
    used where the other was meant, without an error.
    """
    others: dict[str, list[str]] = {}
    for text in seen.step.after.tokenizer.added:
        others.setdefault(likeness(text), []).append(text)
    told: set[str] = set()
    for cause, text in seen.new_tokens:
        alike = [other for other in others[likeness(text)] if other != text and other not in told]
        told.add(text)
        if alike:
            message = f"'{text}' looks like '{alike[0]}'"
            yield Found(cause.spot(text), message, "use the token that is there, or choose another text")


def _mixed_scripts(file: MigrationFile) -> Iterator[Found]:
    """Among the Latin letters of a token's text stands one of another script that looks like one of them.

    A Cyrillic or Greek letter between Latin ones cannot be told from the Latin letter that it looks like.
    """
    for written, text in _new_texts(file):
        foreign = foreign_letters(text)
        if foreign:
            shown = ", ".join(f"U+{ord(letter):04X} {unicodedata.name(letter)}" for letter in foreign)
            yield Found(written.spot(text), f"'{text}' holds {shown} among Latin letters", "write it in one script")


_RESERVED = re.compile(
    r"<\|?(reserved|buffer|placeholder|dummy|unused|extra|special)[_a-z]*[-_ ]?\d+\|?>|\[unused\d+\]",
    re.IGNORECASE,
)
# T5's are no spare ones: it was trained to write them.
_IN_USE = re.compile(r"<extra_id_\d+>")


def _reserved_token_free(seen: OnModel) -> Iterator[Found]:
    """Tokens are added behind the vocabulary although the tokenizer has reserved ones without a use.

    A reserved token has an id and a row already: with `rename_tokens` it gets the new text, and no matrix grows.
    """
    for written, before, after in seen.changes:
        if not isinstance(written.operation, AddTokens | AddRoleTokens) or after.rows == before.rows:
            continue
        new = [token for token in after.tokenizer.ids if token not in before.tokenizer.ids]
        free = [t for t in before.tokenizer.ids if _RESERVED.fullmatch(t) and not _IN_USE.fullmatch(t)]
        if len(free) >= len(new):
            message = f"{len(free)} reserved tokens have no use, such as '{free[0]}'; the matrices need not grow"
            help_ = f'rename_tokens: {{tokens: {{"{free[0]}": "{new[0]}"}}, init: {{strategy: mean}}}}'
            yield Found(written.place, message, help_)


def _inside_words(file: MigrationFile) -> Iterator[Found]:
    """A token that is a word is also found inside other words.

    An added token is looked for in all text, wherever it stands: `cat` cuts `category` in two.
    """
    for written in file.operations:
        if not isinstance(written.operation, AddTokens):
            continue
        for token in written.operation.tokens:
            edges = {unicodedata.category(token.content[0]), unicodedata.category(token.content[-1])}
            # Scripts without case are mostly written without spaces too.
            if edges <= {"Lu", "Ll", "Nd"} and not token.single_word:
                message = f"'{token.content}' is also found inside longer words"
                yield Found(written.spot(token.content), message, "give it `single_word: true`")


def _ordinary_token_cut_out(seen: OnModel) -> Iterator[Found]:
    """A token that text is made of becomes an added token.

    It is then looked for before the text is cut, so that words that it is a part of fall apart otherwise than in
    training.
    """
    for written, before, after in seen.changes:
        risk = cut_out(before, after)
        # Whoever sets flags of such a token says that it is meant.
        if risk is not None and not isinstance(written.operation, SetTokenFlags):
            tokens = [t for t in after.tokenizer.added if t not in before.tokenizer.added]
            yield Found(written.spot(*tokens), risk.reason, "add a token of its own for that")


def _special_flag_changed(seen: OnModel) -> Iterator[Found]:
    """A token that was there becomes special, or is special no more.

    Decoding with `skip_special_tokens=True` then leaves it out where programs relied on it, or shows it to users.
    """
    for written, before, after in seen.changes:
        for text, (token, _) in after.tokenizer.added.items():
            held = before.tokenizer.token(text)
            if held is not None and held.special != token.special:
                does = "leaves it out" if token.special else "shows it"
                message = f"'{text}' is {'special' if token.special else 'not special any more'}: decoding {does}"
                yield Found(written.spot(text), message, "add a token of its own, or tell all who decode")


def _found_as_other_text(seen: OnModel) -> Iterator[Found]:
    """A new token is found in text that is not its own.

    With `normalized: true` it is the normalised text that is looked for: after NFKC a token `①` is found in every `1`.
    """
    for cause, text in seen.new_tokens:
        sighting = seen.after.get(text)
        if sighting is not None and not sighting.missed and sighting.sought not in (text, ""):
            message = f"'{text}' is also found in every '{sighting.sought}': the normalizer makes that of it"
            yield Found(cause.spot(text), message, "give it `normalized: false`, or the text that is found")


_POINTLESS = {
    ("added", "renamed"): "add it with that text",
    ("added", "removed"): "leave it out",
    ("added", "begun anew"): "say with `init:` where it is added how its row starts",
    ("added", "flagged"): "give it the flags where it is added",
    ("renamed", "renamed"): "give it the last text at once",
    ("renamed", "removed"): "remove it by its old text",
    ("renamed", "begun anew"): "give rename_tokens the `init:`",
    ("begun anew", "removed"): "remove it only",
    ("begun anew", "begun anew"): "say once how its row starts",
    ("moved", "moved"): "move it once",
    ("moved", "removed"): "remove it only",
    ("removed", "added"): "reinit_tokens begins a row anew, and the id stays",
}
"""What becomes of a token in one file, one after the other, where one operation would do."""


def _changed_twice(file: MigrationFile) -> Iterator[Found]:
    """A token is changed by one operation, and then by another one of the same file.

    One operation says what it shall be; a reader of two has to work it out.
    """
    history: dict[str, tuple[str, int]] = {}
    for written in file.operations:
        for text, fate in _fates(written):
            held = history.get(text)
            help_ = _POINTLESS.get((held[0], fate)) if held else None
            if held and help_:
                message = f"'{text}' is {fate} here, and was {held[0]} in line {held[1]} of the same file"
                yield Found(written.spot(text), message, help_)
            history[text] = (fate, written.place.line)
        if isinstance(written.operation, RenameTokens):
            history |= dict.fromkeys(written.operation.tokens.values(), ("renamed", written.place.line))


def _fates(written: Written) -> Iterator[tuple[str, str]]:
    """Yield each token that an operation changes, with what becomes of it."""
    operation = written.operation
    for kind, fate in _FATES.items():
        if isinstance(operation, kind):
            texts = (getattr(token, "content", token) for token in operation.tokens)
            yield from ((str(text), fate) for text in texts)


_FATES = {
    AddTokens: "added",
    RenameTokens: "renamed",
    RemoveTokens: "removed",
    ReinitTokens: "begun anew",
    MoveTokens: "moved",
    SetTokenFlags: "flagged",
}


def _new_texts(file: MigrationFile) -> Iterator[tuple[Written, str]]:
    """Yield the text of each token that the file brings, or gives another text."""
    for written in file.operations:
        operation = written.operation
        texts: tuple[str, ...] = ()
        if isinstance(operation, AddTokens):
            texts = tuple(token.content for token in operation.tokens)
        elif isinstance(operation, RenameTokens):
            texts = tuple(operation.tokens.values())
        elif isinstance(operation, AddRoleTokens) and operation.roles is not None:
            texts = tuple(dict.fromkeys((*operation.roles.values(), *filter(None, (operation.end,)))))
        yield from ((written, text) for text in texts)


RULES = (
    ModelRule(
        "TM101",
        "token-not-found",
        Severity.ERROR,
        _not_found,
        wrong="""\
operations:
  - set_normalizer: {type: Prepend, prepend: "▁"}
  - add_tokens: ["<tool>"]
""",
        right="""\
operations:
  - set_normalizer: {type: Prepend, prepend: "▁"}
  - add_tokens:
      tokens:
        - {content: "<tool>", normalized: false}
""",
    ),
    ModelRule(
        "TM102",
        "token-within-another",
        Severity.WARNING,
        _within_another,
        wrong="""\
operations:
  - add_tokens: ["<tool>", "<tool>:"]
""",
        right="""\
operations:
  - add_tokens: ["<tool>", "</tool>"]
""",
    ),
    FileRule(
        "TM103",
        "space-at-the-edge",
        Severity.WARNING,
        _space_at_the_edge,
        wrong="""\
operations:
  - add_tokens: ["<tool> "]
""",
        right="""\
operations:
  - add_tokens:
      tokens:
        - {content: "<tool>", rstrip: true}
""",
    ),
    FileRule(
        "TM104",
        "unstable-text",
        Severity.WARNING,
        _unstable_text,
        wrong="""\
operations:
  - add_tokens: ["<cafe\\u0301>"]
""",
        right="""\
operations:
  - add_tokens: ["<caf\\u00e9>"]
""",
    ),
    FileRule(
        "TM105",
        "invisible-character",
        Severity.ERROR,
        _invisible_character,
        wrong="""\
operations:
  - add_tokens: ["<tool\\u200b>"]
""",
        right="""\
operations:
  - add_tokens: ["<tool>"]
""",
    ),
    ModelRule(
        "TM106",
        "lookalike",
        Severity.WARNING,
        _lookalike,
        wrong="""\
operations:
  - add_tokens: ["<|tool|>", "<|Tool|>"]
""",
        right="""\
operations:
  - add_tokens: ["<|tool|>", "<|result|>"]
""",
    ),
    FileRule(
        "TM107",
        "mixed-scripts",
        Severity.WARNING,
        _mixed_scripts,
        wrong="""\
operations:
  - add_tokens: ["<t\\u043e\\u043el>"]  # two Cyrillic letters
""",
        right="""\
operations:
  - add_tokens: ["<tool>"]
""",
    ),
    ModelRule(
        "TM108",
        "reserved-token-free",
        Severity.WARNING,
        _reserved_token_free,
        given="""\
operations:
  - add_tokens: ["<|reserved_0|>"]
""",
        wrong="""\
operations:
  - add_tokens: ["<tool>"]
""",
        right="""\
operations:
  - rename_tokens: {tokens: {"<|reserved_0|>": "<tool>"}, init: {strategy: mean}}
""",
    ),
    FileRule(
        "TM109",
        "found-inside-words",
        Severity.WARNING,
        _inside_words,
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
    ),
    ModelRule(
        "TM110",
        "ordinary-token-cut-out",
        Severity.WARNING,
        _ordinary_token_cut_out,
        wrong="""\
operations:
  - set_padding: {token: "!"}
""",
        right="""\
operations:
  - add_tokens:
      tokens:
        - {content: "<|pad|>", special: true}
  - set_padding: {token: "<|pad|>"}
""",
    ),
    ModelRule(
        "TM111",
        "special-flag-changed",
        Severity.WARNING,
        _special_flag_changed,
        given="""\
operations:
  - add_tokens: ["<tool>"]
""",
        wrong="""\
operations:
  - set_token_flags: {tokens: "<tool>", special: true}
""",
        right="""\
operations:
  - set_token_flags: {tokens: "<tool>", single_word: true}
""",
    ),
    ModelRule(
        "TM112",
        "found-as-other-text",
        Severity.WARNING,
        _found_as_other_text,
        wrong="""\
operations:
  - set_normalizer: NFKC
  - add_tokens: ["①"]
""",
        right="""\
operations:
  - set_normalizer: NFKC
  - add_tokens:
      tokens:
        - {content: "①", normalized: false}
""",
    ),
    FileRule(
        "TM113",
        "changed-twice",
        Severity.WARNING,
        _changed_twice,
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
    ),
)
