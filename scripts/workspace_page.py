"""docs/workspace.md: the keys of `tokmigrate.yaml`, read off the model that checks the file."""

from __future__ import annotations

from field_tables import tables

from tokmigrate.settings.reading import FileKeys

PAGE = "docs/workspace.md"

_ABOUT = """\
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


def workspace_page() -> str:
    """Return the page as Markdown."""
    return _ABOUT + "\n".join([*tables(FileKeys), _STATE])
