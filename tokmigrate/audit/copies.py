"""What was made from a model, such as a GGUF, an ONNX export or a draft model, compared with the model as it is now.

Tokens and ids are compared where a copy has them. The ledger knows at which revision the model was when a file was
written, by the time of the file: a copy of weights that is older than a migration does not have its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tokmigrate.errors import TokmigrateError
from tokmigrate.files import exists, has_directory, read_file
from tokmigrate.formatting import format_count, format_list
from tokmigrate.model.documents.reading import parse_document
from tokmigrate.model.formats.gguf_reading import read_head
from tokmigrate.model.gguf_vocabulary import TOKENS, spellings
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.tokenizer.tokenizer_json import FILE as TOKENIZER
from tokmigrate.model.tokenizer.tokenizer_json import Tokenizer, view
from tokmigrate.servers.onnx import compare_graph, list_graphs
from tokmigrate.settings import ModelCopy
from tokmigrate.state.rows import Direction, RunRow, Status

if TYPE_CHECKING:
    from tokmigrate.state.ledger import State

PLACEHOLDER = "[PAD"
"""How llama.cpp's converter begins the text of an id without a token."""


@dataclass(frozen=True)
class CopyStatus:
    """Whether a copy of a model is as the model is now.

    Args:
        state: `unknown` where there is nothing to compare, or it cannot be read.
        reason: What shows it.
    """

    path: str
    follow: bool
    state: Literal["current", "stale", "missing", "unknown"]
    reason: str


def list_outdated(copies: Iterable[CopyStatus]) -> Iterator[str]:
    """Yield a line for each copy that is not as its model is, or of which that is not known."""
    for copy in copies:
        if copy.state != "current":
            yield f"the copy {copy.path} is {copy.state}: {copy.reason}"


def describe_stale_copies(copies: Iterable[ModelCopy]) -> Iterator[str]:
    """Yield what a user should know of the copies of a model before it changes."""
    paths = [str(copy.path) for copy in copies if not copy.follow]
    if paths:
        yield f"copies that do not change with it, to be made again: {format_list(paths)}"


def compare_copies(copies: Iterable[ModelCopy], snapshot: Snapshot, state: State | None) -> tuple[CopyStatus, ...]:
    """Return whether copies of a model are stale, in their order; `state` is the ledger, None where there is none."""
    return tuple(_compare(copy, snapshot, state) for copy in copies)


def _compare(copy: ModelCopy, snapshot: Snapshot, state: State | None) -> CopyStatus:
    def found(result: Literal["current", "stale", "missing", "unknown"], reason: str) -> CopyStatus:
        return CopyStatus(str(copy.path), copy.follow, result, reason)

    try:
        if not exists(copy.path):
            return found("missing", "there is no such file or directory")
        compared, differences = _find_differences(copy.path, snapshot)
        if differences:
            return found("stale", differences)
        # Of a directory the graphs: other weights in it are those of another model.
        files = _list_graphs(copy.path) if has_directory(copy.path) else [copy.path]
        if not files:
            return found("current", compared) if compared else found("unknown", "nothing in it can be compared")
        run = _find_change_since(min(file.stat().st_mtime for file in files), snapshot, state)
    except (TokmigrateError, OSError) as error:
        return found("unknown", str(error).removeprefix(f"{copy.path}: "))
    if isinstance(run, RunRow):
        change = f"older than the {run.direction} from {run.from_revision or 'base'} to {run.to_revision or 'base'}"
        return found("stale", f"{compared}, but it is {change}" if compared else change)
    if run is None:
        return found("current", compared or "not older than the last change of the model")
    return found("current", compared) if compared else found("unknown", run)


def _find_differences(path: Path, snapshot: Snapshot) -> tuple[str, str]:
    """Return what of a copy is equal, and in what it differs; both are empty where nothing can be compared."""
    same, differences = _compare_tokens(path, snapshot.state.tokenizer)
    for graph in [] if differences else _list_graphs(path):
        for name, rows, expected in compare_graph(graph, snapshot):
            if rows != expected:
                return "", f"'{name}' of {graph.name} has {rows:,} rows, and that of the model {expected:,}"
            same = same or "it has as many rows"
    return same, differences


def _compare_tokens(path: Path, tokenizer: Tokenizer) -> tuple[str, str]:
    if not has_directory(path):
        if path.suffix.lower() != ".gguf":
            return "", ""
        held = read_head(path).pairs.get(TOKENS)
        tokens = dict(enumerate(held.texts if held else ()))
        lacking = {number for number, text in tokens.items() if text.startswith(PLACEHOLDER)}
        is_same: _IsSame = _is_written_as
    elif exists(path / TOKENIZER):
        data = read_file(path / TOKENIZER)
        tokens, lacking = dict(view(parse_document(TOKENIZER, data, str(path / TOKENIZER))).texts), set()
        is_same = _is_equal
    else:
        return "", ""
    wrong = sorted(
        number
        for number in {*tokenizer.texts, *tokens}
        if not (number in lacking and number not in tokenizer.texts)
        and not is_same(tokenizer, tokenizer.texts.get(number), tokens.get(number))
    )
    if not wrong:
        return "it has the same tokens and ids", ""
    first = wrong[0]
    ours, theirs = (_format_token(texts.get(first)) for texts in (tokenizer.texts, tokens))
    ids = format_count(len(wrong), "id")
    return "", f"{ids} with another token: {first} is {ours} in the model, {theirs} in the copy"


_IsSame = Callable[[Tokenizer, str | None, str | None], bool]


def _is_equal(_: Tokenizer, ours: str | None, theirs: str | None) -> bool:
    return ours == theirs


def _is_written_as(tokenizer: Tokenizer, ours: str | None, theirs: str | None) -> bool:
    """Return whether a GGUF has a token, with what the converter changes in its text."""
    if ours == theirs or ours is None or theirs is None:
        return ours == theirs
    if ours in tokenizer.added and theirs in spellings(ours):
        return True
    # A WordPiece marks the beginnings of words in place of their continuations.
    return theirs == (ours[2:] if ours.startswith("##") else f"\u2581{ours}")


def _format_token(text: str | None) -> str:
    return "no token" if text is None else f"'{text}'"


def _list_graphs(path: Path) -> list[Path]:
    if has_directory(path):
        return list_graphs(path)
    return [path] if path.suffix == ".onnx" else []


def _find_change_since(mtime: float, snapshot: Snapshot, state: State | None) -> RunRow | str | None:
    """Return the first run that changed a model since a file was written, or why that is not known.

    None where the model is as it was then: a downgrade can bring it back.
    """
    model = state.model_at(snapshot.directory, snapshot.generation) if state else None
    if state is None or model is None:
        return "the ledger does not know the model" if snapshot.stamp else None
    since = datetime.fromtimestamp(mtime, UTC)
    first = next(_runs_since(state.runs(model, None), since), None)
    return None if first is None or first.generation_before == snapshot.generation else first


def _runs_since(latest_first: Iterable[RunRow], since: datetime) -> Iterator[RunRow]:
    for run in reversed(tuple(latest_first)):
        changes = run.direction in (Direction.UPGRADE, Direction.DOWNGRADE) and run.status is Status.APPLIED
        # A copy that follows is written while the run goes on.
        if changes and run.started.astimezone(UTC) > since:
            yield run
