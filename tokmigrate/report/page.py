"""The report on a model as one HTML page that needs nothing beside it: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

from tokmigrate import __version__
from tokmigrate.report.escape import Part, escape_parts, escape_prose, escape_prose_parts
from tokmigrate.report.norm_chart import norm_chart
from tokmigrate.report.norm_figures import norm_figures, rank
from tokmigrate.report.training import figures
from tokmigrate.report.vocabulary_map import runs_of, vocabulary_map
from tokmigrate.runner.reporting.data import KINDS, ReportData, ReportedToken

if TYPE_CHECKING:
    from jinja2 import Environment

LINES_AT_MOST = 2000
"""How many tokens have a line of their own in the table; the others are found by searching."""

_RUNS_AT_MOST = 60


def page(data: ReportData) -> str:
    """Return the report as an HTML document.

    Args:
        data: The report.
    """
    lined = _lined(data.tokens)
    counts = Counter(data.kinds)
    special_runs = [run for run in runs_of(data.kinds) if run[0] != "base"]
    script = _resource("report.js")
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            data=data,
            version=__version__,
            kinds=[(kind, counts[kind]) for kind in KINDS],
            map=vocabulary_map(data.kinds),
            runs=special_runs[:_RUNS_AT_MOST],
            more_runs=max(0, len(special_runs) - _RUNS_AT_MOST),
            lines=lined,
            norms=[
                (norms, norm_figures(norms), norm_chart(norms, f"chart{place}"))
                for place, norms in enumerate(data.norms)
            ],
            input_norms=next((norms for norms in data.norms if norms.side == "input"), None),
            near=[token for token in data.tokens if token.neighbours],
            vocabulary=packed(data, lined),
            style=_resource("report.css"),
            script=script,
            script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def packed(data: ReportData, lined: Iterable[ReportedToken]) -> str:
    """Return the tokens without a line of their own, for the script: JSON, deflated, in base 64.

    Each is its id, its text, the place of its kind among `KINDS`, how it is shown or 0 where that is its text, and
    how what it stands for is shown or 0 where that is no other.
    """
    known = {token.id for token in lined}
    rest = [
        [number, text, KINDS.index(data.kinds[number]), _unlike(text), _reading(data.readings.get(number))]
        for number, text in sorted(data.texts.items())
        if number not in known
    ]
    return base64.b64encode(zlib.compress(json.dumps(rest, separators=(",", ":")).encode(), 9)).decode()


def _unlike(text: str) -> tuple[Part, ...] | Literal[0]:
    parts = escape_parts(text)
    return 0 if parts == (Part(text),) else parts


def _reading(text: str | None) -> tuple[Part, ...] | Literal[0]:
    return 0 if text is None else escape_parts(text)


def _lined(tokens: tuple[ReportedToken, ...]) -> list[ReportedToken]:
    """Return the tokens that get a line, in their order: first of all those that more happened to than a move."""
    places = sorted(range(len(tokens)), key=lambda place: (tokens[place].kind == "moved", place))
    return [tokens[place] for place in sorted(places[:LINES_AT_MOST])]


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _init(init: Mapping[str, Any] | None) -> str:
    """Return how a row started, in a line: one strategy, or one for each side."""
    if init is None:
        return ""
    sides = {side: _strategy(held) for side, held in init.items()}
    if len(set(sides.values())) == 1:
        return next(iter(sides.values()))
    return "; ".join(f"{side}: {told}" for side, told in sides.items())


def _strategy(held: object) -> str:
    if not isinstance(held, Mapping):
        return str(held)
    options = [f"{name} {json.dumps(value, ensure_ascii=False)}" for name, value in held.items() if name != "strategy"]
    return " ".join([str(held.get("strategy", "")), *([f"({', '.join(options)})"] if options else [])])


def _resource(name: str) -> str:
    return files("tokmigrate.report").joinpath("templates", name).read_text("utf-8")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined  # noqa: PLC0415

    made = Environment(
        loader=FunctionLoader(_resource),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # An attribute cannot hold every character of a token as it is; JSON can say each.
    made.filters |= {"shown": escape_parts, "prose": escape_prose_parts, "plain": escape_prose, "quoted": json.dumps}
    made.filters |= {"number": _number, "init": _init, "rank": rank, "figures": figures}
    return made
