"""Every place of a model that holds ids of tokens follows when ids change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tokmigrate.model.class_defaults.default_ids import default_ids
from tokmigrate.model.documents.config_parts import parts_of
from tokmigrate.model.documents.id_fields import Shape, role_of
from tokmigrate.model.documents.ordered_tail import ordered_tail
from tokmigrate.model.documents.other_vocabularies import with_vocabularies_in_step
from tokmigrate.model.documents.roles import with_added_tokens, with_added_tokens_decoder
from tokmigrate.model.documents.state import (
    CONFIG,
    GENERATION,
    MODULE_CONFIG,
    PREPROCESSOR,
    PROCESSOR,
    SENTENCE_TRANSFORMERS,
    TOKENIZER_CONFIG,
    ModelState,
)
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.references.companion_references import with_ids_of_companions
from tokmigrate.model.references.config_references import ids_held, sizes_of, suspects, with_fields, with_ids_of_config
from tokmigrate.model.references.tokenizer_references import with_ids_of_tokenizer
from tokmigrate.model.tokenizer.token_ids import with_token_ids
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.vocabulary.renumbering import Renumbering
from tokmigrate.vocabulary.tokens import AddedToken

CONFIGURATIONS = (CONFIG, GENERATION, PROCESSOR, PREPROCESSOR, TOKENIZER_CONFIG, SENTENCE_TRANSFORMERS)


def configurations(documents: Mapping[str, Json]) -> dict[str, Json]:
    """Return the files in which ids stand under names of fields, those of sentence-transformers' modules among them."""
    return {name: held for name, held in documents.items() if name in CONFIGURATIONS or name.endswith(MODULE_CONFIG)}


def with_renumbered(state: ModelState, renumbering: Renumbering) -> ModelState:
    """Return the state in which every file gives the tokens their new ids; the rows are the caller's.

    Args:
        state: The state before.
        renumbering: What becomes of ids.

    Raises:
        OperationError: An id that goes is in use, or a file cannot hold the new ids.
        OutOfStepError: A field that is not known seems to hold an id that changes.
    """
    before = state
    ids = {content: renumbering.new(number) for content, number in state.tokenizer.ids.items()}
    state = with_references(state, renumbering)
    left = {content: number for content, number in ids.items() if number is not None}
    state = state.with_document(FILE, with_token_ids(state.tokenizer, left).document)
    state = with_vocabularies_in_step(before, with_ids_of_companions(state, renumbering), renumbering)
    return with_added_tokens_decoder(state)


def with_inserted_tokens(state: ModelState, tokens: Sequence[AddedToken], start: int, stop: int) -> ModelState:
    """Return the state in which new tokens have the ids from `start` on, and every file follows; rows are the caller's.

    Args:
        state: The state before.
        tokens: The new tokens, in the order of their ids.
        start: The first id that moves up.
        stop: The first id behind those that move; ids from there on that have no token make room.

    Raises:
        OperationError: A file cannot hold the new ids.
        OutOfStepError: A field that is not known seems to hold an id that changes.
    """
    before = state
    shift = Renumbering({number: number + len(tokens) for number in range(start, stop)})
    state = with_added_tokens(with_references(state, shift), tokens)
    # The files list the new tokens at the end so far.
    moves = {number: shift.new(number) for number in before.tokenizer.texts if shift.touches(number)}
    moves |= {state.tokenizer.ids[token.content]: start + place for place, token in enumerate(tokens)}
    renumbering = Renumbering(moves)
    held = state.tokenizer.ids.items()
    ids = {content: new for content, number in held if (new := renumbering.new(number)) is not None}
    state = state.with_document(FILE, with_token_ids(state.tokenizer, ids).document)
    return with_vocabularies_in_step(before, with_ids_of_companions(state, renumbering), shift)


def with_references(state: ModelState, renumbering: Renumbering) -> ModelState:
    """Return the state in which all that refers to ids follows, without the lists of tokens themselves.

    Args:
        state: The state before.
        renumbering: What becomes of ids.

    Raises:
        OperationError: An id that goes is in use.
        OutOfStepError: A field that is not known seems to hold an id that changes.
    """
    state = with_defaults_written(state, renumbering)
    state = state.with_document(FILE, with_ids_of_tokenizer(state.documents[FILE], renumbering))
    for name, document in configurations(state.documents).items():
        changed = with_ids_of_config(document, renumbering, name, state.vocab_size, state.traits.id_fields)
        state = state.with_document(name, changed)
    return state


def with_defaults_written(state: ModelState, renumbering: Renumbering) -> ModelState:
    """Return the state in which config.json says the ids that change and that transformers took by default."""
    for path, part in parts_of(state.documents[CONFIG], state.vocab_size):
        model_type = str(part.get("model_type", "" if path else state.traits.model_type))
        for name, value in default_ids(model_type).items():
            numbers = value if isinstance(value, list) else [value]
            if name not in part and any(renumbering.touches(number) for number in numbers):
                state = state.with_value(CONFIG, (*path, name), value)
    return state


def unknown_references(state: ModelState) -> Iterator[str]:
    """Yield a line for each field that looks like the id of a token and is not known."""
    for name, document in configurations(state.documents).items():
        sizes = sizes_of(document, state.vocab_size)
        numbers: dict[str, list[int]] = {}
        for place, number in suspects(document, sizes, state.traits.id_fields):
            numbers.setdefault(place, []).append(number)
        for place, held in numbers.items():
            shown = ", ".join(map(str, held[:5])) + (" …" if len(held) > 5 else "")
            yield (
                f"{name}: '{place}' holds {shown} and may be the id of a token; it is left alone;"
                f' say which, in tokmigrate.yaml: id_fields: {{"{place}": ids}}, or ignore'
            )


@dataclass(frozen=True)
class IdWithoutToken:
    """A field that holds ids which no token has.

    Args:
        file: The file.
        place: The field's dotted place in it.
        ids: Those ids.
        has_row: Whether each of them has a row.
    """

    file: str
    place: str
    ids: tuple[int, ...]
    has_row: bool

    @property
    def role(self) -> str:
        """What set_special_tokens calls the field."""
        return role_of(self.place.rpartition(".")[2])

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.ids[:5])) + (" …" if len(self.ids) > 5 else "")
        rows = "" if self.has_row else ", and has no row" if len(self.ids) == 1 else ", and not all have a row"
        return f"{self.file}: '{self.place}' holds {shown}, which no token has{rows}"


def ids_without_token(state: ModelState) -> Iterator[IdWithoutToken]:
    """Yield each known field that holds an id which no token has; timestamps that have none are no fault."""
    texts, tail = state.tokenizer.texts, ordered_tail(state)
    timestamps = range(tail.start, tail.stop) if tail else range(0)
    for file, place, held in ids_by_field(state):
        ids = tuple(number for number in held if number not in texts and number not in timestamps)
        if ids:
            yield IdWithoutToken(file, place, ids, max(ids) < state.rows)


def ids_by_field(state: ModelState) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield each known field of the configurations that holds ids, with its file, its dotted place and the ids."""
    for file, document in configurations(state.documents).items():
        held: list[tuple[str, str, tuple[int, ...]]] = []

        def note(
            place: tuple[str, ...],
            value: Json,
            shape: Shape,
            file: str = file,
            held: list[tuple[str, str, tuple[int, ...]]] = held,
        ) -> Json:
            held.append((file, ".".join(place), tuple(ids_held(value, shape))))
            return value

        sizes = frozenset({state.vocab_size, document.get("vocab_size", state.vocab_size)})
        with_fields(document, note, sizes, state.traits.id_fields)
        yield from held
