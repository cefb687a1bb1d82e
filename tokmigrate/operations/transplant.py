"""The operation `transplant`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from tokmigrate.errors import FileProblems, OperationError, Problem, in_one_line
from tokmigrate.formatting import format_count, format_quoted
from tokmigrate.init import InitRecipe, InitSpec
from tokmigrate.init.coefficients import Coefficients, read_coefficients
from tokmigrate.init.strategies import Copy
from tokmigrate.model.documents.architecture_quirks import ordered_tail
from tokmigrate.model.documents.chat_template import find_in_templates
from tokmigrate.model.documents.config_fields import role_of, shape_of, with_sizes
from tokmigrate.model.documents.declared import Documents, read_declared_roles
from tokmigrate.model.documents.pipeline_overrides import with_the_file_read
from tokmigrate.model.documents.reading import TOKENIZER_FILES, is_tokenizer_file, parse_document
from tokmigrate.model.documents.roles import text_of
from tokmigrate.model.documents.slow_tokenizer_files import list_slow_files
from tokmigrate.model.documents.state import (
    CONFIG,
    LEGACY_TEMPLATE,
    MORE_TEMPLATES,
    PREPROCESSOR,
    PROCESSOR,
    TEMPLATE,
    TOKENIZER_CONFIG,
    ModelState,
)
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.references.config_references import with_ids_of_config
from tokmigrate.model.references.references import ids_by_field, with_defaults_written
from tokmigrate.model.references.token_texts import SKIPPED, find_named_tokens, find_skipped_words
from tokmigrate.model.tokenizer.token_meaning import Spelling, match_tokens
from tokmigrate.model.tokenizer.tokenizer_json import FILE, SECTIONS, Tokenizer, view
from tokmigrate.operations.operation import Context, Operation, Risk, TokenChanges
from tokmigrate.operations.row_changes import (
    MEAN,
    check_ids_may_change,
    check_size_may_change,
    choose_init,
    init_recipe,
)
from tokmigrate.vocabulary.ids import Renumbering, count
from tokmigrate.vocabulary.row_edit import SIDES, RowEdit

_DIGITS = "1234567"
_TEMPLATES = ("chat_template", "response_template")
_OF_THE_MODEL = ("model_max_length",)
"""What tokenizer_config.json says of the model's layers and not of its tokenizer."""


class Transplant(Operation):
    """Give the model another model's tokenizer.

    Tokens that both have keep their rows. They are matched by what they mean and not by how they are spelled: `Ġthe` of
    a byte-level vocabulary and `▁the` of SentencePiece are one token, and so are `<0xE2>` and the letter for that byte.
    Special tokens are matched by role, then by text. If the new vocabulary has a second spelling of a token, its row is
    a copy. Rows of all other tokens are the sums that `coefficients` gives, or are initialised by `init`.

    There is a row for each id of the new tokenizer; `resize_vocab` behind it adds spare ones.

    The files of the tokenizer become those of the other one; `model_max_length` stays. Ids in config.json and
    generation_config.json follow by role, so the new tokenizer must have a token for each role that they name.
    """

    name: ClassVar[str] = "transplant"
    # No token is compared with one of another tokenizer.
    keeps_reachable: ClassVar[bool] = True

    tokenizer: str = Field(
        min_length=1, description="A directory with the files of the new tokenizer, relative to the migration."
    )
    coefficients: str | None = Field(
        default=None,
        min_length=1,
        description="A safetensors file that gives new rows as sums of old ones, as `learn transplant` writes it.",
    )
    init: InitSpec | None = Field(
        default=None,
        description="How new rows are initialised where there is no such file; `subtokens` reads the old"
        " tokens that the text of a new one is made of.",
    )
    template: Literal["keep", "donor"] = Field(
        default="keep", description="Whether the chat template stays, or is that of the new tokenizer."
    )
    acknowledge: Literal["breaking"] = Field(description="Acknowledges that data tokenized before no longer matches.")

    _attached: _Attached | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _check_init(self) -> Self:
        if self.coefficients is not None and self.init is not None:
            raise ValueError("give `coefficients` or `init`, not both")
        return self

    def references(self) -> tuple[str, ...]:
        return (*super().references(), *((self.coefficients,) if self.coefficients else ()))

    def directories(self) -> tuple[str, ...]:
        return (self.tokenizer,)

    def with_listed(self, attachments: Mapping[str, bytes]) -> Self:
        folder = f"{self.tokenizer.rstrip('/')}/"
        inside = {name.removeprefix(folder): data for name, data in attachments.items() if name.startswith(folder)}
        files = {name: data for name, data in inside.items() if is_tokenizer_file(name)}
        if FILE not in files:
            hint = "copy the files of a tokenizer into that directory"
            raise FileProblems([Problem(folder + FILE, 1, 1, "the file is missing", hint)])
        held = self.model_copy()
        coefficients = None if self.coefficients is None else attachments[self.coefficients]
        held._attached = _Attached(folder, files, self.coefficients, coefficients)
        return held

    def apply(self, state: ModelState, context: Context) -> ModelState:
        donor = self._donor()
        _check_may_change(state)
        match = match_documents(state, donor.documents)
        renumbering = Renumbering({number: match.kept.get(number) for number in range(state.rows)})
        size = donor.tokenizer.highest + 1
        check_ids_may_change(state, renumbering, state.vocab_size - size)
        if size != state.rows:
            check_size_may_change(state)
        if self.template == "keep":
            _check_template(state, donor.tokenizer)
        after = _with_tokenizer(
            _with_references(state, match, renumbering, donor.tokenizer), donor.documents, self.template
        )
        for section in SECTIONS:
            if after.documents[FILE].get(section) != state.documents[FILE].get(section):
                after = with_the_file_read(after, section)
        kept = {new: old for old, new in match.kept.items()}
        recipes = self._recipes(state, context, match, [number for number in range(size) if number not in kept])
        rows = (kept[number] if number in kept else recipes[number] for number in range(size))
        return with_sizes(after.with_rows(RowEdit.of(state.rows, rows)), state)

    def risk(self, before: ModelState, after: ModelState) -> Risk:
        lost = count(after.edit.find_lost_rows()) - count(before.edit.find_lost_rows())
        old, new = len(before.tokenizer.ids), len(after.tokenizer.ids)
        digits = [len(state.tokenizer.pieces(_DIGITS)) for state in (before, after)]
        numbers = "" if digits[0] == digits[1] else ", numbers in other groups of digits"
        return Risk.breaking(
            f"another tokenizer, with {format_count(new, 'token')} instead of {old:,}: {format_count(lost, 'row')} will"
            f" be lost, and text is tokenized differently{numbers}"
        )

    def token_changes(self) -> TokenChanges | None:
        if self.coefficients is None:
            return None
        donor = self._donor()
        new = donor.coefficients.tokens if donor.coefficients else ()
        texts = tuple(donor.tokenizer.texts[number] for number in new)
        return TokenChanges(extended=texts, vocabulary=frozenset(donor.tokenizer.ids))

    def expected(self, state: ModelState, context: Context) -> ModelState:
        if self.coefficients is None:
            raise OperationError(
                "which rows it initialised cannot be seen in the files of a model",
                hint="`tokmigrate stamp --from DIR` stamps a copy of a model that was there",
            )
        return super().expected(state, context)

    def describe(self) -> str:
        return f"{self.name}: the tokenizer in {self.tokenizer}"

    def _recipes(
        self, state: ModelState, context: Context, match: Match, numbers: Sequence[int]
    ) -> dict[int, InitRecipe]:
        """Return the recipes of new rows by their numbers."""
        donor, spec = self._donor(), choose_init(state, context, self.init)
        coefficients, texts = donor.coefficients, donor.tokenizer.texts
        if coefficients is not None:
            coefficients.check_sources(state.tokenizer.texts)
        new = frozenset(texts[number] for number in numbers if number in texts)
        lookup = _Pieces(state.tokenizer, Spelling(donor.tokenizer), new)
        # One value for each row that many sums read.
        rows = list(range(state.rows))
        recipes: dict[int, InitRecipe] = {}
        missing: list[str] = []
        for number in numbers:
            text = texts.get(number)
            if text is None:
                recipes[number] = init_recipe(state, context, f"row {number}", MEAN)
            elif number in match.copied:
                copied = InitSpec(input=Copy(strategy="copy", token=state.tokenizer.texts[match.copied[number]]))
                recipes[number] = init_recipe(state, context, text, copied)
            elif coefficients is None:
                recipes[number] = init_recipe(state, context, text, spec, lookup=lookup)
            elif number in coefficients:
                start, end = (coefficients.start(side, number, rows) for side in SIDES)
                recipes[number] = InitRecipe(context.revision, text, start, end, state.population)
            else:
                missing.append(text)
        if missing:
            raise OperationError(
                f"it has no coefficients for {format_count(len(missing), 'token')}: {format_quoted(missing, 5)}",
                where=self.coefficients,
                hint="compute them for this model: `tokmigrate learn transplant`",
            )
        return recipes

    def _donor(self) -> _Attached:
        if self._attached is None:
            raise ValueError("`transplant` has to be given its files before it is applied")
        return self._attached


@dataclass(frozen=True)
class _Attached:
    """The files of the new tokenizer, in `folder`, and the bytes of the coefficients, by their path."""

    folder: str
    files: Mapping[str, bytes] = field(repr=False)
    path: str | None
    data: bytes | None = field(repr=False)

    @cached_property
    def documents(self) -> Documents:
        return {name: parse_document(name, data, self.folder + name) for name, data in self.files.items()}

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return view(self.documents[FILE]).check()

    @cached_property
    def coefficients(self) -> Coefficients | None:
        if self.path is None or self.data is None:
            return None
        found = read_coefficients(self.path, self.data)
        if found.said.get("donor") != self.tokenizer.fingerprint or not self.tokenizer.texts.keys() >= {*found.tokens}:
            raise OperationError(
                f"the coefficients are not those of the tokenizer in {self.folder}",
                where=self.path,
                hint="write both again with `tokmigrate learn transplant`",
            )
        return found


@dataclass(frozen=True)
class Match:
    """Which old rows the tokens of a new tokenizer have.

    Args:
        kept: The new id of each old row that stays.
        copied: The old row that each further token with that meaning copies, by the new id.
        roles: The new token of each role.
        texts: The new text of each old token that stays.
    """

    kept: Mapping[int, int]
    copied: Mapping[int, int]
    roles: Mapping[str, str]
    texts: Mapping[str, str]


def match_documents(state: ModelState, documents: Documents) -> Match:
    """Return which rows of a model the tokens of another tokenizer have; `documents` are that tokenizer's files."""
    new, old = view(documents[FILE]), state.tokenizer
    roles = read_declared_roles({CONFIG: state.documents[CONFIG], **documents})
    kept: dict[int, int] = {}
    copied: dict[int, int] = {}
    for number, row in match_tokens(old, new, read_declared_roles(state.documents), roles).items():
        if kept.setdefault(row, number) != number:
            copied[number] = row
    roles = {role: text for role, text in roles.items() if text in new.ids}
    return Match(kept, copied, roles, {old.texts[row]: new.texts[number] for row, number in kept.items()})


@dataclass(frozen=True)
class _Pieces:
    """The old tokenizer; the pieces of a new token are the old tokens that its text is made of."""

    tokenizer: Tokenizer
    spelling: Spelling
    new: frozenset[str]

    @cached_property
    def ids(self) -> Mapping[str, int]:
        # An old token that is spelled like a new one means something else.
        return {token: number for token, number in self.tokenizer.ids.items() if token not in self.new}

    def pieces(self, text: str) -> tuple[int, ...]:
        if text not in self.new:
            return self.tokenizer.pieces(text)
        return find_pieces(self._own, self.spelling, text)

    @cached_property
    def _own(self) -> Spelling:
        return Spelling(self.tokenizer)


def find_pieces(old: Spelling, new: Spelling, token: str) -> tuple[int, ...]:
    """Return the ids of the old tokens that the text of a token of another vocabulary is made of."""
    meaning = new.find_meaning(token)
    return old.find_pieces(token.encode("utf-8", "surrogatepass") if meaning is None else meaning)


def _check_may_change(state: ModelState) -> None:
    """Raise OperationError for a model whose ids mean more than a row."""
    model_type, tail = state.traits.model_type, ordered_tail(state)
    if tail is not None:
        reason = tail.describe(model_type)
    elif state.traits.has_tables:
        reason = f"a {model_type} model looks tokens up in a table of integers, whose rows can only be copied"
    elif state.traits.short or state.traits.stops:
        reason = f"a {model_type} model has tensors without rows for some of the ids"
    else:
        return
    raise OperationError(reason, hint="its vocabulary can be extended and pruned, and not be replaced")


def _check_template(state: ModelState, new: Tokenizer) -> None:
    """Raise OperationError where the chat template writes a token that the new tokenizer does not have."""
    gone = [token for token in state.tokenizer.added if token not in new.ids]
    for token, template in find_in_templates(state, gone).items():
        raise OperationError(
            f"{template.kind} has '{token}', which the new tokenizer does not have",
            where=template.file,
            hint="add `template: donor`, or give the model another template first: set_chat_template",
        )


def _with_references(state: ModelState, match: Match, renumbering: Renumbering, new: Tokenizer) -> ModelState:
    """Return the state in which all files but those of the tokenizer name its new tokens."""
    old = state.tokenizer.texts

    def by_role(role: str, held: Json) -> Json:
        text = match.roles.get(role)
        if text is None or not isinstance(held, list):
            return None if text is None else new.ids[text]
        # Further ends of a generation stay if the new tokenizer has them.
        alike = (new.ids[other] for number in held if (other := old.get(number, "")) in new.ids)
        return list(dict.fromkeys((new.ids[text], *alike)))

    state = with_defaults_written(state, renumbering)
    for file, place, ids in ids_by_field(state):
        name = place.rpartition(".")[2]
        lost = [number for number in ids if renumbering.new(number) is None]
        if file != TOKENIZER_CONFIG and lost and shape_of(name) == "ids" and role_of(name) not in match.roles:
            raise _no_token(role_of(name), old.get(lost[0], str(lost[0])), file)
    for name, document in state.configurations.items():
        if name != TOKENIZER_CONFIG:
            declared = state.traits.id_fields
            changed = with_ids_of_config(document, renumbering, name, state.vocab_size, declared, by_role)
            state = state.with_document(name, changed)
    for file, path, entry in list(find_named_tokens(state)):
        if file in (PROCESSOR, PREPROCESSOR):
            role, held = str(path[-1]).removesuffix("_token"), str(text_of(entry))
            text = match.roles.get(role) or match.texts.get(held)
            if text is None:
                raise _no_token(role, held, file)
            state = state.with_value(file, (*path, "content") if isinstance(entry, dict) else path, text)
    for file, words in list(find_skipped_words(state)):
        if file != TOKENIZER_CONFIG:
            state = state.with_value(file, (SKIPPED,), [match.texts[word] for word in words if word in match.texts])
    return state


def _no_token(role: str, token: str, file: str) -> OperationError:
    return OperationError(
        f"the new tokenizer has no token for the role '{role}', which '{in_one_line(token)}' has",
        where=file,
        hint=f'name one in its tokenizer_config.json: "{role}_token": "…"',
    )


def _with_tokenizer(state: ModelState, donor: Documents, template: Literal["keep", "donor"]) -> ModelState:
    """Return the state with the files of another tokenizer in place of its own."""
    own = state.documents.get(TOKENIZER_CONFIG) or {}
    stays = (*_OF_THE_MODEL, *(_TEMPLATES if template == "keep" else ()))
    config = {key: held for key, held in (donor.get(TOKENIZER_CONFIG) or {}).items() if key not in stays}
    config |= {key: own[key] for key in stays if key in own}
    files = {**donor, TOKENIZER_CONFIG: config or None}
    names = {*TOKENIZER_FILES, *(name for name, _ in list_slow_files(state)), *donor}
    if template == "keep":
        names.discard(TEMPLATE)
    else:
        names |= {
            TEMPLATE,
            LEGACY_TEMPLATE,
            *(name for name in state.documents if name.startswith(f"{MORE_TEMPLATES}/")),
        }
    for name in sorted(names & {*state.documents, *files}):
        state = state.with_document(name, files.get(name))
    return state
