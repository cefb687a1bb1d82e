"""TM1: whether added tokens are found in the texts that hold them, and what one file says twice."""

from __future__ import annotations

from collections.abc import Iterator

from tokmigrate.lint.rule import ERROR, WARNING, Found, add_special, escape_text, operations, rule
from tokmigrate.lint.subjects import Location, MigrationFile, OnModel, Written
from tokmigrate.model.tokenizer.byte_level import bytes_of_letters, is_byte_level
from tokmigrate.model.tokenizer.tokenizer_json import FILE, model_kind
from tokmigrate.operations.operation import TokenChanges
from tokmigrate.vocabulary.ids import is_tombstone


@rule(
    "TM101",
    ERROR,
    wrong=operations('set_normalizer: {type: Prepend, prepend: "▁"}', 'add_tokens: ["<tool>"]'),
    right=operations(
        'set_normalizer: {type: Prepend, prepend: "▁"}',
        'add_tokens: {tokens: [{content: "<tool>", normalized: false}]}',
    ),
)
def token_not_found(seen: OnModel) -> Iterator[Found]:
    """An added token is not found in text that holds it.

    A token with `normalized: true`, the default of those that are not special, is looked for in the text that the
    normalizer has made, and is itself normalised. Llama's puts `▁` before it, so that it is found at the beginning of a
    word only; and a token that is not normalised takes its part of the text first.
    """
    for text, sighting in seen.after.items():
        held = seen.before.get(text)
        if not sighting.missed or (held is not None and held.missed):
            continue
        cause = seen.causes.get(text)
        last_change = max((written.location for written in seen.file.operations), default=Location(1, 1))
        message = f"'{text}' is not found in '{sighting.missed[0]}'"
        help_ = "choose a text in which no other token is found first"
        if sighting.found:
            message += f", though it is in '{sighting.found[0]}'"
        if sighting.sought != text:
            message += f": what is looked for is '{sighting.sought}', which the normalizer makes of it"
            help_ = "give it `normalized: false`, or `special: true`"
        yield Found(cause.location_of(text) if cause else last_change, message, help_)


@rule(
    "TM102",
    WARNING,
    wrong=operations('add_tokens: ["<tool>", "<tool>:"]'),
    right=operations('add_tokens: ["<tool>", "</tool>"]'),
)
def token_within_another(seen: OnModel) -> Iterator[Found]:
    """The text of a new token is part of another added token's text, or holds one.

    Of tokens that begin at the same place the longest is found. What was tokenized as the shorter one and something
    else becomes the longer token; and code that searches a text for the shorter one, as a stop string, finds it
    inside the longer.
    """
    added = {text: token for text, (token, _) in seen.step.after.tokenizer.added.items() if text.strip()}
    for outer in added:
        ends = range(1, len(outer) + 1)
        for inner in {outer[start:end] for end in ends for start in range(end)} - {outer}:
            cause = seen.causes.get(outer) or seen.causes.get(inner)
            if inner not in added or cause is None or is_tombstone(outer):
                continue
            # A token that matches only between words is not found inside one.
            if not (added[inner].single_word and outer.isalnum()):
                help_ = "let no token be a prefix, a suffix or a part of another one"
                yield Found(cause.location_of(outer, inner), f"'{inner}' is part of '{outer}'", help_)


@rule(
    "TM112",
    WARNING,
    wrong=operations("set_normalizer: NFKC", 'add_tokens: ["①"]'),
    right=operations("set_normalizer: NFKC", 'add_tokens: {tokens: [{content: "①", normalized: false}]}'),
)
def found_as_other_text(seen: OnModel) -> Iterator[Found]:
    """A new token is found in text that is not its own.

    With `normalized: true` the normalised text is matched: after NFKC a token `①` is found in every `1`.
    """
    for text, cause in seen.causes.items():
        sighting = seen.after.get(text)
        if sighting is not None and not sighting.missed and sighting.sought not in (text, ""):
            message = f"'{text}' is also found in every '{sighting.sought}': the normalizer makes that of it"
            yield Found(cause.location_of(text), message, "give it `normalized: false`")


@rule(
    "TM115",
    WARNING,
    wrong=operations('add_tokens: {tokens: [{content: "Ġkubernetes", single_word: true}]}'),
    right=operations('add_tokens: {tokens: [{content: "kubernetes", single_word: true}]}'),
)
def vocabulary_notation(seen: OnModel) -> Iterator[Found]:
    """A new token is written like a piece of a word in the vocabulary, with a marker for the space before it.

    An added token is matched in the text itself, which has no such marker: `Ġcat` is found only if somebody
    writes `Ġcat`.
    """
    document = seen.step.after.documents[FILE]
    markers = {"Ġ", "Ċ"} if is_byte_level(document) else set()
    if model_kind(document) == "WordPiece":
        markers.add(document["model"].get("continuing_subword_prefix") or "##")
    if "▁" in f"{document.get('normalizer')}{document.get('pre_tokenizer')}":
        markers.add("▁")
    for text, cause in seen.causes.items():
        marker = next((marker for marker in sorted(markers) if text.startswith(marker) and text != marker), None)
        if marker is not None:
            message = f"'{text}' begins with '{marker}', which is in the vocabulary but not in texts"
            yield Found(cause.location_of(text), message, f"write {escape_text(text.removeprefix(marker))}")


@rule("TM116", WARNING, wrong=operations('add_tokens: ["<caf\\u00e9>"]'), right=operations('add_tokens: ["<cafe>"]'))
def not_decoded(seen: OnModel) -> Iterator[Found]:
    """A new token is decoded as another text than its own.

    A byte-level tokenizer writes letters for bytes, `é` for the byte E9 among them. When it decodes it takes a token
    that consists of such letters alone for bytes, an added one too: `<café>` comes back as `<caf` and a byte that is no
    character.
    """
    if not is_byte_level(seen.step.after.documents[FILE]):
        return
    for text, cause in seen.causes.items():
        octets = bytes_of_letters(text)
        if octets is not None and octets != text.encode("utf-8"):
            decoded = octets.decode("utf-8", "replace")
            message = f"'{text}' is decoded as {escape_text(decoded)}: this tokenizer takes its letters for bytes"
            yield Found(cause.location_of(text), message, "choose a text of ASCII letters")


_POINTLESS = {
    ("added", "renamed"): "add it with that text",
    ("added", "removed"): "leave it out",
    ("added", "reinitialised"): "give it the `init:` where it is added",
    ("added", "flagged"): "give it the flags where it is added",
    ("renamed", "renamed"): "give it the last text at once",
    ("renamed", "removed"): "remove it by its old text",
    ("renamed", "reinitialised"): "give rename_tokens the `init:`",
    ("reinitialised", "removed"): "remove it only",
    ("reinitialised", "reinitialised"): "initialise it once",
    ("moved", "moved"): "move it once",
    ("moved", "removed"): "remove it only",
    ("removed", "added"): "reinit_tokens initialises a row again, and the id stays",
}
"""Several operations of one file change the same token, where one would do."""


@rule(
    "TM113",
    WARNING,
    wrong=operations('add_tokens: ["<tool>"]', 'set_token_flags: {tokens: "<tool>", special: true}'),
    right=operations(add_special("<tool>")),
)
def changed_twice(file: MigrationFile) -> Iterator[Found]:
    """A token is changed by one operation, and then by another one of the same file.

    One operation shows the result; with two the reader has to derive it.
    """
    history: dict[str, tuple[str, int]] = {}
    for written in file.operations:
        changes = list(_changes(written.tokens))
        for text, change in changes:
            held = history.get(text)
            help_ = _POINTLESS.get((held[0], change)) if held else None
            if held and help_:
                message = f"'{text}' is {change} here, and was {held[0]} in line {held[1]} of the same file"
                yield Found(written.location_of(text), message, help_)
        after = [*changes, *((text, "renamed") for text in written.tokens.renamed.values())]
        history |= {text: (change, written.location.line) for text, change in after}


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
    WARNING,
    wrong=operations("set_normalizer: NFC", "set_normalizer: NFKC"),
    right=operations("set_normalizer: NFKC"),
)
def said_twice(file: MigrationFile) -> Iterator[Found]:
    """The same thing is set twice in one file.

    Only the last one counts, so the first one is misleading.
    """
    said: dict[str, Written] = {}
    for written in file.operations:
        for what in sorted(written.footprint.replaces):
            if what in said:
                message = f"{what} is set here, and was set in line {said[what].location.line} already"
                yield Found(written.location, message, "leave one of the two out")
            said[what] = written
