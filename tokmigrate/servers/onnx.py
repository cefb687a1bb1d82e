"""ONNX: what Optimum and ONNX Runtime read of a model, and whether graphs in its directory have its rows.

huggingface/optimum-onnx, commit 1939f27a1d04: optimum/onnxruntime/modeling_decoder.py (graph, configurations) and
optimum/exporters/onnx/__main__.py (an export reads weights and tokenizer with transformers). A graph has the weights in
it: its tables keep the number of rows with which it was exported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tokmigrate.errors import WeightsError
from tokmigrate.files import has_directory, has_file
from tokmigrate.model.formats.onnx_tensors import read_onnx_shapes
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.servers.finding import BAKE, Finding, Reading, Subject, Target, find_rows

_AGAIN = "export the model again: `optimum-cli export onnx --model DIR OUTPUT`"


def list_graphs(path: Path) -> list[Path]:
    """Return the ONNX files of a directory, also of the folder in which sentence-transformers keeps them; or a file."""
    if not has_directory(path):
        return [path] if path.suffix == ".onnx" else []
    found = (file for folder in (path, path / "onnx") for file in folder.glob("*.onnx"))
    return sorted(file for file in found if has_file(file))


def compare_graph(path: Path, snapshot: Snapshot) -> Iterator[tuple[str, int, int]]:
    """Yield each vocabulary tensor that a graph names as the model does, with its rows and those that it should have.

    Raises WeightsError where the file is no graph.
    """
    for name, shape in read_onnx_shapes(path).items():
        plain = name.removesuffix("_quantized")
        for tensor in snapshot.tensors:
            # An export may leave out, or put, the name of a part in front.
            longer, shorter = sorted((plain, tensor.name), key=len, reverse=True)
            is_same = "." in shorter and f".{longer}".endswith(f".{shorter}")
            # An export may transpose a matrix, too.
            if is_same and _without(shape, tensor.axis) == _without(tensor.shape, tensor.axis):
                yield name, shape[tensor.axis], tensor.shape[tensor.axis]


def _without(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], *shape[axis + 1 :])


def read(subject: Subject) -> Reading:
    """Return what an export or a session reads of a model, and which graphs are not of this model any more."""
    snapshot = subject.snapshot
    graphs = list_graphs(snapshot.directory)
    shown = (
        f"{len(graphs)} ONNX files of the directory" if graphs else "the weights, which an export writes into a graph"
    )
    summary = f"reads {len(snapshot.state.tokenizer.ids):,} tokens with AutoTokenizer from {FILE}, and {shown}"
    findings = [each for path in graphs for each in _check_graph(path, snapshot)]
    for adapter in subject.adapters:
        if rows := find_rows(adapter, snapshot):
            message = f"an export has the rows of the model, without '{next(iter(rows.values()))}' of the adapter"
            findings.append(Finding("warning", message, str(adapter.directory), BAKE))
    return Reading(summary, tuple(findings))


def _check_graph(path: Path, snapshot: Snapshot) -> Iterator[Finding]:
    where = str(path.relative_to(snapshot.directory))
    try:
        compared = [*compare_graph(path, snapshot)]
    except WeightsError as error:
        yield Finding("error", error.message, where, _AGAIN)
        return
    for name, rows, expected in compared:
        if rows != expected:
            message = f"its '{name}' has {rows:,} rows, and that of the model {expected:,}"
            yield Finding("error", message, where, _AGAIN)
    if not compared:
        message = "it names no tensor as the model does: whether it has the rows of the model is not known"
        yield Finding("warning", message, where, "list it under `copies:`: `tokmigrate status` compares its age")


TARGET = Target("ONNX Runtime", "optimum-onnx commit 1939f27a1d04", read)
