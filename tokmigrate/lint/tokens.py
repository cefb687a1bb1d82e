"""TM1: whether tokens are found, and what their being there does."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tokmigrate.lint.file import Place
from tokmigrate.lint.model import OnModel
from tokmigrate.lint.rule import Found, ModelRule, Severity
from tokmigrate.lint.spelling import likeness
from tokmigrate.model.documents.tombstones import is_tombstone
from tokmigrate.model.formats.byte_letters import is_byte_level
from tokmigrate.model.tokenizer.tokenizer_json import FILE, model_kind
from tokmigrate.operations.add_role_tokens import AddRoleTokens
from tokmigrate.operations.add_tokens import AddTokens
from tokmigrate.operations.known_tokens import cut_out
from tokmigrate.operations.set_token_flags import SetTokenFlags


def _not_found(seen: OnModel) -> Iterator[Found]:
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


def _within_another(seen: OnModel) -> Iterator[Found]:
    """The text of a new token is part of another added token's text, or holds one.

    Of tokens that begin at the same place the longest is found. What was cut into the shorter one and something else
    becomes the longer token from now on; and whoever looks for the shorter one in a text, to stop there, finds it
    inside the longer.
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


def _lookalike(seen: OnModel) -> Iterator[Found]:
    """A new token differs from another added token only in case, width or compatibility forms.

    `<|Im_Start|>` beside `<|im_start|>`, or `<|user|>` with full-width bars beside `<|user|>`: one of the two will be
    used where the other was meant, without an error.
    """
    others: dict[str, list[str]] = {}
    for text in seen.step.after.tokenizer.added:
        others.setdefault(likeness(text), []).append(text)
    told: set[str] = set()
    for text, cause in seen.causes.items():
        alike = [other for other in others[likeness(text)] if other != text and other not in told]
        told.add(text)
        if alike:
            message = f"'{text}' looks like '{alike[0]}'"
            yield Found(cause.spot(text), message, "use the token that is there, or choose another text")


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
            message = f"the tokenizer has reserved tokens, such as '{free[0]}': the matrices need not grow"
            help_ = f'rename_tokens: {{tokens: {{"{free[0]}": "{new[0]}"}}, init: {{strategy: mean}}}}'
            if free[0] not in before.tokenizer.added:
                help_ += f'; then set_token_flags: {{tokens: "{new[0]}", special: true}}'
            yield Found(written.place, message, help_)


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
    for text, cause in seen.causes.items():
        sighting = seen.after.get(text)
        if sighting is not None and not sighting.missed and sighting.sought not in (text, ""):
            message = f"'{text}' is also found in every '{sighting.sought}': the normalizer makes that of it"
            yield Found(cause.spot(text), message, "give it `normalized: false`, or the text that is found")


def _vocabulary_notation(seen: OnModel) -> Iterator[Found]:
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
            yield Found(cause.spot(text), message, f"write '{text.removeprefix(sign)}'")


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
    ModelRule(
        "TM115",
        "vocabulary-notation",
        Severity.WARNING,
        _vocabulary_notation,
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
    ),
)
