"""TM1: whether added tokens are found in the texts that hold them, and in no other."""

from __future__ import annotations

from collections.abc import Iterator

from tokmigrate.lint.file import Place
from tokmigrate.lint.model import OnModel
from tokmigrate.lint.rule import ERROR, WARNING, Found, rule
from tokmigrate.lint.spelling import escaped
from tokmigrate.model.formats.byte_letters import bytes_of_letters, is_byte_level
from tokmigrate.model.tokenizer.tokenizer_json import FILE, model_kind
from tokmigrate.vocabulary.tokens import is_tombstone


@rule(
    "TM101",
    "token-not-found",
    ERROR,
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
)
def not_found(seen: OnModel) -> Iterator[Found]:
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
        place = cause.spot(text) if cause else _last_change(seen)
        example = f"'{sighting.missed[0]}'"
        message = f"'{text}' is not found in {example}"
        if sighting.found:
            message += f", though it is in '{sighting.found[0]}'"
        if sighting.sought != text:
            message += f": what is looked for is '{sighting.sought}', which the normalizer makes of it"
            yield Found(place, message, "give it `normalized: false`, or `special: true`")
        else:
            yield Found(place, message, "choose a text in which no other token is found first")


def _last_change(seen: OnModel) -> Place:
    return max((written.place for written in seen.file.operations), default=Place(1, 1))


@rule(
    "TM102",
    "token-within-another",
    WARNING,
    wrong="""\
operations:
  - add_tokens: ["<tool>", "<tool>:"]
""",
    right="""\
operations:
  - add_tokens: ["<tool>", "</tool>"]
""",
)
def within_another(seen: OnModel) -> Iterator[Found]:
    """The text of a new token is part of another added token's text, or holds one.

    Of tokens that begin at the same place the longest is found. What was tokenized as the shorter one and something
    else becomes the longer token; and whoever looks for the shorter one in a text, to stop there, finds it inside the
    longer.
    """
    added = {text: token for text, (token, _) in seen.step.after.tokenizer.added.items() if text.strip()}
    for outer in added:
        for inner in _parts(outer):
            cause = seen.causes.get(outer) or seen.causes.get(inner)
            if inner not in added or cause is None or is_tombstone(outer):
                continue
            # A token that matches only between words is not found inside one.
            if not (added[inner].single_word and outer.isalnum()):
                help_ = "let no token begin, end or stand inside another one"
                yield Found(cause.spot(outer, inner), f"'{inner}' is part of '{outer}'", help_)


def _parts(text: str) -> Iterator[str]:
    """Yield each part of a text once, but not the whole."""
    ends = range(1, len(text) + 1)
    yield from {text[start:end] for end in ends for start in range(end)} - {text}


@rule(
    "TM112",
    "found-as-other-text",
    WARNING,
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
)
def found_as_other_text(seen: OnModel) -> Iterator[Found]:
    """A new token is found in text that is not its own.

    With `normalized: true` it is the normalised text that is looked for: after NFKC a token `①` is found in every `1`.
    """
    for text, cause in seen.causes.items():
        sighting = seen.after.get(text)
        if sighting is not None and not sighting.missed and sighting.sought not in (text, ""):
            message = f"'{text}' is also found in every '{sighting.sought}': the normalizer makes that of it"
            yield Found(cause.spot(text), message, "give it `normalized: false`")


@rule(
    "TM115",
    "vocabulary-notation",
    WARNING,
    wrong="""\
operations:
  - add_tokens:
      tokens:
        - {content: "Ġkubernetes", single_word: true}
""",
    right="""\
operations:
  - add_tokens:
      tokens:
        - {content: "kubernetes", single_word: true}
""",
)
def vocabulary_notation(seen: OnModel) -> Iterator[Found]:
    """A new token is written as the vocabulary writes pieces of words, with a sign for the space before it or for none.

    An added token is looked for in the text itself, where no such sign stands: `Ġcat` is found only where somebody
    writes `Ġcat`.
    """
    document = seen.step.after.documents[FILE]
    signs = {"Ġ", "Ċ"} if is_byte_level(document) else set()
    if model_kind(document) == "WordPiece":
        signs.add(document["model"].get("continuing_subword_prefix") or "##")
    if "▁" in f"{document.get('normalizer')}{document.get('pre_tokenizer')}":
        signs.add("▁")
    for text, cause in seen.causes.items():
        sign = next((sign for sign in sorted(signs) if text.startswith(sign) and text != sign), None)
        if sign is not None:
            message = f"'{text}' begins with '{sign}', which stands in the vocabulary and not in texts"
            yield Found(cause.spot(text), message, f"write {escaped(text.removeprefix(sign))}")


@rule(
    "TM116",
    "not-decoded",
    WARNING,
    wrong="""\
operations:
  - add_tokens: ["<caf\\u00e9>"]
""",
    right="""\
operations:
  - add_tokens: ["<cafe>"]
""",
)
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
            message = f"'{text}' is decoded as {escaped(decoded)}: this tokenizer takes its letters for bytes"
            yield Found(cause.spot(text), message, "choose a text of ASCII letters")
