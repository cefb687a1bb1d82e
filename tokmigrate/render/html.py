"""The report on a model as one HTML page that needs no network and no other file."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from tokmigrate import __version__
from tokmigrate.commands.report import Report
from tokmigrate.errors import UsageError
from tokmigrate.files import storage_errors
from tokmigrate.init.file_strategy import LOSSES
from tokmigrate.render.escape import Part, escape, escape_parts, escape_prose_parts
from tokmigrate.render.evaluation import describe_figures, describe_texts, list_figures
from tokmigrate.render.impact import share
from tokmigrate.render.training import format_figures, format_init, format_provenance
from tokmigrate.settings import ModelEntry, Workspace

LISTED_AT_MOST = 2000
"""How many tokens have a line of their own in the table; a search finds the others."""

COLUMNS, _CELLS_AT_MOST = 64, 2048


def format_page(report: Report) -> str:
    """Return the report as an HTML document."""
    document = report.document
    # Those that only moved give way to the others.
    first = sorted(range(len(document["listed"])), key=lambda at: (document["listed"][at]["kind"] == "moved", at))
    listed = [document["listed"][at] for at in sorted(first[:LISTED_AT_MOST])]
    script = _ENVIRONMENT.get_template("report.js").render()
    return _ENVIRONMENT.get_template("report.html.j2").render(
        doc=document,
        readings=report.readings,
        version=__version__,
        listed=listed,
        map=vocabulary_map(document["runs"]),
        curves=[(each, _curve(each.get(LOSSES))) for each in document["trainings"]],
        charts=[(norms, _chart(norms)) for norms in document["norms"]],
        input_rows={row["id"]: (row, norms) for norms in document["norms"][:1] for row in norms["rows"]},
        vocabulary=pack_vocabulary(report, listed),
        script=script,
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def pack_vocabulary(report: Report, listed: Sequence[Mapping[str, Any]]) -> str:
    """Return the tokens without a line of their own, for the script: JSON, deflated, in base 64.

    Each is its id, text, kind and parts, its reading and the parts of that; null where parts are the text.
    """
    known = {token["id"] for token in listed}
    kinds = {n: run["kind"] for run in report.document["runs"] for n in range(run["first"], run["last"] + 1)}
    rest = []
    for number, text in sorted(report.texts.items()):
        if number not in known:
            parts, reading = escape_parts(text), report.readings.get(number)
            read = None if reading is None else escape_parts(reading)
            rest.append([number, text, kinds[number], None if parts == (Part(text),) else parts, reading, read])
    return base64.b64encode(zlib.compress(json.dumps(rest, separators=(",", ":")).encode(), 9)).decode()


def vocabulary_map(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the map of a vocabulary: lines of `COLUMNS` cells, each of `span` ids, in the colour of what is rarest."""
    kinds = [run["kind"] for run in runs for _ in range(run["first"], run["last"] + 1)]
    span = max(1, -(-len(kinds) // _CELLS_AT_MOST))
    counts = Counter(kinds)
    cells = [
        min(kinds[start : start + span], key=lambda kind: (counts[kind], kind)) for start in range(0, len(kinds), span)
    ]
    rects = []
    for (row, kind), run in groupby(range(len(cells)), lambda at: (at // COLUMNS, cells[at])):
        first, *others = run
        ids = range(first * span, min((first + len(others) + 1) * span, len(kinds)))
        rect = {"kind": kind, "row": row, "column": first % COLUMNS, "cells": 1 + len(others)}
        rects.append({**rect, "first": ids.start, "last": ids.stop - 1, "counts": Counter(kinds[ids.start : ids.stop])})
    return {"span": span, "rows": -(-len(cells) // COLUMNS), "rects": rects}


def _chart(norms: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bars of old rows and the places of new ones in a chart of 480 by 150 units."""
    histogram = norms["histogram"]
    top = max(1, *histogram["counts"])
    step = 480 / len(histogram["counts"])
    bars = [(round(at * step, 1), round(150 * count / top, 1)) for at, count in enumerate(histogram["counts"]) if count]
    width = histogram["high"] - histogram["low"] or 1
    lines = {round(480 * (row["norm"] - histogram["low"]) / width) for row in norms["rows"]}
    return {"top": top, "bars": bars, "lines": sorted(lines)}


def _curve(losses: object) -> dict[str, Any] | None:
    """Return the line of the loss by step in a chart of 480 by 150 units; None without two figures."""
    known = losses.items() if isinstance(losses, Mapping) else ()
    found = {int(step): loss for step, loss in known if step.isdecimal() and isinstance(loss, int | float)}
    if len(found) < 2:
        return None
    steps = sorted(found)
    high, low = max(found.values()), min(found.values())
    width, height = steps[-1] - steps[0], (high - low) or 1
    places = [((step - steps[0]) / width, (high - found[step]) / height) for step in steps]
    path = "M" + "L".join(f"{480 * x:.1f} {15 + 150 * y:.1f}" for x, y in places)
    return {"path": path, "high": high, "low": low, "first": steps[0], "last": steps[-1]}


def page_paths(workspace: Workspace, entries: Sequence[ModelEntry], output: Path | None) -> dict[str, Path]:
    """Return the file of the page on each model by its name: in a directory, or for one model a file that is given."""
    if output is not None and output.suffix == ".html" and not output.is_dir():
        if len(entries) > 1:
            hint = "name a directory, or one --model"
            raise UsageError(f"one file for {len(entries)} models", where=str(output), hint=hint)
        return {entry.name: output for entry in entries}
    folder = output or workspace.root / ".tokmigrate" / "reports"
    return {entry.name: folder / f"report-{quote(entry.name, safe='')}.html" for entry in entries}


def write_page(path: Path, text: str) -> None:
    """Write a page; raise StorageError where that fails."""
    with storage_errors("write the page", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


_ENVIRONMENT = Environment(
    loader=PackageLoader("tokmigrate.render"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {"parts": escape_parts, "prose": escape_prose_parts, "plain": escape}
# An attribute cannot hold every character of a token as it is; JSON can.
_ENVIRONMENT.filters |= {"quoted": json.dumps, "number": _number, "init": format_init, "figures": format_figures}
_ENVIRONMENT.filters |= {"texts": describe_texts, "measures": list_figures, "sentences": describe_figures}
_ENVIRONMENT.filters |= {"provenance": format_provenance}
_ENVIRONMENT.globals["share"] = share
