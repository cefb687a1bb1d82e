"""Build a downgrade from the difference of two states: no operation needs an inverse of its own.

Records of undone migrations compose: going back over many is one pass. Where nothing was touched since, every byte is
restored. If the model was trained or rewritten, the undo is semantic: see `model.documents.semantic_diff`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from blake3 import blake3

from tokmigrate.apply.candidate import Candidate, Completion, Documents, ShardImage
from tokmigrate.apply.digests import edit_tables, read_contents, read_shard_digest
from tokmigrate.apply.file_metadata import FileMetadata, LinkMetadata
from tokmigrate.apply.kept_objects import Objects
from tokmigrate.apply.undo_record import StoredFiles, StoredRows, Undo, read_undo_record
from tokmigrate.errors import DriftError, UndoError
from tokmigrate.model.documents.chat_template import chat_template, with_chat_template
from tokmigrate.model.documents.reading import parse_document, with_files
from tokmigrate.model.documents.roles import text_of
from tokmigrate.model.documents.semantic_diff import revert_document, revert_keys
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.documents.stamp import ChangedFile, ChangedShard, Stamp, parse_stamp
from tokmigrate.model.documents.state import CONFIG, GENERATION, ModelState
from tokmigrate.model.formats.json_text import Json, parse
from tokmigrate.model.references.token_texts import find_named_tokens, without_added_tokens, without_mentions
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.tokenizer.tokenizer_json import FILE as TOKENIZER
from tokmigrate.model.tokenizer.tokenizer_json import Tokenizer, view
from tokmigrate.model.weights.tensor_rows import BLOCK_BYTES, shard_digest
from tokmigrate.model.weights.weights import INDEX
from tokmigrate.plan.plan import render_document, with_index_sizes
from tokmigrate.plan.shard_layout import find_baseline_start, lay_out_on_disk
from tokmigrate.vocabulary.ids import count, cut_runs, expand
from tokmigrate.vocabulary.row_edit import CopiedRows, NewRow, OutputRowAdded, RestoredRow, RowEdit, Window, join_pieces

Files = dict[str, bytes | None]


@dataclass(frozen=True)
class _Version:
    """A file at one time: its digest, None where there is none, and its bytes, which are read if they are asked for."""

    digest: str | None
    files: Mapping[str, bytes | None]
    name: str

    @staticmethod
    def of(files: Mapping[str, bytes | None], name: str) -> _Version:
        if isinstance(files, StoredFiles):
            return _Version(files.digests[name], files, name)
        data = files[name]
        return _Version(None if data is None else blake3(data).hexdigest(), files, name)

    @property
    def data(self) -> bytes | None:
        return self.files[self.name]


def documents_before(
    snapshot: Snapshot, undone: Sequence[Undo], edit: RowEdit, *, keeps_shards: bool = False
) -> tuple[Files, frozenset[str]]:
    """Return the files before the migrations, None for those that were not there, and which were rewritten since.

    Args:
        undone: The undo records, the latest migration's first.
        keeps_shards: Whether each tensor stays in its file, whatever file the migrations took it from.

    Raises:
        DriftError: What a migration changed was changed again.
    """
    found: dict[str, _Version] = {}
    rewritten: set[str] = set()
    for undo in undone:
        for name in undo.files:
            if name in (STAMP, INDEX):
                continue
            now = found.get(name) or _Version.of({name: snapshot.texts.get(name)}, name)
            was, left = _Version.of(undo.files, name), _Version.of(undo.left, name)
            if now.digest != left.digest:
                rewritten.add(name)
                was = _Version.of({name: _before(snapshot, name, now.data, was.data, left.data)}, name)
            found[name] = was
    files = {name: version.data for name, version in found.items()}
    if rewritten:
        settled = _align_settings(snapshot, undone, files)
        rewritten |= {name for name, data in settled.items() if files.get(name, data) != data}
        files = settled
    index, is_exact = _restore_index(snapshot, undone, edit, keeps_shards=keeps_shards)
    return {**files, **index}, frozenset(rewritten if is_exact else {*rewritten, INDEX})


def _restore_index(
    snapshot: Snapshot, undone: Sequence[Undo], edit: RowEdit, *, keeps_shards: bool
) -> tuple[Files, bool]:
    """Return the index before the migrations if they change it, and whether it is that of then.

    Where a model was saved again its shards are others: of the index on disk only the totals are set back.
    """
    named = [undo for undo in undone if INDEX in undo.files]
    held = now = snapshot.texts.get(INDEX)
    for undo in named:
        if keeps_shards or now != undo.left[INDEX]:
            break
        now = undo.files[INDEX]
    else:
        if named:
            return {INDEX: now}, True
    fitting = render_document(snapshot, with_index_sizes(snapshot, replace(snapshot.state, edit=edit)), INDEX)
    is_right = not named and fitting == held
    return {} if is_right else {INDEX: fitting}, is_right


def shards_before(snapshot: Snapshot, edit: RowEdit, stored: StoredRows) -> dict[str, ShardImage]:
    """Return the new vocabulary shards: rows that `edit` keeps stay as they are now."""
    found = read_contents(snapshot)
    tables = edit_tables(found.tables, edit, snapshot.tensors_by_name, stored.row)
    images: dict[str, ShardImage] = {}
    for file in snapshot.vocabulary_shards:
        header = snapshot.weights.shard(file).header
        if edit.new_rows != edit.old_rows:
            header = lay_out_on_disk(snapshot, file, edit.new_rows)
        images[file] = ShardImage(header, shard_digest(header, tables, found.fixed))
    return images


def stamp_before(
    before: bytes | None, files: Files, images: Mapping[str, ShardImage], snapshot: Snapshot
) -> bytes | None:
    """Return the new stamp of the model; None at `base`.

    Args:
        before: The stamp of that revision, which knows other bytes.
    """
    if before is None:
        return None
    stamp: Stamp = parse_stamp(before, STAMP)
    known = dict(stamp.files)
    for name in known.keys() & files.keys():
        known[name] = ChangedFile.of(files[name], snapshot.layout(name) if known[name].layout else None)
    shards = dict(stamp.shards)
    if images and shards:
        there = snapshot.weights.files
        shards = {name: held for name, held in shards.items() if name in there.difference(snapshot.vocabulary_shards)}
        for name, image in images.items():
            shards[name] = ChangedShard(image.digest, find_baseline_start(snapshot, name))
    return replace(stamp, files=known, shards=shards).encode()


def _before(snapshot: Snapshot, name: str, now: bytes | None, was: bytes | None, left: bytes | None) -> bytes | None:
    """Return the new contents of a file that differs from what the migration left."""
    if now is None:
        # The program that rewrote the model has not written this file.
        return None
    if left is None or was == left:
        return now
    if not name.endswith(".json"):
        raise DriftError(
            "the file was changed since it was migrated, and a downgrade would lose that",
            where=str(snapshot.directory / name),
            hint="put it back as tokmigrate wrote it; `tokmigrate check` lists what differs",
        )
    held, before, after = (parse(data.decode("utf-8"), name) if data else {} for data in (now, was, left))
    document = revert_document(name, held, before, after)
    if was is None and not document:
        return None
    return snapshot.layout(name).encode(document)


def _align_settings(snapshot: Snapshot, undone: Sequence[Undo], files: Files) -> Files:
    """Return the files, with also without what another program keeps elsewhere than the migrations did."""
    last: Files = {}
    for undo in reversed(undone):
        last |= {name: data for name, data in undo.left.items() if name != STAMP}
    after, before = (_with(snapshot.state, held) for held in (last, files))
    state = _with_template(before, chat_template(_with(snapshot.state, _first(undone))), chat_template(after))
    if GENERATION not in last and GENERATION in state.documents and CONFIG in last:
        state = state.with_document(GENERATION, _like_config(state.documents[GENERATION], undone))
    gone = frozenset(after.tokenizer.ids.keys() - before.tokenizer.ids.keys())
    state = _without(state, gone)
    names = {*files, *(state.touched & {*snapshot.texts, *state.documents})}
    touched = {name: render_document(snapshot, state, name) for name in names if name in state.touched}
    return {**files, **touched}


def _first(undone: Sequence[Undo]) -> Files:
    """Return the files before the first of the migrations, as they were then."""
    found: Files = {}
    for undo in undone:
        found |= {name: data for name, data in undo.files.items() if name != STAMP}
    return found


def _with(state: ModelState, files: Files) -> ModelState:
    """Return the state with those files, and none of them touched."""
    return replace(state, documents=with_files(state.documents, files), touched=frozenset())


def _with_template(state: ModelState, was: str | None, left: str | None) -> ModelState:
    """Return the state with the chat template as it was, where it is still the one that the migrations left."""
    if was == left or chat_template(state) != left:
        return state
    return with_chat_template(state, was)


def _like_config(document: Json, undone: Sequence[Undo]) -> Json:
    """Return generation settings, written since from config.json, that follow its changes."""
    for undo in undone:
        was, left = undo.files.get(CONFIG), undo.left.get(CONFIG)
        if was is not None and left is not None:
            before, after = (parse(data.decode("utf-8"), CONFIG) for data in (was, left))
            both = document.keys() & before.keys() & after.keys()
            document = revert_keys(
                document, {key: before[key] for key in both}, {key: after[key] for key in both}, GENERATION
            )
    return document


def _without(state: ModelState, gone: frozenset[str]) -> ModelState:
    """Return the state in which no list names a token that goes; raises DriftError where a role does."""
    state = without_added_tokens(without_mentions(state, gone), gone)
    for file, path, entry in find_named_tokens(state):
        if text_of(entry) in gone:
            raise DriftError(
                f"it names the token '{text_of(entry)}', which a migration added and the downgrade removes",
                where=f"{file}: {'.'.join(map(str, path))}",
                hint="name another token there, or take the entry out",
            )
    return state


@dataclass(frozen=True)
class DowngradeCandidate:
    """A downgrade, ready to be published.

    Args:
        semantic_undo: The files that were trained or rewritten since, sorted; without any, every byte comes back.
    """

    candidate: Candidate
    completion: Completion
    semantic_undo: tuple[str, ...]


def inverse(edit: RowEdit, record: str, window: Window) -> RowEdit:
    """Return the edit back: kept rows go where they were, lost ones come from the undo record of that digest.

    Args:
        window: That of the tensors that have no row for the last ids; where each tensor has one, WHOLE.
    """
    pieces: list[tuple[int, CopiedRows | NewRow]] = []
    seen = 0
    for row, piece in sorted(edit.copied_rows(), key=lambda run: run[1].start):
        start = max(piece.start, seen)
        if start < piece.stop:
            pieces.append((start, CopiedRows(row + start - piece.start, row + len(piece))))
            seen = piece.stop
    pieces += [(row, NewRow(RestoredRow(record, slot))) for slot, row in enumerate(expand(edit.find_lost_rows()))]
    pieces.sort(key=lambda placed: placed[0])
    back = RowEdit(edit.new_rows, join_pieces(piece for _, piece in pieces))
    first = count(window.clip(edit.find_lost_rows(), edit.old_rows))
    dropped = enumerate(expand(window.dropped_rows(edit)), first)
    return back.with_recipes({row: OutputRowAdded(back.row(row), RestoredRow(record, slot)) for slot, row in dropped})


def build_downgrade(
    snapshot: Snapshot, records: Sequence[str], objects: Objects, known: Mapping[str, str] = MappingProxyType({})
) -> DowngradeCandidate:
    """Return the candidate that undoes migrations.

    Args:
        records: Their undo records, the latest migration's first.
        known: The digests of shards that are known, which are not read for it.

    Raises:
        UndoError: A record is missing, damaged or of a newer format.
        DriftError: What a migration changed was changed again.
    """
    undone, edit = _read_undone(snapshot, records, objects)
    metadata: dict[str, FileMetadata] = {}
    links: dict[str, LinkMetadata] = {}
    images: dict[str, ShardImage] = {}
    removed: set[str] = set()
    for undo in undone:
        metadata |= undo.metadata
        links |= undo.links
        removed |= undo.left_shards.keys()
        images = {name: image for name, image in images.items() if name not in undo.left_shards}
        images |= undo.shards
    removed -= images.keys()
    trained = _find_changed_shards(snapshot, undone, known)
    files, rewritten = documents_before(snapshot, undone, edit, keeps_shards=bool(trained and removed))
    stored = StoredRows(snapshot, dict(zip(records, undone, strict=True)), objects)
    if trained or (removed and INDEX in rewritten):
        images, removed = shards_before(snapshot, edit, stored), set()
    stamp = next((undo.files[STAMP] for undo in reversed(undone)), None)
    if rewritten or trained:
        stamp = stamp_before(stamp, files, images, snapshot)
        metadata = {name: held for name, held in metadata.items() if name not in rewritten}
        links = {name: held for name, held in links.items() if name not in rewritten}
    headers = {name: image.header for name, image in images.items()}
    digests = {name: image.digest for name, image in images.items()}
    return DowngradeCandidate(
        Candidate(Documents(files, edit, _tokenizer(snapshot, files)), metadata, headers, links, frozenset(removed)),
        Completion(stamp, digests, stored.row),
        tuple(sorted({*rewritten, *trained})),
    )


def restore_documents(snapshot: Snapshot, records: Sequence[str], objects: Objects) -> Documents:
    """Return the small files that `build_downgrade` would give, for which no weights are read; errors are the same."""
    undone, edit = _read_undone(snapshot, records, objects)
    files, _ = documents_before(snapshot, undone, edit)
    return Documents(files, edit, _tokenizer(snapshot, files))


def _read_undone(snapshot: Snapshot, records: Sequence[str], objects: Objects) -> tuple[list[Undo], RowEdit]:
    """Return undo records, and the rows before their migrations in terms of the rows as they are."""
    undone = [read_undo_record(digest, objects) for digest in records]
    edit = RowEdit.identity(snapshot.state.rows)
    window = Window(short=max((tensor.window.short for tensor in snapshot.tensors), default=0))
    for digest, undo in zip(records, undone, strict=True):
        if undo.edit.new_rows != edit.new_rows:
            raise UndoError(
                "the undo record does not fit the model", where=digest, hint="restore the model from a backup"
            )
        edit = edit.then(inverse(undo.edit, digest, window))
    return undone, edit


def _tokenizer(snapshot: Snapshot, files: Mapping[str, bytes | None]) -> Tokenizer | None:
    # An adapter need not have a tokenizer.
    text = files.get(TOKENIZER) or snapshot.texts.get(TOKENIZER)
    return view(parse_document(TOKENIZER, text, TOKENIZER)) if text is not None else None


def read_lost_rows(edit: RowEdit, window: Window, row_bytes: int, read: Callable[[int, int], bytes]) -> Iterator[bytes]:
    """Yield the rows of a tensor that `edit` loses, in the order of `Window.lost_rows`, some megabytes at a time.

    Args:
        read: Returns those from a row up to another.
    """
    for group in cut_runs(window.lost_rows(edit), max(1, BLOCK_BYTES // max(1, row_bytes))):
        yield b"".join(read(*run) for run in group)


def _find_changed_shards(snapshot: Snapshot, undone: Sequence[Undo], known: Mapping[str, str]) -> frozenset[str]:
    """Return the shards that are not, or were not on the way, what the migrations left."""
    changing = [undo for undo in undone if undo.shards]
    if not changing:
        return frozenset()
    tensors = snapshot.tensors_by_name
    there = snapshot.weights.files
    # A later migration need not write each shard that an earlier one wrote.
    wanted = {*snapshot.vocabulary_shards, *(name for undo in changing for name in undo.left_shards if name in there)}
    found: dict[str, str] = {
        name: known.get(name) or read_shard_digest(snapshot.directory / name, tensors, snapshot.state.rows)
        for name in sorted(wanted)
    }
    vocabulary = set(snapshot.vocabulary_shards)
    for undo in changing:
        other = {name for name in {*vocabulary, *undo.left_shards} if found.get(name) != undo.left_shards.get(name)}
        if other:
            return frozenset(other & there) or frozenset(snapshot.vocabulary_shards)
        found = {name: digest for name, digest in found.items() if name not in undo.left_shards}
        found |= {name: image.digest for name, image in undo.shards.items()}
        vocabulary = set(undo.shards)
    return frozenset()
