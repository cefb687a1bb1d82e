"""What was made from a model, such as a GGUF, an ONNX export or a draft model, compared with the model as it is now.

Tokens and ids are compared where a copy has them. The ledger knows at which revision the model was when a file was
written, by the time of the file: a copy of weights that is older than a migration does not have its rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tokmigrate.errors import TokmigrateError
from tokmigrate.files import exists, has_directory, read_file
from tokmigrate.formatting import format_count, format_list
from tokmigrate.model.documents.reading import parse_document
from tokmigrate.model.formats.gguf_reading import read_head
from tokmigrate.model.gguf_vocabulary import TOKENS
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.tokenizer.tokenizer_json import FILE as TOKENIZER
from tokmigrate.model.tokenizer.tokenizer_json import Tokenizer, view
from tokmigrate.servers.gguf_tokens import PLACEHOLDER, is_written_as
from tokmigrate.servers.onnx import compare_graph, list_graphs
from tokmigrate.settings import ModelCopy
from tokmigrate.state.rows import Direction, Status

if TYPE_CHECKING:
    from tokmigrate.state.ledger import State as Ledger
    from tokmigrate.state.rows import RunRow

State = Literal["current", "stale", "missing", "unknown"]


@dataclass(frozen=True)
class CopyStatus:
    """Whether a copy of a model is as the model is now.

    Args:
        state: `unknown` where there is nothing to compare, or it cannot be read.
        reason: What shows it.
    """

    path: str
    follow: bool
    state: State
    reason: str


def list_outdated(copies: Iterable[CopyStatus]) -> Iterator[str]:
    """Yield a line for each copy that is not as its model is, or of which that is not known."""
    for copy in copies:
        if copy.state == "unknown":
            yield f"whether the copy {copy.path} is current is not known: {copy.reason}"
        elif copy.state != "current":
            again = "; make it again from the model" if copy.state == "stale" else ""
            yield f"the copy {copy.path} is {copy.state}: {copy.reason}{again}"


def describe_stale_copies(copies: Iterable[ModelCopy]) -> Iterator[str]:
    """Yield what a user should know of the copies of a model before it changes."""
    paths = [str(copy.path) for copy in copies if not copy.follow]
    if paths:
        yield f"copies that do not change with it, to be made again: {format_list(paths)}"


def compare_copies(copies: Iterable[ModelCopy], snapshot: Snapshot, ledger: Ledger | None) -> tuple[CopyStatus, ...]:
    """Return whether copies of a model are stale, in their order; `ledger` is None where there is none."""
    return tuple(CopyStatus(str(copy.path), copy.follow, *_compare(copy.path, snapshot, ledger)) for copy in copies)


def _compare(path: Path, snapshot: Snapshot, ledger: Ledger | None) -> tuple[State, str]:
    try:
        if not exists(path):
            return "missing", "there is no such file or directory"
        compared, differences = _find_differences(path, snapshot)
        # Of a directory the graphs: other weights in it are those of another model.
        files = list_graphs(path) if has_directory(path) else [path]
        written = min((file.stat().st_mtime for file in files), default=None)
    except (TokmigrateError, OSError) as error:
        return "unknown", str(error).removeprefix(f"{path}: ")
    if differences:
        return "stale", differences
    if written is None:
        return ("current", compared) if compared else ("unknown", "nothing in it can be compared")
    model = ledger.model_at(snapshot.directory, snapshot.generation) if ledger else None
    if ledger is None or model is None:
        is_known = bool(compared) or not snapshot.stamp
        return ("current", compared or _NOT_OLDER) if is_known else ("unknown", "the ledger does not know the model")
    run = next(_runs_since(ledger.runs(model, None), datetime.fromtimestamp(written, UTC)), None)
    # A downgrade may have brought back what the model was when the file was written.
    if run is None or run.generation_before == snapshot.generation:
        return "current", compared or _NOT_OLDER
    change = f"older than the {run.direction} from {run.from_revision or 'base'} to {run.to_revision or 'base'}"
    return "stale", f"{compared}, but it is {change}" if compared else change


_NOT_OLDER = "not older than the last change of the model"


def _find_differences(path: Path, snapshot: Snapshot) -> tuple[str, str]:
    """Return what of a copy is equal, and in what it differs; both are empty where nothing can be compared."""
    same, differences = _compare_tokens(path, snapshot.state.tokenizer)
    for graph in [] if differences else list_graphs(path):
        for name, rows, expected in compare_graph(graph, snapshot):
            if rows != expected:
                return "", f"'{name}' of {graph.name} has {rows:,} rows, and that of the model {expected:,}"
            same = same or "it has as many rows"
    return same, differences


def _compare_tokens(path: Path, tokenizer: Tokenizer) -> tuple[str, str]:
    if path.suffix.lower() == ".gguf" and not has_directory(path):
        tokens = _read_gguf_tokens(path, tokenizer)
    elif exists(path / TOKENIZER):
        data = read_file(path / TOKENIZER)
        tokens = dict(view(parse_document(TOKENIZER, data, str(path / TOKENIZER))).texts)
    else:
        return "", ""
    numbers = {*tokenizer.texts, *tokens}
    wrong = sorted(number for number in numbers if tokenizer.texts.get(number) != tokens.get(number))
    if not wrong:
        return "it has the same tokens and ids", ""
    first = wrong[0]
    ours, theirs = (_format_token(texts.get(first)) for texts in (tokenizer.texts, tokens))
    ids = format_count(len(wrong), "id")
    return "", f"{ids} with another token: {first} is {ours} in the model, {theirs} in the copy"


def _read_gguf_tokens(path: Path, tokenizer: Tokenizer) -> dict[int, str]:
    """Return the tokens of a GGUF, those that the converter wrote with another text as the model has them."""
    held = read_head(path).pairs.get(TOKENS)
    tokens = {}
    for number, text in enumerate(held.texts if held else ()):
        ours = tokenizer.texts.get(number)
        if ours is not None:
            tokens[number] = ours if is_written_as(tokenizer, ours, text) else text
        elif not text.startswith(PLACEHOLDER):
            tokens[number] = text
    return tokens


def _format_token(text: str | None) -> str:
    return "no token" if text is None else f"'{text}'"


def _runs_since(latest_first: Iterable[RunRow], since: datetime) -> Iterator[RunRow]:
    for run in reversed(tuple(latest_first)):
        changes = run.direction in (Direction.UPGRADE, Direction.DOWNGRADE) and run.status is Status.APPLIED
        # A copy that follows is written while the run goes on.
        if changes and run.started.astimezone(UTC) > since:
            yield run
