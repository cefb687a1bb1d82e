"""Every place of a model that holds ids of tokens follows when ids change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tokmigrate.errors import OperationError
from tokmigrate.model.documents.architecture_quirks import ordered_tail
from tokmigrate.model.documents.config_fields import Shape, parts_of, role_of
from tokmigrate.model.documents.pipeline_overrides import default_ids
from tokmigrate.model.documents.roles import with_added_tokens, with_added_tokens_decoder
from tokmigrate.model.documents.slow_tokenizer_files import with_slow_files_in_step
from tokmigrate.model.documents.state import (
    ADDED_TOKENS,
    CONFIG,
    GENERATION,
    MODULE_CONFIG,
    PREPROCESSOR,
    PROCESSOR,
    SENTENCE_TRANSFORMERS,
    TOKENIZER_CONFIG,
    VOCAB_JSON,
    VOCAB_TXT,
    ModelState,
)
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.references.config_references import ids_held, sizes_of, suspects, with_fields, with_ids_of_config
from tokmigrate.model.tokenizer.tokenizer_json import FILE, Tokenizer, check_can_be_inside, with_tokens_inside
from tokmigrate.vocabulary.ids import AddedToken, Renumbering


def with_ids_in_slow_files(state: ModelState, renumbering: Renumbering) -> ModelState:
    """Return the state with added_tokens_decoder, added_tokens.json, vocab.json and vocab.txt in step.

    Args:
        state: The state before.
        renumbering: How ids change.

    Raises:
        OperationError: A file has no way to say it.
    """
    decoder = (state.documents.get(TOKENIZER_CONFIG) or {}).get("added_tokens_decoder")
    if isinstance(decoder, dict):
        state = state.with_value(TOKENIZER_CONFIG, ("added_tokens_decoder",), _by_id(decoder, renumbering))
    for name in (ADDED_TOKENS, VOCAB_JSON):
        if name in state.documents:
            state = state.with_document(name, _by_text(state.documents[name], renumbering, name))
    if VOCAB_TXT in state.documents:
        state = state.with_document(VOCAB_TXT, _lines(str(state.documents[VOCAB_TXT]), renumbering))
    return state


def _by_id(decoder: Json, renumbering: Renumbering) -> Json:
    moved = {renumbering.new(int(number)): entry for number, entry in decoder.items()}
    left = sorted(((number, entry) for number, entry in moved.items() if number is not None), key=lambda item: item[0])
    return {str(number): entry for number, entry in left}


def _by_text(ids: Json, renumbering: Renumbering, file: str) -> Json:
    """Return a map of texts to ids, in rising order where it was."""
    if not all(isinstance(number, int) for number in ids.values()):
        raise OperationError("not a map of tokens to ids", where=file, hint="remove it if tokenizer.json is in use")
    moved = [(content, renumbering.new(number)) for content, number in ids.items()]
    left = [(content, number) for content, number in moved if number is not None]
    if list(ids.values()) == sorted(ids.values()):
        left.sort(key=lambda item: item[1])
    return dict(left)


def _lines(text: str, renumbering: Renumbering) -> str:
    """Return a list of tokens, one a line, whose line is the id."""
    lines = text.split("\n")
    end = lines.pop() if lines[-1] == "" else None
    moved = {renumbering.new(number): line for number, line in enumerate(lines)}
    moved.pop(None, None)
    if set(moved) != set(range(len(moved))):
        raise OperationError(
            "a line would be left without a token",
            where=VOCAB_TXT,
            hint="remove the file: tokenizer.json has all of its contents",
        )
    ordered = [moved[number] for number in range(len(moved))]
    return "\n".join(ordered if end is None else [*ordered, end])


def with_ids_of_tokenizer(document: Json, renumbering: Renumbering) -> Json:
    """Return tokenizer.json with the ids beside its vocabulary; raises OperationError where one goes that is used.

    Args:
        document: The parsed file.
        renumbering: How ids change.
    """
    changed = dict(document)
    if document.get("post_processor"):
        changed["post_processor"] = _processor(document["post_processor"], renumbering)
    if document.get("padding"):
        pad = _require(document["padding"].get("pad_id", 0), renumbering, "padding")
        changed["padding"] = {**document["padding"], "pad_id": pad}
    model = document["model"]
    if model.get("unk_id") is not None:
        changed["model"] = {**model, "unk_id": _require(model["unk_id"], renumbering, "model.unk_id")}
    return document if changed == document else changed


def _processor(part: Json, renumbering: Renumbering) -> Json:
    """Return a post-processor, or a sequence of them; the library emits their ids unchecked."""
    changed = dict(part)
    if part.get("processors"):
        changed["processors"] = [_processor(inner, renumbering) for inner in part["processors"]]
    for name in ("sep", "cls"):
        if isinstance(part.get(name), list):
            token, number = part[name]
            changed[name] = [token, _require(number, renumbering, f"post_processor.{name}")]
    if isinstance(part.get("special_tokens"), dict):
        changed["special_tokens"] = {
            name: {**special, "ids": [_require(number, renumbering, "post_processor") for number in special["ids"]]}
            for name, special in part["special_tokens"].items()
        }
    return changed


def _require(number: int, renumbering: Renumbering, place: str) -> int:
    new = renumbering.new(number)
    if new is None:
        raise OperationError(
            f"'{place}' uses the token with id {number}, which is removed",
            where=FILE,
            hint="let it use another token first",
        )
    return new


def with_token_ids(tokenizer: Tokenizer, ids: Mapping[str, int]) -> Tokenizer:
    """Return a view of the file in which each token has the id that `ids` gives it.

    An added token whose place in the list does not lead to its id goes into the model's vocabulary, where ids
    are read. Merges and all else stay as they are.

    Args:
        tokenizer: The tokenizer before.
        ids: All tokens with their ids; others are removed.

    Raises:
        OperationError: The tokenizer's kind cannot hold these ids.
        OutOfStepError: Loading would give other ids.
    """
    plain = {content: ids[content] for content in tokenizer.vocabulary if content in ids}
    entries = [
        {**entry, "id": ids[entry["content"]]}
        for entry in tokenizer.document.get("added_tokens") or []
        if entry["content"] in ids
    ]
    # The library adds in the order of the list; it writes the list in the order of ids.
    entries.sort(key=lambda entry: int(entry["id"]))
    vocabulary = tokenizer.document["model"]["vocab"]
    if isinstance(vocabulary, list):
        placed: Json = _build_unigram(tokenizer.document["model"], plain, entries)
    else:
        placed = _in_order(vocabulary, with_tokens_inside(plain, entries, tokenizer.document["model"]))
    model = {**tokenizer.document["model"], "vocab": placed}
    document: dict[str, Any] = {**tokenizer.document, "model": model}
    if "added_tokens" in document:
        document["added_tokens"] = entries
    return Tokenizer(document).checked()


def _in_order(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Return `after` in rising order of ids where `before` was, else in the order that it has."""
    held = list(before.values())
    if all(first < second for first, second in pairwise(held)):
        return dict(sorted(after.items(), key=lambda item: item[1]))
    return dict(after)


def _build_unigram(model: Mapping[str, Json], plain: Mapping[str, int], entries: list[dict[str, Any]]) -> list[Json]:
    """Return a Unigram vocabulary, in which the position is the id."""
    scores = dict(model["vocab"])
    # The lowest score keeps what an unknown piece costs, and lets no text prefer the token to its pieces.
    lowest = min(scores.values(), default=0.0)
    size = max(plain.values(), default=-1) + 1
    at = {number: [content, scores[content]] for content, number in plain.items()}
    for entry in entries:
        if entry["id"] < size and entry["id"] not in at:
            check_can_be_inside(entry, model)
            at[entry["id"]] = [entry["content"], lowest]
    hole = next((number for number in range(size) if number not in at), None)
    if hole is not None:
        raise OperationError(
            f"a Unigram vocabulary is a list and cannot leave id {hole} without a token",
            where=FILE,
            hint="move another token there in the same operation",
        )
    return [at[number] for number in range(size)]


CONFIGURATIONS = (CONFIG, GENERATION, PROCESSOR, PREPROCESSOR, TOKENIZER_CONFIG, SENTENCE_TRANSFORMERS)


def configurations(documents: Mapping[str, Json]) -> dict[str, Json]:
    """Return the files in which ids stand under names of fields, those of sentence-transformers' modules among them."""
    return {name: held for name, held in documents.items() if name in CONFIGURATIONS or name.endswith(MODULE_CONFIG)}


def with_renumbered(state: ModelState, renumbering: Renumbering) -> ModelState:
    """Return the state in which every file gives the tokens their new ids; the rows are the caller's.

    Args:
        state: The state before.
        renumbering: How ids change.

    Raises:
        OperationError: An id that goes is in use, or a file cannot hold the new ids.
        OutOfStepError: A field that is not known seems to hold an id that changes.
    """
    before = state
    ids = {content: renumbering.new(number) for content, number in state.tokenizer.ids.items()}
    state = with_references(state, renumbering)
    left = {content: number for content, number in ids.items() if number is not None}
    state = state.with_document(FILE, with_token_ids(state.tokenizer, left).document)
    state = with_slow_files_in_step(before, with_ids_in_slow_files(state, renumbering), renumbering)
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
    return with_slow_files_in_step(before, with_ids_in_slow_files(state, renumbering), shift)


def with_references(state: ModelState, renumbering: Renumbering) -> ModelState:
    """Return the state in which all that refers to ids follows, without the lists of tokens themselves.

    Args:
        state: The state before.
        renumbering: How ids change.

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
