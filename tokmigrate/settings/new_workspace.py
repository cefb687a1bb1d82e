"""The `tokmigrate.yaml` that `tokmigrate init` writes."""

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
