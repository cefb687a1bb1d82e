"""TM1: what tokens do to those that are there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tokmigrate.lint.file import Written
from tokmigrate.lint.model import OnModel
from tokmigrate.lint.rule import WARNING, Found, rule
from tokmigrate.lint.spelling import escaped, likeness
from tokmigrate.model.documents.state import ModelState
from tokmigrate.operations.token_checks import risk_of_added


@rule(
    "TM106",
    "lookalike",
    WARNING,
    wrong="""\
operations:
  - add_tokens: ["<|tool|>", "<|Tool|>"]
""",
    right="""\
operations:
  - add_tokens: ["<|tool|>", "<|result|>"]
""",
)
def lookalike(seen: OnModel) -> Iterator[Found]:
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


@rule(
    "TM108",
    "reserved-token-free",
    WARNING,
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
)
def reserved_token_free(seen: OnModel) -> Iterator[Found]:
    """Tokens are added behind the vocabulary although the tokenizer has reserved ones without a use.

    A reserved token has an id and a row already: with `rename_tokens` it gets the new text, and no matrix grows.
    """
    for written, before, after in seen.changes:
        if not written.tokens.added or after.rows == before.rows:
            continue
        new = [token for token in after.tokenizer.ids if token not in before.tokenizer.ids]
        free = [t for t in before.tokenizer.ids if _RESERVED.fullmatch(t) and not _IN_USE.fullmatch(t)]
        if len(free) >= len(new):
            message = f"the tokenizer has reserved tokens, such as '{free[0]}': the matrices need not grow"
            yield Found(written.place, message, _renaming(written, dict(zip(free, new, strict=False)), before, after))


def _renaming(written: Written, texts: Mapping[str, str], before: ModelState, after: ModelState) -> str:
    """Return the operations that give reserved tokens their new texts, with the flags that the new ones should have."""
    named = ", ".join(f"{escaped(free)}: {escaped(new)}" for free, new in texts.items())
    parts = [f"rename_tokens: {{tokens: {{{named}}}, init: {{strategy: mean}}}}"]
    for special in (True, False):
        wrong = [
            new
            for free, new in texts.items()
            if new in after.tokenizer.added
            and after.tokenizer.added[new][0].special is special
            and (free not in before.tokenizer.added or before.tokenizer.added[free][0].special is not special)
        ]
        if wrong:
            flagged = ", ".join(map(escaped, wrong))
            parts.append(f"set_token_flags: {{tokens: [{flagged}], special: {'true' if special else 'false'}}}")
    if written.tokens.roles:
        parts.append(f"{written.operation.name} with `existing: reuse`")
    return "; then ".join(parts)


@rule(
    "TM110",
    "ordinary-token-cut-out",
    WARNING,
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
)
def ordinary_token_cut_out(seen: OnModel) -> Iterator[Found]:
    """A token that text is made of becomes an added token.

    It is then looked for before the text is tokenized, so that words that it is a part of are split differently than in
    training.
    """
    for written, before, after in seen.changes:
        risk = risk_of_added(before, after)
        # Whoever sets flags of such a token says that it is meant.
        if risk is not None and not written.tokens.flagged:
            tokens = [t for t in after.tokenizer.added if t not in before.tokenizer.added]
            yield Found(written.spot(*tokens), risk.reason, "add a token of its own for that")


@rule(
    "TM111",
    "special-flag-changed",
    WARNING,
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
)
def special_flag_changed(seen: OnModel) -> Iterator[Found]:
    """A token that was there becomes special, or is special no more.

    Decoding with `skip_special_tokens=True` then leaves it out where programs relied on it, or shows it to users.
    """
    for written, before, after in seen.changes:
        for text, (token, _) in after.tokenizer.added.items():
            held = before.tokenizer.token(text)
            # A token that the same migration brings was not there for anybody.
            if held is not None and held.special != token.special and text not in seen.causes:
                does = "leaves it out" if token.special else "shows it"
                message = f"'{text}' is {'special' if token.special else 'not special any more'}: decoding {does}"
                help_ = "add a token of its own; if it is meant, write `# noqa: TM111` and tell all who decode"
                yield Found(written.spot(text), message, help_)
