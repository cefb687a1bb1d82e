"""Write what is made from the code: reference, pages of operations, strategies and settings, and the JSON Schema."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping

from command_tables import commands, common_options, panels, section
from field_tables import describe_type, schema_tables, tables
from generated_files import ROOT, main
from pydantic import BaseModel

from tokmigrate.errors import EXIT_CODES, error_types
from tokmigrate.init import InitSpec
from tokmigrate.init.spec import strategy_types
from tokmigrate.operations.registry import operation_types
from tokmigrate.revision.migration import CHECKS, PRECONDITIONS
from tokmigrate.revision.new_file import SCHEMA_FILE, json_schema
from tokmigrate.settings.reading import FileKeys

FOLDER, SCHEMA = "docs/reference", f"migrations/{SCHEMA_FILE}"
PATTERNS = [f"docs/{folder}/*.md" for folder in ("operations", "strategies", "reference")]

_INDEX = """\
# Reference

Generated from the code by `python scripts/make_reference.py`.

| of | |
|---|---|
| a migration | [fields](migration.md), [operations](operations.md), [init strategies](init.md), [checks](checks.md) |
| the command line | [commands](commands.md), [exit codes](exit-codes.md) |
| a workspace | [`tokmigrate.yaml`](../workspace.md), [lint rules](../rules.md), [formats](../formats.md) |
| Python | [API](../api.md), [plug-ins](../plugins.md) |
| models | [architectures](../architectures.md) |
"""
_OPERATIONS = """\
# Operations

What stands under `operations:` of a migration. The page of each has its fields and an example.

| operation | what it does |
|---|---|
"""
_INIT = """\
# Init strategies

Each is given as `init: {strategy: NAME, …}`, or apart for each side:
"""

_WHICH = """\
## Strategies

The page of each has its fields and an example.

| strategy | the row |
|---|---|
"""

_WHEN = """\
## When which

- Words that were several tokens: `subtokens` with `output: first_piece`, which `learn extend` writes, starts best.
- The same, where other text must hardly change: `interpolate` starts nearly as well, for a fraction of that effect.
- Roles and marks, whose text means nothing: `mean`, the default, whose effect on other text has a bound; `description`
  where a phrase says what they are, with `noise: 0.01` where several tokens have one phrase.
- A token that takes over another one's part: `copy`.

Leave `norm` out on the output side: it multiplies the effect on other text. Measured on four models, before and after
training: [benchmarks/RESULTS.md](../../benchmarks/RESULTS.md#ways-to-initialise-new-rows). In the picture the rows
of 256 tokens of code are trained, and nothing else, in a small Llama:

![Nats per byte of code over the steps of training, by strategy](../initialisation.svg)
"""
_COMMANDS = """\
# Commands

`tokmigrate COMMAND --help` shows the same. `-m` is `--message` of `revision`, and `--model` of all others.

The options of the program stand before a command or after it. Output of `plan`, `history`, `show`, `status`, `diff`,
`log`, `blame` and `explain` that is longer than the terminal goes to `TOKMIGRATE_PAGER`, `PAGER` or `less`.
`NO_COLOR=1` turns colours off, `FORCE_COLOR=1` keeps them in a pipe, and `COLUMNS` sets the width of a pipe.
"""

_CODES = {
    0: "`downgrade` over several models skips those that are already there.",
    1: "`lint`, `check --target`, `check --copies`: there is a finding; `test`: a file differs; "
    "`diff --exit-code`: they differ; `revision --autogenerate`: no operation expresses the difference.",
    2: "The command line, tokmigrate.yaml, a migration, the lock, or the order of migrations.",
    3: "Only `check`.",
    4: "A model, a migration or the ledger was edited outside tokmigrate; also what `check` and `verify` find.",
    5: "Another process has locked the model, or an interrupted change needs `tokmigrate recover`.",
    130: "As shells expect. A change that was made is finished, any other is undone.",
}

_BELOW_CODES = """\
A model that a command fails on is as it was, unless the error says that it was changed (5). `plan`, `status`, `check`
and others that look go through all models, and end with the most serious code: 4, then 5, 1, 2, 3. `upgrade` and
`downgrade` over several models change none unless all can be planned and verified; should one fail on the way all the
same, stderr says which are done, failed and not tried, and so does `--json` (`models`, `failed`, `not_tried`).
`--keep-going` goes on with the others.
"""
_WORKSPACE = """\
# The workspace: `tokmigrate.yaml`

Generated from the code by `python scripts/make_reference.py`.

`tokmigrate init` creates the file, a directory `migrations/`, and a `.gitignore` for what is not committed. Commands
use the `tokmigrate.yaml` of the current directory, or of the nearest one above. Paths are relative to the file, and `~`
is the home directory. All errors in the file are reported at once, each with line and column, and exit code 2.

```yaml
format: 1
migrations: migrations
state: sqlite:///.tokmigrate/state.db
models:
  demo: {path: models/demo}
  support:
    path: /data/support-7b
    adapters: [/data/loras/support]
    copies:
      - /data/onnx/support
      - {path: /data/gguf/support.gguf, follow: true}
    tags: [chat]
    vocab_tensors:
      extra.head.weight: {axis: 0, side: output}
      visual.projector.weight: ignore
    id_fields:
      my_router_token_id: ids
      talker.speaker_index: ignore
verify: full
drift: refuse
seed: ""
lint: {select: [TM1, TM3], ignore: [TM109]}
weights: {isolate_vocab: true}
worker: {memory_mib: 4096, cpu_seconds: 120, output_mib: 256}
```

## Keys

"""

_STATE = """\
## `TOKMIGRATE_STATE`

If this environment variable is set and not empty, it replaces `state:` for every command; a relative path of SQLite is
relative to the workspace. It keeps a secret out of the file
(`TOKMIGRATE_STATE=postgresql+psycopg://user:password@host/db`), and an experiment out of the ledger:

```bash
TOKMIGRATE_STATE=sqlite:///trial.db tokmigrate status
```

A state in memory is refused: it would be lost when the command ends.

[Reference](reference/index.md) · [Tutorial](tutorial.md)
"""


def generated() -> dict[str, str]:
    """Return the text of each generated file, by its path in the repository."""
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    workspace = _WORKSPACE + "\n".join([*tables(FileKeys), _STATE])
    reference = {f"{FOLDER}/{name}.md": text for name, text in reference_pages().items()}
    return {SCHEMA: schema, "docs/workspace.md": workspace, **reference, **pages()}


def pages() -> dict[str, str]:
    """Return the page of each operation and strategy, with the example that stands beside it."""
    found: dict[str, str] = {}
    for folder, kinds, index in (
        ("operations", operation_types(), "operations"),
        ("strategies", strategy_types(), "init"),
    ):
        for name, kind in kinds.items():
            page = f"docs/{folder}/{name}.md"
            example = (ROOT / page).with_suffix(".yaml").read_text("utf-8")
            lines = [f"# `{name}`", "", *describe_type(kind, "../reference/init.md"), "## Example", ""]
            lines += ["Under `operations:` of a migration:", "", f"```yaml\n{example}```", ""]
            found[page] = "\n".join([*lines, f"[All {folder}](../reference/{index}.md)"]) + "\n"
    return found


def reference_pages() -> dict[str, str]:
    """Return the pages of the reference, by their names."""
    schema = json_schema()
    spec = InitSpec.model_json_schema()
    sides = next(form for form in spec["anyOf"] if "properties" in form)
    found = {
        "index": [_INDEX],
        "migration": ["# A migration file", "", *schema_tables(schema, schema["$defs"], "init.md")],
        "operations": [_OPERATIONS + _summaries("operations", operation_types())],
        "init": [
            _INIT,
            *schema_tables(sides, spec["$defs"], "#strategies"),
            _WHICH + _summaries("strategies", strategy_types()),
            _WHEN,
        ],
        "checks": [
            *("# Preconditions and checks", "", "## Preconditions", ""),
            *("Under `preconditions:`; what has to hold before.", ""),
            *_conditions(PRECONDITIONS),
            *("## Checks", "", "Under `verify:`; what has to hold after.", ""),
            *_conditions(CHECKS),
        ],
        "exit-codes": _exit_codes(),
        "commands": [_COMMANDS, *common_options()],
    }
    known = commands()
    for panel, names in panels().items():
        page = f"commands-{panel.lower()}"
        found["commands"] += [f"## [{panel}]({page}.md)", "", "| command | what it does |", "|---|---|"]
        found["commands"] += [
            f"| [`{name}`]({page}.md#tokmigrate-{name.replace(' ', '-')}) | {known[name].get_short_help_str(200)} |"
            for name in names
        ]
        found["commands"].append("")
        found[page] = [
            f"# Commands: {panel}",
            "",
            *(line for each in names for line in section(each, known[each])),
        ]
    return {name: "\n".join(lines).rstrip() + "\n" for name, lines in found.items()}


def _exit_codes() -> list[str]:
    """Return the lines of the page of exit codes, with the errors that have them."""
    lines = ["# Exit codes", "", "| code | meaning | more | errors, the `kind` of `--json` |", "|---|---|---|---|"]
    for code, meaning in EXIT_CODES.items():
        kinds = (each for each in error_types() if each.exit_code == code)
        names = ", ".join(f"[`{each.__name__}`](../errors/{each.topic}.md)" for each in kinds)
        lines.append(f"| {code} | {meaning} | {_CODES[code]} | {names} |")
    return [*lines, "", _BELOW_CODES, "[Troubleshooting](../troubleshooting.md) says what to do about each."]


def _summaries(folder: str, kinds: Mapping[str, type[BaseModel]]) -> str:
    """Return the rows of a table with the first sentence of each kind."""
    rows = (f"| [`{name}`](../{folder}/{name}.md) | {_first_sentence(kind)} |" for name, kind in kinds.items())
    return "\n".join(rows) + "\n"


def _conditions(kinds: Mapping[str, type[BaseModel]]) -> list[str]:
    return [line for name, kind in kinds.items() for line in (f"### `{name}`", "", *describe_type(kind, "init.md"))]


def _first_sentence(kind: object) -> str:
    return " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split()).replace("|", "\\|")


if __name__ == "__main__":
    main(generated(), PATTERNS)
