"""Write the plots of docs/benchmarks.md and docs/initialisation.svg from the tables of benchmarks/RESULTS.md."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from generated_files import ROOT, main

RESULTS, FOLDER = "benchmarks/RESULTS.md", "docs/plots"
PATTERNS = [f"{FOLDER}/*"]

_WIDTH, _LEFT, _RIGHT = 560, 14, 76
_STYLE = """\
<style>
svg { --ground: #fff; --ink: #24292f; --faint: #8c959f; --ours: #00796b; --other: #aab4be; color-scheme: light dark }
@media (prefers-color-scheme: dark) {
  svg { --ground: #1e2129; --ink: #e4e7ec; --faint: #7d8590; --ours: #2bb5a0; --other: #5b6472 }
}
.ground { fill: var(--ground) } text { fill: var(--ink) } .title { font-weight: 600 }
.ours { fill: var(--ours) } .other { fill: var(--other) } .axis { stroke: var(--faint) }
.line { fill: none; stroke-width: 2.5 }
</style>"""

Table = Sequence[Mapping[str, str]]
"""The rows of a table, by the titles of their columns."""


@dataclass(frozen=True)
class Bars:
    """A bar for each row of a table; `label` names a row, or returns None for one that is left out."""

    title: str
    section: str
    column: str
    unit: str
    label: Callable[[Mapping[str, str]], str | None] = lambda row: row["run"]

    def draw(self, tables: Mapping[str, Sequence[Table]]) -> str:
        rows = [(label, row[self.column]) for row in tables[self.section][0] if (label := self.label(row))]
        return draw_bars(self.title, rows, self.unit)


def _after_2000(row: Mapping[str, str]) -> str | None:
    return (
        f"{row['tokenizer']}: {row['how']}".replace("`", "") if row["new tokens"] == "2,000" or _is_fresh(row) else None
    )


def _is_fresh(row: Mapping[str, str]) -> bool:
    return row["new tokens"] == "1,980"


def _name_rows(row: Mapping[str, str]) -> str:
    return row["new rows"].replace("`", "")


def _totals(row: Mapping[str, str]) -> str | None:
    return row["run"] if row["run"].endswith((": trim", ": all")) else None


_TWO, _XFS = "Two tokens, 6 GB", "On XFS: two tokens, 6 GB"
_CODE, _PRUNE = "Vocabularies extended for Python code", "A smaller vocabulary, beside trimbed"
PLOTS: Mapping[str, Bars] = {
    "two-tokens-time": Bars("Two tokens for a model of 6 GB: seconds", _TWO, "wall s", " s"),
    "two-tokens-memory": Bars(
        "Two tokens for a model of 6 GB: memory of the largest process", _TWO, "memory MB", " MB"
    ),
    "shared-blocks": Bars("The same on XFS, which shares blocks: written", _XFS, "written MB", " MB"),
    "pending": Bars("Pending migrations, a model of 0.4 GB: seconds", "Pending migrations, 0.4 GB", "wall s", " s"),
    "fleet": Bars(
        "Two tokens for eight models of 0.1 GB: seconds",
        "Eight models of 0.1 GB, while other work ran on the machine",
        "wall s",
        " s",
    ),
    "extend-code": Bars("2,000 tokens for Python: tokens of held-out code", _CODE, "domain", " %", _after_2000),
    "extend-old-text": Bars("2,000 tokens for Python: tokens of other text", _CODE, "old text", " %", _after_2000),
    "distil-encoder": Bars(
        "Distance of embeddings that is left",
        "New words of an encoder, distilled",
        "of the distance is left",
        " %",
        lambda row: f"{row['rows']}, {row['steps']} steps",
    ),
    "transplant": Bars("Nats per byte of held-out code", "Another model's tokenizer", "nats per byte", "", _name_rows),
    "prune-cpu": Bars("A smaller vocabulary: CPU seconds", _PRUNE, "CPU s", " s", _totals),
    "prune-memory": Bars("A smaller vocabulary: memory", _PRUNE, "memory MB", " MB", _totals),
}
# Rows of both tables: before training, and after so many steps of it.
_WAYS = (
    *("mean", "mean_cov, scale 1", "interpolate 0.75", "subtokens", "subtokens, first_piece"),
    *("zeros", "transformers, mean_resizing=False"),
)


def generated(results: str) -> dict[str, str]:
    """Return each plot as SVG, by its path in the repository.

    Args:
        results: The text of benchmarks/RESULTS.md.
    """
    tables = read_tables(results)
    found = {f"{FOLDER}/{name}.svg": plot.draw(tables) for name, plot in PLOTS.items()}
    before, trained = tables["Ways to initialise new rows"][:2]
    return {**found, "docs/initialisation.svg": _draw_initialisation(before, trained)}


def read_tables(text: str) -> dict[str, list[Table]]:
    """Return the tables of each section; a row of a bold name alone names those below it."""
    found: dict[str, list[Table]] = {}
    for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        tables = found[title.partition(";")[0]] = []
        for block in re.findall(r"(?:^\|.*\n)+", body, re.MULTILINE):
            head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines())
            tables.append(list(_with_groups(head, rows)))
    return found


def _with_groups(head: list[str], rows: list[list[str]]) -> Iterator[Mapping[str, str]]:
    # Of columns of one title the second is "nats 2".
    head = [
        f"{title} {head[: place + 1].count(title)}" if title in head[:place] else title
        for place, title in enumerate(head)
    ]
    group = ""
    for cells in rows:
        if cells[0].startswith("**"):
            group = cells[0].strip("*") + ", "
        else:
            yield dict(zip(head, [group + cells[0], *cells[1:]], strict=True))


def draw_bars(title: str, rows: Sequence[tuple[str, str]], unit: str) -> str:
    """Return a bar chart with the values as the table has them."""
    numbers = [float(re.sub(r"[,%+]", "", value)) for _, value in rows]
    low, high = min(0.0, *numbers), max(0.0, *numbers)
    scale = (_WIDTH - _LEFT - _RIGHT) / (high - low)
    zero = _LEFT - low * scale
    lines = [f'<text class="title" x="{_LEFT}" y="26">{escape(title)}</text>']
    for place, ((label, value), number) in enumerate(zip(rows, numbers, strict=True)):
        y = 58 + 48 * place
        kind = "other" if re.search(r"\bcp\b|script|mergekit|trimbed|fresh|before|donor", label) else "ours"
        start, end = sorted((zero, zero + number * scale))
        lines += [
            f'<text x="{_LEFT}" y="{y}">{escape(label)}</text>',
            f'<rect class="{kind}" x="{start:.1f}" y="{y + 6}" width="{max(end - start, 1):.1f}" height="14" rx="2"/>',
            f'<line class="axis" x1="{zero:.1f}" x2="{zero:.1f}" y1="{y + 3}" y2="{y + 23}"/>',
            f'<text x="{end + 6:.1f}" y="{y + 18}">{value.removesuffix("%")}{unit}</text>',
        ]
    return _picture(title, 48 + 48 * len(rows), lines)


def _draw_initialisation(before: Table, trained: Table) -> str:
    title = "Nats per byte of code over the steps of training, in a small Llama"
    first = {row["rows"]: row for row in before}
    later = {row["rows"]: [row[f"small, {steps}"] for steps in (20, 100, 400)] for row in trained}
    ways = {way: [float(first[way]["nats 2"]), *map(float, later[way])] for way in _WAYS}
    base = float(first["the model before"]["nats 2"])
    values = [base, *(value for found in ways.values() for value in found)]
    low, high = min(values), max(values)
    across = [60, 210, 360, 510]

    def down(value: float) -> float:
        return round(270 - 220 * (value - low) / (high - low), 1)

    lines = [f'<text class="title" x="{_LEFT}" y="26">{escape(title)}</text>']
    lines += [f'<text x="{x - 10}" y="300">{steps}</text>' for x, steps in zip(across, (0, 20, 100, 400), strict=True)]
    lines += [f'<text x="{_LEFT}" y="{down(value) + 5}">{value:.2f}</text>' for value in (low, (low + high) / 2, high)]
    for place, (way, found) in enumerate(sorted(ways.items(), key=lambda item: -item[1][0])):
        # Of this lightness each hue stands out from both grounds.
        color = f"hsl({place * 360 // len(ways)} 65% 50%)"
        points = " ".join(f"{x},{down(value)}" for x, value in zip(across, found, strict=True))
        y = 330 + 22 * place
        lines += [
            f'<polyline class="line" points="{points}" stroke="{color}"/>',
            f'<rect x="{_LEFT}" y="{y - 11}" width="14" height="12" rx="2" fill="{color}"/>',
            f'<text x="{_LEFT + 22}" y="{y}">{escape(way)}</text>',
        ]
    y = down(base)
    lines += [
        f'<line class="axis" x1="{across[0]}" x2="{across[-1]}" y1="{y}" y2="{y}" stroke-dasharray="4"/>',
        f'<text x="{across[0]}" y="{y - 6}">before, without new tokens</text>',
    ]
    return _picture(title, 330 + 22 * len(ways), lines)


def _picture(title: str, height: int, lines: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    font = 'font-family="system-ui, sans-serif" font-size="14"'
    ground = '<rect class="ground" width="100%" height="100%" rx="6"/>'
    return "\n".join(
        [f'{head} {font} role="img">', f"<title>{escape(title)}</title>", _STYLE, ground, *lines, "</svg>\n"]
    )


if __name__ == "__main__":
    main(generated((ROOT / RESULTS).read_text("utf-8")), PATTERNS)
