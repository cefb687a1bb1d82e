"""Chooses the tokens that a corpus needs, and writes the migration that removes others, or swaps them for new ones."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokmigrate.commands.diff import Side
from tokmigrate.commands.learn_extend import format_merges, learn_merges
from tokmigrate.commands.token_selection import CountedTokens, Selection, count_tokens
from tokmigrate.errors import UsageError, VerificationError
from tokmigrate.events import OnProgress, no_progress, report_activity
from tokmigrate.formatting import format_bytes, format_count
from tokmigrate.model.documents.declared import state_without_weights
from tokmigrate.model.dummy_model import lacks_weights
from tokmigrate.model.snapshot import take_snapshot
from tokmigrate.model.tokenizer.tokenizer_json import FILE, continuing_prefix, model_kind, product
from tokmigrate.model.worker.corpora import Corpus
from tokmigrate.operations.extend_vocab import SUBTOKENS
from tokmigrate.operations.operation import Context, Operation
from tokmigrate.operations.registry import operation_types
from tokmigrate.operations.token_choice import Reason, Wanted
from tokmigrate.plan.token_growth import CorpusGrowth, measure_growth
from tokmigrate.revision.new_file import file_name, write_yaml_migration
from tokmigrate.settings import Workspace


@dataclass(frozen=True)
class SavedRows:
    """What a model has less: rows, and the bytes and parameters of its vocabulary tensors."""

    rows_before: int
    rows_after: int
    bytes: int
    parameters: int


@dataclass(frozen=True)
class ChosenTokens:
    """The tokens that stay, and the migration that removes the others.

    Args:
        file: The migration.
        keep_file: The list of the tokens that stay, beside it; `reasons_file` says why each of them does.
        kept: How many stay for each reason.
        not_dropped: How many tokens stay for each reason though they are to be dropped.
        removed: How many are removed.
        text_bytes: The bytes of text that they were chosen by.
        held_out: What the migration makes of the texts that were held out.
        saved: What the model has less, None where it is not one of the workspace, or its weights are not here.
    """

    file: Path
    keep_file: Path
    reasons_file: Path
    kept: Mapping[Reason, int]
    not_dropped: Mapping[Reason, int]
    removed: int
    text_bytes: int
    held_out: CorpusGrowth
    saved: SavedRows | None


@dataclass(frozen=True)
class ReplacedTokens:
    """Tokens that give their ids and rows to new ones, and the migration that does it.

    Args:
        file: The migration.
        tokens_file: The list of the tokens that go, beside it; `merges_file` has the merges of the new ones, and
            `reasons_file` says why each other token stays.
        replaced: How many they are; so many were `wanted`.
        rows: The rows of the model, before and after.
        not_dropped: How many tokens stay for each reason though they are to be dropped.
        text_bytes: The bytes of text that they were chosen by.
        held_out: What the migration makes of the texts that were held out.
    """

    file: Path
    tokens_file: Path
    merges_file: Path
    reasons_file: Path
    replaced: int
    wanted: int
    rows: int
    not_dropped: Mapping[Reason, int]
    text_bytes: int
    held_out: CorpusGrowth


def learn_removal(
    workspace: Workspace,
    side: Side,
    corpus: Corpus,
    wanted: Wanted,
    message: str,
    selection: Selection,
    *,
    ids: Literal["compact", "tombstone"] = "compact",
    multiple_of: int | None = None,
    on_progress: OnProgress = no_progress,
) -> ChosenTokens:
    """Choose the tokens that a corpus needs, and write a migration that removes the others.

    It is planned on the tokenizer's files before it is written.

    Args:
        side: The tokenizer, and the model of the workspace that has it.
        ids: Whether ids close up, or placeholders hold those that are free.
        multiple_of: Of what the number of rows is a multiple afterwards.

    Raises:
        UsageError: The corpus has no text, a word selects nothing, too few tokens are wanted, or nothing is removed.
        FileProblems: A file of the corpus is not text, or a file with tokens is none, or lists one that is unknown.
        VerificationError: Text without removed tokens is tokenized differently.
    """
    state = state_without_weights(side.documents, 0)
    known = state.tokenizer.ids
    with report_activity(on_progress, side.name, "learning from the corpus", 2 * corpus.size) as count_bytes:
        counted = count_tokens(workspace, side.name, state, corpus, selection, count_bytes)
        kept = counted.choose(wanted)
        name = file_name(workspace, message, ".keep.json")
        listed = json.dumps(sorted(kept, key=known.__getitem__), indent=0, ensure_ascii=False) + "\n"
        operations = _build_operations(name, ids, multiple_of)
        after = state
        for operation in operations:
            after = operation.with_listed({name: listed.encode()}).apply(after, Context("0000"))
        held_out = measure_growth(state, after, corpus, count_bytes, held_out_alone=True)
    held = held_out.whole
    if held.tokenized_differently > held.with_removed_tokens:
        raise VerificationError(
            f"{format_count(held.tokenized_differently - held.with_removed_tokens, 'text')} without a removed token"
            " would be tokenized differently",
            where=":".join(map(str, held_out.unexpected or (corpus.name,))),
            hint="no migration was written; report it with this text",
        )
    remarks = [f"Chosen by {format_bytes(counted.text_bytes)} of text. {held_out.describe()}"]
    reasons = file_name(workspace, message, ".reasons.tsv")
    files = {name: listed, reasons: counted.format_reasons(kept)}
    path = write_yaml_migration(workspace, message, operations, remarks=remarks, models=side.models, attachments=files)
    return ChosenTokens(
        file=path,
        keep_file=path.parent / name,
        reasons_file=path.parent / reasons,
        kept=Counter(kept.values()),
        not_dropped=counted.count_kept_of_drop(kept),
        removed=len(known) - len(kept),
        text_bytes=counted.text_bytes,
        held_out=held_out,
        saved=_measure_rows(workspace, side, state.rows, after.rows),
    )


def _build_operations(keep_file: str, ids: str, multiple_of: int | None) -> tuple[Operation, ...]:
    fields = {"keep_file": keep_file, "closure": "keep", "ids": ids, "acknowledge": "breaking"}
    if ids == "compact":
        fields["shrink"] = "exact"
    removal = operation_types()["remove_tokens"].model_validate(fields)
    if multiple_of is None:
        return (removal,)
    return removal, operation_types()["resize_vocab"].model_validate({"multiple_of": multiple_of})


def _measure_rows(workspace: Workspace, side: Side, before: int, after: int) -> SavedRows | None:
    entry = workspace.models.get(side.model or "")
    if entry is None or lacks_weights(entry.path):
        return None
    lost = [(tensor, tensor.window.rows(before) - tensor.window.rows(after)) for tensor in take_snapshot(entry).tensors]
    saved_bytes = sum(tensor.row_bytes * rows for tensor, rows in lost)
    return SavedRows(before, after, saved_bytes, sum(tensor.width * rows for tensor, rows in lost))


def learn_replacement(
    workspace: Workspace,
    side: Side,
    corpus: Corpus,
    tokens: int,
    message: str,
    selection: Selection,
    *,
    on_progress: OnProgress = no_progress,
) -> ReplacedTokens:
    """Choose the tokens that a corpus needs least and as many new ones, and write a migration that swaps them.

    It is planned on the tokenizer's files before it is written. Where the corpus has fewer merges, fewer are swapped.

    Args:
        side: The tokenizer, and the model of the workspace that has it.
        tokens: How many tokens are swapped.

    Raises:
        UsageError: The tokenizer is no BPE, too many tokens have to stay, or the corpus has no merge; else those of
            `count_tokens`.
        VerificationError: Text without removed tokens has other tokens than those that it had, or joined ones.
    """
    state = state_without_weights(side.documents, 0)
    if model_kind(side.documents[FILE]) != "BPE":
        raise UsageError("only a BPE learns merges", where=side.name, hint="use `learn prune` without --replace")
    with report_activity(on_progress, side.name, "learning from the corpus", corpus.size) as count_bytes:
        counted = count_tokens(workspace, side.name, state, corpus, selection, count_bytes)
    operations, files, kept = _find_swap(workspace, counted, corpus, tokens, message, on_progress)
    listed = {name: text.encode() for name, text in files.items()}
    after = state
    for operation in operations:
        after = operation.with_listed(listed).apply(after, Context("0000"))
    with report_activity(on_progress, side.name, "learning from the corpus", corpus.size) as count_bytes:
        held_out = measure_growth(state, after, corpus, count_bytes, held_out_alone=True)
    if held_out.unexpected is not None:
        raise VerificationError(
            "a text without a removed token would be tokenized differently, and not into joined tokens",
            where=":".join(map(str, held_out.unexpected)),
            hint="no migration was written; report it with this text",
        )
    remarks = [f"Chosen by {format_bytes(counted.text_bytes)} of text. {held_out.describe()}"]
    files[file_name(workspace, message, ".reasons.tsv")] = counted.format_reasons(kept)
    path = write_yaml_migration(workspace, message, operations, remarks=remarks, models=side.models, attachments=files)
    tokens_file, merges_file, reasons_file = (path.parent / name for name in files)
    return ReplacedTokens(
        file=path,
        tokens_file=tokens_file,
        merges_file=merges_file,
        reasons_file=reasons_file,
        replaced=len(state.tokenizer.ids) - len(kept),
        wanted=tokens,
        rows=after.rows,
        not_dropped=counted.count_kept_of_drop(kept),
        text_bytes=counted.text_bytes,
        held_out=held_out,
    )


def _find_swap(
    workspace: Workspace,
    counted: CountedTokens,
    corpus: Corpus,
    tokens: int,
    message: str,
    on_progress: OnProgress,
) -> tuple[tuple[Operation, Operation], dict[str, str], Mapping[str, Reason]]:
    """Return what swaps as many tokens as are wanted, or as the corpus has merges, and the tokens that stay.

    Each of the two operations reads one of the files, in their order.
    """
    known = counted.state.tokenizer.ids
    prefix = continuing_prefix(counted.state.documents[FILE]["model"])
    name = file_name(workspace, message, ".remove.json")
    while True:
        kept = counted.choose(Wanted(tokens=len(known) - tokens))
        gone = sorted(known.keys() - kept.keys(), key=known.__getitem__)
        if len(gone) > tokens:
            counted = counted.drop_rarest(tokens, gone)
            continue
        listed = json.dumps(gone, indent=0, ensure_ascii=False) + "\n"
        fields = {"tokens_file": name, "ids": "tombstone", "acknowledge": "breaking"}
        removal = operation_types()["remove_tokens"].model_validate(fields)
        bare = removal.with_listed({name: listed.encode()}).apply(counted.state, Context("0000"))
        with report_activity(on_progress, counted.name, "learning from the corpus", corpus.size) as count_bytes:
            learned = learn_merges(bare, corpus, len(gone), count_bytes, where=counted.name, reuse="placeholders")
        products = {product(merge, prefix) for merge in learned.saved}
        # A token that would be learned again is needed.
        needed = products.intersection(gone)
        new = len(products - bare.tokenizer.ids.keys())
        if not needed and new == len(gone):
            merges_file, merges = format_merges(workspace, message, tuple(learned.saved))
            extension = operation_types()["extend_vocab"].model_validate(
                {"merges_file": merges_file, "reuse": "placeholders", "init": SUBTOKENS}
            )
            return (removal, extension), {name: listed, merges_file: merges}, kept
        counted = counted.keep(needed)
        tokens = new if not needed else tokens
