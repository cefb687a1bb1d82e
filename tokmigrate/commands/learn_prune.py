"""Chooses the tokens that a corpus needs, and writes the migration that removes the others."""

from __future__ import annotations

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokmigrate.commands.diff import Side
from tokmigrate.errors import UsageError
from tokmigrate.events import OnProgress, no_progress, report_activity
from tokmigrate.files import read_file
from tokmigrate.formatting import format_bytes
from tokmigrate.model.documents.chat_template import read_chat_templates
from tokmigrate.model.documents.declared import state_without_weights
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.worker.corpus_files import Corpus
from tokmigrate.model.worker.worker import stream_worker
from tokmigrate.operations.operation import Context, Operation
from tokmigrate.operations.registry import operation_types
from tokmigrate.operations.token_checks import id_of
from tokmigrate.operations.token_closure import MergeTrees, required_tokens
from tokmigrate.operations.token_lists import read_tokens
from tokmigrate.plan.token_growth import CorpusGrowth, measure_growth
from tokmigrate.revision.new_file import file_name, write_attachment, write_yaml_migration
from tokmigrate.settings import Workspace

Reason = Literal["structural", "role", "template", "keep", "dependency", "corpus"]


@dataclass(frozen=True)
class Wanted:
    """How many tokens stay, or which: exactly one of these is given.

    Args:
        tokens: That many in all.
        min_count: Those that occur so often.
        coverage: So many that they are this share of the tokens of the corpus.
    """

    tokens: int | None = None
    min_count: int | None = None
    coverage: float | None = None


@dataclass(frozen=True)
class ChosenTokens:
    """The tokens that stay, and the migration that removes the others.

    Args:
        path: The migration.
        keep_file: The list of the tokens that stay, beside it; `reasons_file` says why each of them does.
        kept: How many stay for each reason.
        removed: How many are removed.
        held_out: what the migration makes of the texts that were held out.
    """

    path: Path
    keep_file: Path
    reasons_file: Path
    kept: Mapping[Reason, int]
    removed: int
    text_bytes: int
    held_out: CorpusGrowth


def learn_removal(
    workspace: Workspace,
    side: Side,
    corpus: Corpus,
    wanted: Wanted,
    message: str,
    *,
    keep: Path | None = None,
    multiple_of: int | None = None,
    on_progress: OnProgress = no_progress,
) -> ChosenTokens:
    """Choose the tokens that a corpus needs, and write a migration that removes the others.

    It is planned on the tokenizer's files before it is written.

    Args:
        side: The tokenizer, and the model of the workspace that has it.
        keep: A file with tokens that stay.
        multiple_of: Of what the number of rows is a multiple afterwards.

    Raises:
        UsageError: Nothing would be removed.
        FileProblems: A file of the corpus is not text, or the file with tokens is none.
        OperationError: A token of that file is not one of the tokenizer.
    """
    state = state_without_weights(side.documents, 0)
    templates = list(read_chat_templates(side.documents).values())
    request: dict[str, Any] = {"files": corpus.request(), "document": state.tokenizer.document}
    texts, ids = state.tokenizer.texts, state.tokenizer.ids
    named = read_tokens(str(keep), read_file(keep)) if keep else ()
    for token in named:
        id_of(state, token)
    with report_activity(on_progress, side.name, "learning from the corpus", 2 * corpus.size) as count_bytes:
        learned = stream_worker("count_tokens", {**request, "texts": templates}, count_bytes, state.traits.worker)
        stay: dict[str, Reason] = dict.fromkeys((texts[number] for number in learned["of_texts"]), "template")
        stay |= dict.fromkeys(named, "keep")
        counts = {texts[number]: occurrences for number, occurrences in learned["counts"]}
        kept = choose_tokens(state, counts, wanted, stay)
        if len(kept) == len(ids):
            raise UsageError("no token would be removed", where=side.name, hint="keep fewer tokens, or give less text")
        name = file_name(workspace, message, ".keep.json")
        listed = json.dumps(sorted(kept, key=ids.__getitem__), indent=0, ensure_ascii=False) + "\n"
        operations = _build_operations(name, multiple_of)
        reached = state
        for operation in operations:
            reached = operation.with_listed({name: listed.encode()}).apply(reached, Context("0000"))
        held_out = measure_growth(
            state.tokenizer.document,
            reached.tokenizer.document,
            corpus,
            count_bytes,
            state.traits.worker,
            held_out_alone=True,
        )
    held = held_out.whole
    remarks = [
        f"Chosen by {format_bytes(learned['text_bytes'])} of text. What was held out of it has"
        f" {held.tokens_before:,} tokens, and {held.tokens_after:,} afterwards."
    ]
    keep_file = write_attachment(workspace, name, listed)
    reasons = write_attachment(
        workspace, file_name(workspace, message, ".reasons.tsv"), _format_reasons(state, kept, counts)
    )
    path = write_yaml_migration(workspace, message, operations, remarks=remarks, models=side.models)
    return ChosenTokens(
        path,
        keep_file,
        reasons,
        Counter(kept.values()),
        len(ids) - len(kept),
        learned["text_bytes"],
        held_out,
    )


def choose_tokens(
    state: ModelState, counts: Mapping[str, int], wanted: Wanted, stay: Mapping[str, Reason]
) -> dict[str, Reason]:
    """Return the tokens that stay, each with the reason.

    The rarest tokens go first, of equal ones the highest id. A token of a BPE goes only when no token that stays is
    merged from it, and its count goes to the two tokens that it is then tokenized as.

    Args:
        counts: How often each token occurs.
        stay: The tokens that stay anyhow, with the reason.
    """
    ids, trees = state.tokenizer.ids, MergeTrees(state.tokenizer)
    fixed: dict[str, Reason] = {**stay, **required_tokens(state)}
    held = {token: counts.get(token, 0) for token in ids}
    total = sum(held.values())
    halves = {token: trees.halves(token) or () for token in ids}
    uses: dict[str, int] = defaultdict(int)
    for parts in halves.values():
        for part in parts:
            uses[part] += 1
    queue = [(held[token], -ids[token], token) for token in ids if token not in fixed and not uses[token]]
    heapq.heapify(queue)
    left, lost = len(ids), 0
    while queue:
        count, _, token = heapq.heappop(queue)
        if _is_enough(wanted, left, count, 1 - (lost + count) / total if total else 1.0):
            break
        left, lost = left - 1, lost + count
        del held[token]
        for part in halves[token]:
            held[part] += count
            uses[part] -= 1
            if not uses[part] and part not in fixed:
                heapq.heappush(queue, (held[part], -ids[part], part))
    return {token: fixed.get(token) or ("corpus" if counts.get(token) else "dependency") for token in held}


def _is_enough(wanted: Wanted, left: int, count: int, coverage: float) -> bool:
    """Return whether the next token stays, which occurs `count` times."""
    if wanted.tokens is not None:
        return left <= wanted.tokens
    if wanted.coverage is not None:
        return coverage < wanted.coverage
    return count >= (wanted.min_count or 1)


def _build_operations(keep_file: str, multiple_of: int | None) -> tuple[Operation, ...]:
    kinds = operation_types()
    removal = kinds["remove_tokens"].model_validate(
        {"keep_file": keep_file, "closure": "keep", "ids": "compact", "shrink": "exact", "acknowledge": "breaking"}
    )
    return (removal, kinds["resize_vocab"].model_validate({"multiple_of": multiple_of})) if multiple_of else (removal,)


def _format_reasons(state: ModelState, kept: Mapping[str, Reason], counts: Mapping[str, int]) -> str:
    """Return a line for each token that stays: its old id, the token as JSON, how often it occurs, and the reason."""
    ids = state.tokenizer.ids
    lines = [
        f"{ids[token]}\t{json.dumps(token, ensure_ascii=False)}\t{counts.get(token, 0)}\t{kept[token]}\n"
        for token in sorted(kept, key=ids.__getitem__)
    ]
    return "id\ttoken\tcount\treason\n" + "".join(lines)
