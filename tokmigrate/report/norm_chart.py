"""The norms of a matrix's rows as a chart: SVG from matplotlib, whose colours are those of the page around it."""

from __future__ import annotations

import importlib.util
import io
import re

from tokmigrate.errors import UsageError
from tokmigrate.runner.reporting.data import MatrixNorms

_BINS = 48
_INCHES = (4.6, 2.5)
_LINES = 400

# Colours that stand for variables of the stylesheet: an SVG inside a page follows its theme that way.
_COLOURS = {"#000001": "var(--base-bar)", "#000002": "var(--added)", "#000003": "var(--muted)"}
_OLD, _NEW, _QUIET = _COLOURS


def check_charts_can_be_made() -> None:
    """Raise UsageError where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("the report needs matplotlib for its charts", hint="pip install 'tokmigrate[report]'")


def norm_chart(norms: MatrixNorms, name: str) -> str:
    """Return the distribution of old norms with a line for each new row, as an SVG element.

    Args:
        norms: The norms.
        name: What the ids within the SVG begin with, so that several fit on one page.
    """
    import matplotlib as mpl  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    new = [norm for norm in norms.new.values() if np.isfinite(norm)]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9.0, "axes.linewidth": 0.6}):
        figure = Figure(figsize=_INCHES, layout="constrained")
        axes = figure.add_subplot()
        ends = [*norms.old, *new]
        if ends:
            counts, edges = np.histogram(norms.old, _BINS, (min(ends), max(ends)))
            axes.stairs(counts, edges, fill=True, color=_OLD)
            # Above the bars, so that a line is seen where there are many old rows.
            top = max(1, int(counts.max()))
            axes.vlines(_apart(new, max(ends) - min(ends)), 0, top * 1.08, color=_NEW, linewidth=1.2)
        axes.set_xlabel("Euclidean norm", color=_QUIET)
        axes.set_ylabel("old rows", color=_QUIET)
        axes.tick_params(colors=_QUIET, width=0.6)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(_QUIET)
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        axes.set_ylim(bottom=0)
        written = io.StringIO()
        empty = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(written, format="svg", metadata=empty)
    return _embedded(written.getvalue(), name)


def _apart(values: list[float], width: float) -> list[float]:
    """Return the values without those that another one hides at this size."""
    return sorted({round(value / width * _LINES) if width else 0: value for value in values}.values())


def _embedded(document: str, name: str) -> str:
    """Return the SVG element of a document, with ids of its own and the page's colours."""
    svg = document[document.index("<svg") :]
    # Its style sheet would hold for the whole page; the page has one for charts.
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(
        r'<svg[^>]*?viewBox="([^"]*)"[^>]*>', r'<svg class="chart" viewBox="\1" aria-hidden="true">', svg, count=1
    )
    for colour, variable in _COLOURS.items():
        svg = svg.replace(colour, variable)
    return svg
