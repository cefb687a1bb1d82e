"""The workspace that `tokmigrate init` creates."""

from __future__ import annotations

from pathlib import Path

from tokmigrate.errors import UsageError
from tokmigrate.files import exists, read_if_present, storage_errors
from tokmigrate.settings.workspace import FILE_NAME

_IGNORED = (".tokmigrate/", ".*.tokmigrate/")

NEW_WORKSPACE = """\
# The workspace of tokmigrate: which models there are, and where the migrations and the state live.
# Paths are relative to this file.
format: 1

migrations: migrations

# Any SQLAlchemy URL; PostgreSQL for a team. The environment variable TOKMIGRATE_STATE takes its place.
state: sqlite:///.tokmigrate/state.db

# Every model by the name that commands and migrations give it.
models:
#  demo: {path: models/demo}
#  support-7b:
#    path: /data/support-7b
#    adapters: [/data/loras/support]      # changed together with the model
#    tags: [chat]                         # a migration may name a tag instead of models
#    vocab_tensors:                       # only where tokmigrate asks for it
#      extra.head.weight: {axis: 0, side: output}
#      visual.projector.weight: ignore    # a vocabulary-sized axis by coincidence
#    id_fields:                           # likewise: fields of configurations, by name or dotted path
#      my_router_token_id: ids            # an id of a token; or list, map, positions, bias
#      talker.speaker_index: ignore       # no id of a token

# full: load the result with transformers before it is published; fast: with tokenizers only.
verify: full

# Part of the seed of every random row; the same text gives the same rows.
seed: ""

# What `tokmigrate lint` asks for, by codes or their beginnings: lint: {select: [TM1, TM3], ignore: [TM109]}
"""
"""The text of a new `tokmigrate.yaml`."""


def create_workspace(directory: Path) -> list[Path]:
    """Create a workspace, and return what was written.

    Args:
        directory: Its directory; it is created if it does not exist.

    Raises:
        UsageError: There is a workspace already.
        StorageError: A file cannot be written.
    """
    settings, migrations, ignore_file = directory / FILE_NAME, directory / "migrations", directory / ".gitignore"
    if exists(settings):
        raise UsageError(
            "there is a workspace already", where=str(settings), hint="list your models in it, or remove it first"
        )
    with storage_errors("create the workspace", directory):
        migrations.mkdir(parents=True, exist_ok=True)
        settings.write_text(NEW_WORKSPACE, "utf-8")
    lines = (read_if_present(ignore_file) or b"").decode("utf-8", "surrogateescape").splitlines()
    missing = [line for line in _IGNORED if line not in lines]
    if not missing:
        return [settings, migrations]
    with storage_errors("write the file", ignore_file):
        ignore_file.write_text("\n".join([*lines, *missing]) + "\n", "utf-8", "surrogateescape")
    return [settings, migrations, ignore_file]
