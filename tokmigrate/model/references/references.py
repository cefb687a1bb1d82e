"""Every place of a model that holds ids of tokens follows when ids change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any

from tokmigrate.errors import OperationError
from tokmigrate.formatting import format_list
from tokmigrate.model.documents.architecture_quirks import ordered_tail
from tokmigrate.model.documents.config_fields import format_place, role_of
from tokmigrate.model.documents.pipeline_overrides import part_defaults
from tokmigrate.model.documents.roles import with_added_tokens, with_added_tokens_decoder
from tokmigrate.model.documents.slow_tokenizer_files import with_slow_files_in_step
from tokmigrate.model.documents.state import ADDED_TOKENS, CONFIG, TOKENIZER_CONFIG, VOCAB_JSON, VOCAB_TXT, ModelState
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.references.config_references import (
    ids_held,
    known_fields,
    require_new_id,
    suspects,
    with_ids_of_config,
)
from tokmigrate.model.tokenizer.tokenizer_json import FILE, Tokenizer, check_can_be_inside, view, with_tokens_inside
from tokmigrate.vocabulary.ids import AddedToken, Renumbering

Names = Mapping[str, str]
"""New texts of tokens by the old ones."""


def with_vocabulary_files(state: ModelState, renumbering: Renumbering, names: Names) -> ModelState:
    """Return the state whose added_tokens.json, vocab.json and vocab.txt give tokens their new ids and texts.

    Raises:
        OperationError: A file has no way to say it.
    """
    for name in (ADDED_TOKENS, VOCAB_JSON):
        if name in state.documents:
            state = state.with_document(name, _by_text(state.documents[name], renumbering, names, name))
    if VOCAB_TXT in state.documents:
        lines = [names.get(line, line) for line in str(state.documents[VOCAB_TXT]).split("\n")]
        end = [lines.pop()] if lines[-1] == "" else []
        moved = {renumbering.new(number): line for number, line in enumerate(lines)}
        moved.pop(None, None)
        if set(moved) != set(range(len(moved))):
            raise OperationError(
                "a line would be left without a token",
                where=VOCAB_TXT,
                hint="remove the file: tokenizer.json has all of its contents",
            )
        ordered = [moved[number] for number in range(len(moved))]
        state = state.with_document(VOCAB_TXT, "\n".join((*ordered, *end)))
    return state


def _by_text(ids: Json, renumbering: Renumbering, names: Names, file: str) -> Json:
    """Return a map of texts to ids, in rising order where it was."""
    if not all(isinstance(number, int) for number in ids.values()):
        raise OperationError("not a map of tokens to ids", where=file, hint="remove it if tokenizer.json is in use")
    moved = ((names.get(content, content), renumbering.new(number)) for content, number in ids.items())
    left = [(content, number) for content, number in moved if number is not None]
    if list(ids.values()) == sorted(ids.values()):
        left.sort(key=itemgetter(1))
    return dict(left)


def map_post_processor(part: Json, text: Callable[[str], str], number: Callable[[int], int]) -> Json:
    """Return a post-processor, or a sequence of them, with new texts and ids of tokens; the library checks neither."""
    changed = dict(part)
    if part.get("processors"):
        changed["processors"] = [map_post_processor(inner, text, number) for inner in part["processors"]]
    for name in ("sep", "cls"):
        if isinstance(part.get(name), list):
            changed[name] = [text(part[name][0]), number(part[name][1])]
    if isinstance(part.get("special_tokens"), dict):
        changed["special_tokens"] = {
            text(name): {
                **special,
                "id": text(special["id"]),
                "ids": [number(each) for each in special["ids"]],
                "tokens": [text(token) for token in special["tokens"]],
            }
            for name, special in part["special_tokens"].items()
        }
        for side in ("single", "pair"):
            if part.get(side):
                changed[side] = [_map_piece(piece, text) for piece in part[side]]
    return changed


def _map_piece(piece: Json, text: Callable[[str], str]) -> Json:
    special = piece.get("SpecialToken")
    return {"SpecialToken": {**special, "id": text(special["id"])}} if special else piece


def with_token_ids(tokenizer: Tokenizer, ids: Mapping[str, int]) -> Tokenizer:
    """Return a view of the file in which each token has the id that `ids` gives it; others are removed.

    An added token whose place in the list does not lead to its id goes into the model's vocabulary, where ids
    are read. Merges and all else stay as they are.

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
    model = tokenizer.document["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        placed: Json = _build_unigram(model, plain, entries)
    else:
        placed = with_tokens_inside(plain, entries, model)
        if all(first < second for first, second in pairwise(vocabulary.values())):
            placed = dict(sorted(placed.items(), key=itemgetter(1)))
    document: dict[str, Any] = {**tokenizer.document, "model": {**model, "vocab": placed}}
    if "added_tokens" in document:
        document["added_tokens"] = entries
    return view(document).check()


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


def with_renumbered(state: ModelState, renumbering: Renumbering) -> ModelState:
    """Return the state in which every file gives the tokens their new ids; the rows are the caller's.

    Raises OperationError also where a file cannot hold the new ids, and else as `with_references` does.
    """
    moved = _with_token_lists(with_references(state, renumbering), renumbering)
    return with_added_tokens_decoder(with_slow_files_in_step(state, moved, renumbering))


def with_inserted_tokens(state: ModelState, tokens: Sequence[AddedToken], start: int, stop: int) -> ModelState:
    """Return the state in which new tokens have the ids from `start` on, and every file follows; rows are the caller's.

    The ids from there up to `stop` move up; those from `stop` on that have no token make room. Raises as
    `with_renumbered` does.
    """
    shift = Renumbering({number: number + len(tokens) for number in range(start, stop)})
    added = with_added_tokens(with_references(state, shift), tokens)
    # The files list the new tokens at the end so far.
    moves = {number: shift.new(number) for number in state.tokenizer.texts if shift.touches(number)}
    moves |= {added.tokenizer.ids[token.content]: start + place for place, token in enumerate(tokens)}
    return with_slow_files_in_step(state, _with_token_lists(added, Renumbering(moves)), shift)


def _with_token_lists(state: ModelState, renumbering: Renumbering) -> ModelState:
    """Return the state in which the files that list tokens have the new ids."""
    moved = ((content, renumbering.new(number)) for content, number in state.tokenizer.ids.items())
    ids = {content: number for content, number in moved if number is not None}
    state = state.with_document(FILE, with_token_ids(state.tokenizer, ids).document)
    decoder = (state.documents.get(TOKENIZER_CONFIG) or {}).get("added_tokens_decoder")
    if isinstance(decoder, dict):
        entries = ((renumbering.new(int(number)), entry) for number, entry in decoder.items())
        left = sorted(((number, entry) for number, entry in entries if number is not None), key=itemgetter(0))
        listed = {str(number): entry for number, entry in left}
        state = state.with_value(TOKENIZER_CONFIG, ("added_tokens_decoder",), listed)
    return with_vocabulary_files(state, renumbering, {})


def with_references(state: ModelState, renumbering: Renumbering) -> ModelState:
    """Return the state in which all that refers to ids follows, without the lists of tokens themselves.

    Raises:
        OperationError: An id that goes is in use.
        OutOfStepError: A field that is not known seems to hold an id that changes.
    """
    state = with_defaults_written(state, renumbering)

    def new(place: str) -> Callable[[int], int]:
        return lambda number: require_new_id(renumbering, number, place, FILE)

    document = state.documents[FILE]
    if document.get("post_processor"):
        part = map_post_processor(document["post_processor"], str, new("post_processor"))
        state = state.with_value(FILE, ("post_processor",), part)
    if document.get("padding"):
        pad = new("padding")(document["padding"].get("pad_id", 0))
        state = state.with_value(FILE, ("padding", "pad_id"), pad)
    if document["model"].get("unk_id") is not None:
        state = state.with_value(FILE, ("model", "unk_id"), new("model.unk_id")(document["model"]["unk_id"]))
    for name, document in state.configurations.items():
        changed = with_ids_of_config(document, renumbering, name, state.vocab_size, state.traits.id_fields)
        state = state.with_document(name, changed)
    return state


def with_defaults_written(state: ModelState, renumbering: Renumbering) -> ModelState:
    """Return the state whose config.json says the ids that transformers takes by default and that change."""
    for path, _, defaults in part_defaults(state):
        for name, value in defaults.items():
            if any(map(renumbering.touches, value if isinstance(value, list) else [value])):
                state = state.with_value(CONFIG, (*path, name), value)
    return state


def unknown_references(state: ModelState) -> Iterator[str]:
    """Yield a line for each field that looks like the id of a token and is not known."""
    for name, document in state.configurations.items():
        numbers: dict[str, list[int]] = {}
        for place, number in suspects(document, state.vocab_size, state.traits.id_fields):
            numbers.setdefault(place, []).append(number)
        for place, held in numbers.items():
            shown = format_list([*map(str, held)], 5)
            yield (
                f"{name}: '{place}' holds {shown} and may be the id of a token; it is left alone;"
                f' say which, in tokmigrate.yaml: id_fields: {{"{place}": ids}}, or ignore'
            )


@dataclass(frozen=True)
class IdWithoutToken:
    """A field, by its dotted place in a file, that holds ids which no token has, and whether each of them has a row."""

    file: str
    place: str
    ids: tuple[int, ...]
    has_row: bool

    @property
    def role(self) -> str:
        """What set_special_tokens calls the field."""
        return role_of(self.place.rpartition(".")[2])

    def __str__(self) -> str:
        rows = "" if self.has_row else ", and has no row" if len(self.ids) == 1 else ", and not all have a row"
        return f"{self.file}: '{self.place}' holds {format_list([*map(str, self.ids)], 5)}, which no token has{rows}"


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
    for file, document in state.configurations.items():
        for place, value, shape in known_fields(document, state.vocab_size, state.traits.id_fields):
            yield file, format_place(place), tuple(ids_held(value, shape))
