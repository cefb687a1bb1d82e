"""Bakes an adapter: the rows of tokens that it holds become a migration of its base, and a plain LoRA is left.

Servers load low-rank factors and nothing else.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from blake3 import blake3

from tokmigrate.apply.durable import open_new_directory
from tokmigrate.audit.run_status import read_snapshot
from tokmigrate.audit.training import list_initialised_tokens
from tokmigrate.commands.adapter_rows import MERGE, AdapterRows, read_adapter_rows
from tokmigrate.commands.models import check_output, format_path
from tokmigrate.errors import ModelError, OperationError, UsageError
from tokmigrate.files import has_file, open_for_reading, storage_errors
from tokmigrate.formatting import format_count, format_quoted
from tokmigrate.init.file_strategy import read_provenance
from tokmigrate.model.adapter import AdapterFiles, AdapterTensor, read_adapter
from tokmigrate.model.documents.state import ADAPTER_CONFIG
from tokmigrate.model.formats.json_text import layout_of
from tokmigrate.model.formats.safetensors_header import encode_header, parse_header
from tokmigrate.model.weights.movement import embeddings
from tokmigrate.model.weights.tensor_rows import BLOCK_BYTES, digest_range
from tokmigrate.model.weights.weights import ADAPTER
from tokmigrate.plan.progress import check_progress
from tokmigrate.revision.history import History
from tokmigrate.revision.learned_rows import write_learned_rows
from tokmigrate.revision.migration import Migration
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.vocabulary.ids import expand

Wanted = Literal["all", "new"]

COMMAND = "bake"


@dataclass(frozen=True)
class BakedAdapter:
    """What was written.

    Args:
        adapter: Its path as seen from the workspace, as are those of `others`.
        path: The migration; None where no row of the adapter differs from the model's.
        output: The plain LoRA; None where no factor is left.
        tokens: Those whose rows are baked, in the order of the adapter's ids; `added` are not in the model yet.
        left_out: How many tokens of the baseline have other rows in the adapter, which are not baked.
        is_listed: Whether the workspace lists the adapter; `others` are those that it lists for the model beside it.
    """

    adapter: str
    path: Path | None
    output: Path | None
    tokens: tuple[str, ...]
    added: tuple[str, ...]
    left_out: int
    is_listed: bool
    others: tuple[str, ...]


def bake_adapter(
    workspace: Workspace,
    entry: ModelEntry,
    directory: Path,
    message: str,
    output: Path,
    wanted: Wanted | None = None,
) -> BakedAdapter:
    """Write a migration with the rows of tokens that an adapter holds, and its factors into a directory of their own.

    The adapter and the model stay as they are.

    Args:
        directory: The adapter, which was trained on the model as it is.
        output: Where the plain LoRA goes; nothing is there, and it is neither in the model nor in the adapter.
        wanted: Which rows are baked: all that differ from the model's, or those of new tokens alone. None for all,
            and an error where whole matrices hold other rows of baseline tokens too.

    Raises:
        UsageError: Migrations are pending, `output` exists, or there is nothing to bake.
        ModelError: What the adapter holds cannot be rows of the model, or a plain LoRA.
        OperationError: The rows are another adapter's, or those of baseline tokens need `wanted`.
    """
    if not has_file(directory / ADAPTER_CONFIG):
        hint = "name the directory of a peft adapter"
        raise UsageError(f"there is no {ADAPTER_CONFIG}", where=format_path(workspace, directory), hint=hint)
    check_output(output, entry.path, directory)
    base = read_snapshot(entry)
    migrations = History.read(workspace).chain_for(entry)
    check_progress(base, migrations).refuse_pending(entry.name)
    files = read_adapter(directory, base)
    held, shown = read_adapter_rows(files, base), format_path(workspace, directory)
    # A migration is shared: a place outside the workspace means nothing elsewhere.
    adapter = directory.name if Path(shown).is_absolute() else shown
    if not held.layers:
        hint = "servers load it as it is"
        raise UsageError("there is nothing to bake: it holds LoRA factors only", where=shown, hint=hint)
    chosen, left_out = _choose_tokens(held, wanted, shown)
    texts = [held.texts[number] for number in chosen]
    if chosen:
        _check_can_bake(held, shown)
        _check_not_given(migrations, adapter, texts)
    rows = held.read(chosen) if chosen else {}
    with _write_plain_lora(files, held.factors, output) as written:
        path = None
        if chosen:
            path = write_learned_rows(
                workspace,
                entry,
                message,
                texts,
                rows,
                {"command": COMMAND, "adapter": adapter, "digest": _digest(files)},
                remarks=[f"The rows of tokens that the adapter {adapter} holds."],
                added=held.added,
                kept=held.list_kept(chosen),
            )
    others = tuple(format_path(workspace, each) for each in entry.adapters if each.resolve() != directory.resolve())
    is_listed = len(others) < len(entry.adapters)
    new = tuple(token.content for token in held.added)
    return BakedAdapter(shown, path, written, tuple(texts), new, left_out, is_listed, others)


def _choose_tokens(held: AdapterRows, wanted: Wanted | None, where: str) -> tuple[list[int], int]:
    """Return the ids whose rows are baked, and how many others differ from the model's."""
    new = {token for token, _, _ in list_initialised_tokens(held.base)} | {token.content for token in held.added}
    others = {number for number in held.changed if held.texts[number] not in new}
    # Who lists a token means it; who saves a matrix may have meant the new ones.
    in_whole = others - held.listed
    ids = held.base.state.tokenizer.ids
    # Rows cannot be initialised where none of the baseline is left.
    is_every_row = set(expand(held.base.state.population)) <= {ids[held.texts[number]] for number in others}
    if (in_whole and wanted is None) or (others and wanted != "new" and is_every_row):
        hint = "--rows new bakes those of new tokens alone, and the adapter loses what it learned of the others"
        raise OperationError(
            f"it has other rows than the model for {format_count(len(others), 'token')} of the baseline too:"
            f" {format_quoted([held.texts[number] for number in sorted(others)])}",
            where=where,
            hint=f"{hint}; or {MERGE}"
            if is_every_row
            else f"{hint}; --rows all bakes them too, which changes the model for all its adapters",
        )
    return (sorted(held.changed - others), len(others)) if wanted == "new" else (sorted(held.changed), 0)


def _check_can_bake(held: AdapterRows, where: str) -> None:
    """Refuse rows beside factors of the vocabulary, and a model with more rows of a token than the adapter holds."""
    added_to = next((factor.entry.name for factor in held.factors if factor.of is not None), None)
    if added_to is not None:
        message = f"it holds rows of tokens, and the factor '{added_to}', which is added to all rows"
        raise ModelError(message, where=where, hint=MERGE)
    matrices = {matrix.name for matrix in embeddings(held.base.tensors).values()}
    # A migration keeps the bias of a token that the model has.
    others = (tensor for tensor in held.base.tensors if tensor.width > 1 or held.added)
    more = next((tensor.name for tensor in others if tensor.canonical not in matrices), None)
    if more is not None:
        raise ModelError(f"'{more}' has a row for each token too, and a LoRA has none", where=where, hint=MERGE)


def _check_not_given(migrations: Iterable[Migration], adapter: str, texts: Sequence[str]) -> None:
    """Refuse tokens whose rows another adapter gave the model: its factors were trained with them."""
    for migration in migrations:
        for name, data in migration.attachments.items():
            provenance = read_provenance(data, name) if name.endswith(".safetensors") else None
            if provenance is None or provenance["command"] != COMMAND or provenance.get("adapter") == adapter:
                continue
            given = {tensor.name for tensor in parse_header(data, len(data), name).entries}
            shared = [text for text in texts if text in given]
            if shared:
                raise OperationError(
                    f"the rows of {format_quoted(shared)} are those of another adapter, {provenance.get('adapter')}",
                    where=migration.shown,
                    hint="that one needs them: bake this one into a copy of the model from before, which has a name of"
                    " its own under `models:`",
                )


@contextmanager
def _write_plain_lora(files: AdapterFiles, factors: Sequence[AdapterTensor], output: Path) -> Iterator[Path | None]:
    """Write the factors of an adapter into a directory, which is gone again where what is done inside fails."""
    if not factors:
        yield None
        return
    with storage_errors("write the adapter", output), open_new_directory(output) as folder:
        config = {**files.documents[ADAPTER_CONFIG], "trainable_token_indices": None, "modules_to_save": None}
        layout = layout_of(files.texts[ADAPTER_CONFIG].decode("utf-8"))
        (folder / ADAPTER_CONFIG).write_bytes(layout.encode(config))
        _write_factors(files, factors, folder / ADAPTER)
    try:
        yield output
    except BaseException:
        shutil.rmtree(output, ignore_errors=True)
        raise


def _write_factors(files: AdapterFiles, factors: Sequence[AdapterTensor], path: Path) -> None:
    shard = factors[0].shard
    tensors = [(held.entry.name, held.entry.dtype, held.entry.shape) for held in factors]
    with open_for_reading(files.weights.path(shard)) as source, path.open("xb") as target:
        target.write(encode_header(tensors, shard.header.metadata, 8))
        for held in factors:
            begin, end = shard.extent(held.entry)
            source.seek(begin)
            for at in range(begin, end, BLOCK_BYTES):
                target.write(source.read(min(BLOCK_BYTES, end - at)))


def _digest(files: AdapterFiles) -> str:
    (shard,) = files.weights.shards
    weights = digest_range(files.weights.path(shard), 0, shard.size)
    return blake3(files.texts[ADAPTER_CONFIG] + weights.encode()).hexdigest()
