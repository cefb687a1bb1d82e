"""Writes docs/architectures.md: which classes of transformers with a language-model head can be migrated."""

from __future__ import annotations

import json
import re
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path

import transformers
from generated_files import ROOT, main

TARGET = "docs/architectures.md"
sys.path.insert(0, str(ROOT / "tests"))

from tiny_models import (  # noqa: E402
    LanguageModel,
    build,
    builds_by_default,
    language_models,
    tiny_config,
    whole_models,
)

from tokmigrate.errors import TokmigrateError  # noqa: E402
from tokmigrate.model.documents.architecture_quirks import (  # noqa: E402
    FIXED_IDS,
    FIXED_SIZE,
    IDS_AFTER_THE_LAST,
    POSITION_IDS_FROM_PAD,
    REFUSED,
    TWO_SIDED,
)
from tokmigrate.model.weights.vocabulary_tensor import INPUT_ONLY  # noqa: E402
from tokmigrate.model.weights.vocabulary_tensors import find_vocabulary_tensors  # noqa: E402
from tokmigrate.model.weights.weights import read_weights  # noqa: E402

ROWS = 300


def outcomes() -> dict[str, tuple[str, str]]:
    """Return for each class its model type, and `migrated`, `refused` or `not built`."""
    found: dict[str, tuple[str, str]] = {}
    for name, model in language_models().items():
        config = tiny_config(model, ROWS)
        model_type = config.model_type if config is not None else model.model_type
        found[name] = (model_type, _outcome(model_type, built=config is not None))
    return found


def _outcome(model_type: str, *, built: bool) -> str:
    if model_type in REFUSED:
        return "refused"
    return "migrated" if built else "not built"


def page(found: Mapping[str, tuple[str, str]], by_default: int) -> str:
    """Return the page as Markdown.

    Args:
        found: As `outcomes` gives it.
        by_default: How many of the classes transformers builds with their default configs.
    """
    by_outcome = {what: sorted(name for name, (_, outcome) in found.items() if outcome == what) for what in _WORDS}
    lines = [_INTRODUCTION.format(version=transformers.__version__), "| | classes |", "|---|---|"]
    lines += [f"| in transformers' language-model mappings | {len(found)} |"]
    lines += [f"| built by transformers with their default config | {by_default} |"]
    lines += [f"| {words} | {len(by_outcome[what])} |" for what, words in _WORDS.items()]
    lines += ["", "## Refused", "", "| class | model type | why |", "|---|---|---|"]
    lines += [f"| {name} | `{found[name][0]}` | {REFUSED[found[name][0]].reason} |" for name in by_outcome["refused"]]
    lines += ["", _OTHER_REFUSALS, "", "## Migrated, with a limit", "", "| model type | limit |", "|---|---|"]
    lines += [f"| {model_types} | {limit} |" for model_types, limit in _limits()]
    lines += ["", "## Not tried", "", _NOT_TRIED, "", _names(by_outcome["not built"])]
    lines += ["", "## Whole models", "", _WHOLE, "", "| class | model type | vocabulary tensors |", "|---|---|---|"]
    lines += [f"| {name} | `{model.model_type}` | {_whole(model)} |" for name, model in whole_models().items()]
    lines += ["", "## Migrated", "", _names(by_outcome["migrated"]), ""]
    return "\n".join(lines)


def _whole(model: LanguageModel) -> str:
    """Return what is found in a small model of a class that is in none of the mappings."""
    try:
        config = tiny_config(model, ROWS)
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder)
            build(model, config).save_pretrained(directory)
            text = (directory / "config.json").read_text("utf-8")
            found = find_vocabulary_tensors(read_weights(directory), json.loads(text), {})
    except TokmigrateError as error:
        return f"none are known: {error.message.replace('|', ' ')}"
    except Exception:
        return "not tried"
    names = dict.fromkeys(re.sub(r"\.\d+\.", ".N.", tensor.name) for tensor in found.tensors)
    return ", ".join(f"`{name}`" for name in names)


def _limits() -> Iterable[tuple[str, str]]:
    for name, reason in sorted(FIXED_SIZE.items()):
        ids = f"no id can change: it {FIXED_IDS[name]}; " if name in FIXED_IDS else ""
        yield f"`{name}`", f"{ids}the number of rows cannot change: {reason}"
    for name, count in sorted(INPUT_ONLY.items()):
        yield f"`{name}`", f"{count} ids behind `vocab_size` have an input row only, and stay there"
    for name in TWO_SIDED:
        limit = "where encoder and decoder keep different embeddings, the workspace says that they have one vocabulary"
        yield f"`{name}`", limit
    yield "`molmo2`", _MOLMO2
    for name in sorted(IDS_AFTER_THE_LAST):
        yield f"`{name}`", "ids after the last token are timestamps: no compaction"
    counted = ", ".join(f"`{name}`" for name in sorted(POSITION_IDS_FROM_PAD - REFUSED.keys()))
    yield counted, "the pad token keeps its id: positions are counted from it"


def _names(names: Iterable[str]) -> str:
    return textwrap.fill(", ".join(names), 118, break_on_hyphens=False)


_WORDS = {
    "migrated": "migrated, loaded again, and brought back by the tests",
    "refused": "refused, with the reason",
    "not built": "not tried: transformers builds them neither by default nor small",
}
_INTRODUCTION = """\
# Architectures

Generated by `python scripts/make_architectures.py` from the code and transformers {version}. A test builds a small
model of each class below, saves it, moves and adds tokens, loads it with `from_pretrained` without missing, unexpected
or mismatched tensors, compares every row bit for bit, and goes back to the exact bytes
(`tests/test_every_architecture.py`).

Vocabulary tensors are known by name for these model types. For any other type that transformers has code for, they are
those whose shape follows `vocab_size` in its own model; where that leaves something open, an error names the tensor and
the setting (`vocab_tensors:` in tokmigrate.yaml) that decides it.
"""
_OTHER_REFUSALS = """\
Whatever the type, also refused are: a head or embedding that is quantized (a new row cannot be computed in it), tensors
that map a draft model's ids to another model's (`d2t`, `t2d`), and weights that are not safetensors."""
_MOLMO2 = (
    "as `save_pretrained` of transformers 5.23 writes it, with the matrix divided in the middle, it is refused;"
    " `save_original_format=False` keeps it whole"
)
_WHOLE = """\
Classes that generate, and that are in none of the mappings above: models with a talker, a codec or a speech recogniser
around a language model. Their type is not in the registry, so transformers' own model tells which tensors follow
`vocab_size`; these were found in a small model of each. Where none are known, the error has the candidates with their
shapes, ready for `vocab_tensors:`. Whether its ids are tokens of a text is for you to know."""
_NOT_TRIED = "Nothing of these was run: what they need is not there where the tests run, or their defaults contradict."


def generated() -> str:
    """Return the page's text."""
    models: Iterable[LanguageModel] = language_models().values()
    return page(outcomes(), sum(map(builds_by_default, models)))


if __name__ == "__main__":
    main({TARGET: generated()})
