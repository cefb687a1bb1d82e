"""The parts of config.json that speak of one vocabulary, and the fields that give its size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tokmigrate.model.formats.json_text import Json

Path = tuple[str | int, ...]

NESTED = (
    "text_config",
    "decoder",
    "decoder_config",
    "generator",
    "text_encoder",
    "llm_config",
    "lm_config",
    "language_config",
    "thinker_config",
    "vlm_config",
    "dit_config",
    "encoder",
)
"""The names under which config.json keeps a language model inside another one, the one that counts first."""


def config_parts(config: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Json]]:
    """Yield the root of config.json and each nested language model, with its path."""
    yield path, config
    for name in NESTED:
        if isinstance(config.get(name), Mapping):
            yield from config_parts(config[name], (*path, name))


def parts_of(config: Mapping[str, Any], size: int) -> Iterator[tuple[Path, Json]]:
    """Yield the parts of config.json that speak of the vocabulary of that size: those that give no other one.

    Args:
        config: The parsed file.
        size: The `vocab_size` of the language model.
    """
    for path, part in config_parts(config):
        if not path or part.get("vocab_size", size) == size:
            yield path, part


def stated_sizes(config: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return every `vocab_size` that config.json gives, with its dotted place; the one that counts comes first."""
    return list(_stated(config, ""))


def _stated(config: Mapping[str, Any], path: str) -> Iterator[tuple[str, int]]:
    for name in NESTED:
        if isinstance(config.get(name), Mapping):
            yield from _stated(config[name], f"{path}{name}.")
    for name in ("vocab_size", "tgt_vocab_size"):
        if isinstance(size := config.get(name), int):
            yield f"{path}{name}", size
