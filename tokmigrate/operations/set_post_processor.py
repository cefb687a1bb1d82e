"""The operation `set_post_processor`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pydantic import Field

from tokmigrate.errors import OperationError
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.tokenizer.tokenizer_json import FILE, post_processor_tokens
from tokmigrate.operations.base import Context, Risk, RiskLevel
from tokmigrate.operations.inline_json import Part
from tokmigrate.operations.known_tokens import id_of
from tokmigrate.operations.pipeline_part import SetPart


class SetPostProcessor(SetPart):
    """Set which tokens are put around a text.

    Takes a post-processor as it stands in a tokenizer.json, or `null` for none. JSON can be pasted as it is: unquoted
    `true`, `false`, `null` and numbers are typed, a quoted text stays text. The ids in it must be those of
    its tokens, since the library puts them out unchecked.
    """

    name: ClassVar[str] = "set_post_processor"
    shorthand: ClassVar[str | None] = "post_processor"
    section: ClassVar[str] = "post_processor"

    post_processor: Part = Field(description="The post-processor as in tokenizer.json; null for none.")

    def apply(self, state: ModelState, context: Context) -> ModelState:
        """Return the state with the post-processor, after its ids were checked and the library took it."""
        for processor in _each(self.part):
            _check_template(processor)
            for token, number in _named(processor):
                actual = id_of(state, token)
                if number != actual:
                    raise OperationError(
                        f"the post-processor gives '{token}' the id {number}, but its id is {actual}",
                        hint=f"write {actual}",
                    )
        return super().apply(state, context)

    def effect(self, before: ModelState, after: ModelState) -> Risk:
        """Say which tokens come and go around a text."""
        old, new = (list(dict.fromkeys(post_processor_tokens(each.documents[FILE]))) for each in (before, after))
        if old == new:
            return Risk(RiskLevel.CAUTION, "the special tokens around a text may stand elsewhere than in training")
        shown = [", ".join(f"'{token}'" for token in tokens) or "none" for tokens in (old, new)]
        return Risk(RiskLevel.CAUTION, f"the special tokens around a text were {shown[0]} in training, now {shown[1]}")


def _each(part: Any) -> Iterator[Mapping[str, Any]]:
    """Yield a post-processor and those inside it."""
    if isinstance(part, Mapping):
        yield part
        inner = part.get("processors")
        for each in inner if isinstance(inner, list) else []:
            yield from _each(each)


def _named(processor: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each token that a post-processor puts out, with the id it gives it."""
    for name in ("sep", "cls"):
        if isinstance(processor.get(name), list) and len(processor[name]) == 2:
            yield str(processor[name][0]), processor[name][1]
    for name, special in _specials(processor).items():
        if not isinstance(special, Mapping):
            continue
        ids, tokens = special.get("ids"), special.get("tokens")
        if not isinstance(ids, list) or not isinstance(tokens, list) or len(ids) != len(tokens):
            raise OperationError(f"the special token '{name}' of the post-processor needs as many ids as tokens")
        yield from zip(map(str, tokens), ids, strict=True)


def _check_template(processor: Mapping[str, Any]) -> None:
    """Raise OperationError where a template uses a special token that it does not define: that panics."""
    for side in ("single", "pair"):
        pieces = processor.get(side)
        for piece in pieces if isinstance(pieces, list) else []:
            used = piece.get("SpecialToken") if isinstance(piece, Mapping) else None
            if isinstance(used, Mapping) and used.get("id") not in _specials(processor):
                raise OperationError(
                    f"`{side}` uses '{used.get('id')}', which `special_tokens` of the post-processor does not define",
                    hint='add "NAME": {"id": "NAME", "ids": [id], "tokens": ["NAME"]} there',
                )


def _specials(processor: Mapping[str, Any]) -> Mapping[str, Any]:
    found = processor.get("special_tokens")
    return found if isinstance(found, Mapping) else {}
