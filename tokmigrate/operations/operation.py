"""What every operation is: frozen data, a pure function between two model states, and what it says about itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field

from tokmigrate.formatting import format_quoted
from tokmigrate.init import InitSpec
from tokmigrate.model.documents.state import ModelState
from tokmigrate.strict_yaml.validation import Closed
from tokmigrate.vocabulary.ids import AddedToken

DEFAULT_INIT = "the default init of new rows"
CHAT_TEMPLATE = "the chat template"
ALL_IDS = "the ids of all tokens"


class RiskLevel(StrEnum):
    """How much an operation can do to a trained model."""

    SAFE = "safe"
    CAUTION = "caution"
    BREAKING = "breaking"


@dataclass(frozen=True)
class Risk:
    """How much an operation can do to one model, with the reason."""

    level: RiskLevel
    reason: str

    @classmethod
    def safe(cls, reason: str) -> Risk:
        return cls(RiskLevel.SAFE, reason)

    @classmethod
    def caution(cls, reason: str) -> Risk:
        return cls(RiskLevel.CAUTION, reason)

    @classmethod
    def breaking(cls, reason: str) -> Risk:
        return cls(RiskLevel.BREAKING, reason)


@dataclass(frozen=True)
class Context:
    """What an operation may know besides the model: of its migration the id, the `init:`, and the attached files."""

    revision: str
    init: InitSpec | None = None
    attachments: Mapping[str, bytes] = field(default_factory=dict)


class Item(Closed):
    """An item of a list in a migration file: `- name: fields`."""

    name: ClassVar[str]
    shorthand: ClassVar[str | None] = None
    """The field that a single value stands for."""


class NewToken(Closed):
    """A token to add, with the flags that the tokenizers library gives an added token."""

    content: str = Field(min_length=1, description="The text of the token.")
    special: bool = Field(default=False, description="Decoding may skip it.")
    single_word: bool = Field(default=False, description="It matches only between word boundaries.")
    lstrip: bool = Field(default=False, description="It removes white space left of it; decoding does not restore it.")
    rstrip: bool = Field(default=False, description="It removes white space right of it; decoding does not restore it.")
    normalized: bool | None = Field(
        default=None, description="It is matched in the normalised text; by default unless it is special."
    )
    language: bool = Field(
        default=False, description="Whisper: a special token after the other languages, which `lang_to_id` names."
    )
    init: InitSpec | None = Field(default=None, description="How its row is initialised.")

    @property
    def is_special(self) -> bool:
        return self.special or self.language

    def to_added_token(self) -> AddedToken:
        """Return the token as tokenizer.json holds it."""
        normalized = not self.is_special if self.normalized is None else self.normalized
        return AddedToken(self.content, self.is_special, self.single_word, self.lstrip, self.rstrip, normalized)


@dataclass(frozen=True)
class TokenChanges:
    """What an operation does to tokens.

    Args:
        may_exist: Whether the tokenizer may have a token of `added` already.
        extended: The tokens that it adds to the tokenizer's own model, if they are not there already.
        vocabulary: All tokens that there are afterwards, where it replaces the tokenizer.
        renamed: The new text of each renamed token, by the old one.
        moved: The new id of each token that is moved by name.
        reinitialised: The tokens whose rows are initialised again, by their texts after the operation.
        flagged: The tokens whose flags it sets.
        roles: The tokens that it gives a role or names in a setting, by that role or setting.
    """

    added: tuple[NewToken, ...] = ()
    may_exist: bool = False
    extended: tuple[str, ...] = ()
    vocabulary: frozenset[str] | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    moved: Mapping[str, int] = field(default_factory=dict)
    reinitialised: tuple[str, ...] = ()
    flagged: tuple[str, ...] = ()
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of the tokens that it changes, each once."""
        added = (*(token.content for token in self.added), *self.extended)
        changed = (*added, *self.renamed, *self.removed, *self.moved, *self.reinitialised, *self.flagged)
        return tuple(dict.fromkeys(changed))

    @property
    def keeps_tokens(self) -> bool:
        """Whether the same tokens have the same ids and rows afterwards."""
        changed = (self.added, self.extended, self.renamed, self.removed, self.moved, self.reinitialised)
        return self.vocabulary is None and not any(changed)

    @property
    def keeps_ids(self) -> bool:
        """Whether every token that is still there afterwards has the id that it had."""
        # Ids close up after a removed token, and a language is inserted before the tokens after the languages.
        moves = self.removed or self.moved or any(token.language for token in self.added)
        return self.vocabulary is None and not moves


@dataclass(frozen=True)
class Footprint:
    """What an operation reads and writes, in words: two branches are independent where these do not meet.

    Args:
        writes: Tokens, ids, roles and parts of the tokenizer that it changes.
        reads: What must stay as it is for that.
        replaces: Settings that it writes whole, so that an earlier value has no effect.
    """

    writes: frozenset[str] = frozenset()
    reads: frozenset[str] = frozenset()
    replaces: frozenset[str] = frozenset()

    @staticmethod
    def of(writes: Iterable[str] = (), reads: Iterable[str] = (), replaces: Iterable[str] = ()) -> Footprint:
        """Return the footprint of these words; what is replaced is written too."""
        whole = frozenset(replaces)
        return Footprint(frozenset(writes) | whole, frozenset(reads), whole)

    def __or__(self, other: Footprint) -> Footprint:
        return Footprint(self.writes | other.writes, self.reads | other.reads, self.replaces | other.replaces)

    @staticmethod
    def name_tokens(texts: Iterable[str]) -> Iterator[str]:
        """Yield the words for tokens."""
        return (f"the token '{text}'" for text in texts)

    @staticmethod
    def name_init(init: InitSpec | None) -> Iterable[str]:
        """Return the words for what the init of a row reads."""
        if init is None:
            return (DEFAULT_INIT,)
        return Footprint.name_tokens(_tokens_in(init.model_dump(mode="json")))

    def conflicts(self, other: Footprint) -> tuple[str, ...]:
        """Return what one writes and the other reads or writes, sorted."""
        return tuple(sorted(self.writes & (other.writes | other.reads) | other.writes & self.reads))


def _tokens_in(held: Any) -> Iterator[str]:
    if isinstance(held, dict):
        for key, value in held.items():
            if key == "token":
                yield value
            elif key == "tokens":
                yield from value
            else:
                yield from _tokens_in(value)


TokenList = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(
        lambda value: (value,) if isinstance(value, str) else value, json_schema_input_type=str | list[str]
    ),
    Field(min_length=1),
]
"""A field that lists tokens; a text alone is a list of one."""


class Operation(Item, ABC):
    """A change of a model's vocabulary; subclasses add the fields that a migration file gives.

    `apply` and `risk` are what each one needs. The other methods have defaults that treat it as unknown, so that no
    command trusts what it cannot tell; an operation that overrides them is treated like those of the package.
    """

    keeps_reachable: ClassVar[bool] = False
    """Whether `apply` itself sees to it that text can still produce every token that it could produce."""

    acknowledge: Literal["breaking"] | None = Field(
        default=None, description="Acknowledges a breaking change; required if the risk is `breaking`."
    )

    @abstractmethod
    def apply(self, state: ModelState, context: Context) -> ModelState:
        """Return the state after this operation; raises OperationError where it cannot be applied."""

    @abstractmethod
    def risk(self, before: ModelState, after: ModelState) -> Risk:
        """Return how risky it was to get from `before` to `after`."""

    def token_changes(self) -> TokenChanges | None:
        """Return what it does to tokens, for `stamp`, `squash`, `lint` and `blame`; None where that is not known."""
        return None

    def token_changes_in(self, state: ModelState) -> TokenChanges | None:  # noqa: ARG002
        """Return what it did to tokens, as far as a model shows that it was applied to, perhaps before others."""
        return self.token_changes()

    def footprint(self) -> Footprint | None:
        """Return what it reads and writes, for `rebase` and `lint`; None where that may be anything."""
        return None

    def expected(self, state: ModelState, context: Context) -> ModelState:
        """Return what `state` has to be for the operation to have been applied to it, besides `token_changes`.

        By default an operation that changes tokens expects nothing more, and any other one is applied again, which
        must change nothing. The tokens of `state` are as they are after the migrations up to the revision in question.
        """
        changes = self.token_changes()
        return self.apply(state, context) if changes is None or changes.keeps_tokens else state

    def describe(self) -> str:
        """Return what it does in a few words, for `plan` and `blame`: its name and the tokens that it changes."""
        changes = self.token_changes()
        return f"{self.name} {format_quoted(changes.texts)}" if changes and changes.texts else self.name

    @property
    def row_init(self) -> InitSpec | None:
        """The field `init`, where it has one."""
        found = getattr(self, "init", None)
        return found if isinstance(found, InitSpec) else None

    def references(self) -> tuple[str, ...]:
        """Return the files that the operation refers to, relative to the migration file."""
        return self.row_init.references() if self.row_init else ()

    def directories(self) -> tuple[str, ...]:
        """Return the directories that it refers to for the files of the tokenizer in them."""
        return ()

    def with_listed(self, attachments: Mapping[str, bytes]) -> Self:
        """Return the operation with the tokens that stand in its files; raises FileProblems that name the file alone.

        `attachments` has the bytes of all `references` by name, those of a directory by its files. It is called once,
        before any of the other methods.
        """
        del attachments
        return self

    def with_files(self, stem: str) -> tuple[Self, Mapping[str, str]]:
        """Return the operation that names files for lists that are too long for a migration, and their texts.

        The name of a file is `stem` with an ending. Nothing is moved that a file cannot hold.
        """
        del stem
        return self, {}
