"""What trainers of others take to train the rows of new tokens: which of them train single rows, and by which keys.

Each statement was read in the source of the version that its comment names; docs/trainers.md has the files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tokmigrate.errors import ModelError

if TYPE_CHECKING:
    from tokmigrate.audit.lora import LoraRows

Trainer = Literal["peft", "transformers", "trl", "axolotl", "llamafactory", "unsloth"]
Syntax = Literal["json", "yaml", "python"]
Settings: TypeAlias = Mapping[str, Any]

_NOTHING = "no token is known to be untrained"
_WITHOUT_BIAS = "peft leaves out the bias of an output layer of which it trains single rows"


@dataclass(frozen=True)
class TrainerConfig:
    """What one trainer is given to train the rows of new tokens.

    Args:
        syntax: How it takes them: as YAML, or as arguments of a function, in JSON or in Python.
        comment: Why these settings, in one line; "" where they are the obvious ones.
        warning: What the trainer does wrong with this model.
    """

    trainer: Trainer
    syntax: Syntax
    settings: Settings
    comment: str = ""
    warning: str | None = None


def configure_trainer(trainer: Trainer, rows: LoraRows) -> TrainerConfig:
    """Return what a trainer is given to train the rows of a model.

    Raises:
        ModelError: The trainer cannot train them.
    """
    syntax, configure = _TRAINERS[trainer]
    if not rows.indices and syntax != "json":
        return TrainerConfig(trainer, syntax, {}, _NOTHING)
    settings, comment = configure(rows)
    return TrainerConfig(trainer, syntax, settings, comment, _bias_warning(trainer, rows))


def _bias_warning(trainer: Trainer, rows: LoraRows) -> str | None:
    if not rows.indices or not rows.has_output_bias:
        return None
    if rows.is_tied and trainer != "llamafactory":
        return "peft leaves out the bias of an output layer that is tied to what it trains; train without peft"
    if rows.output and trainer == "peft":
        return f"{_WITHOUT_BIAS}; `--for transformers` has the whole layer trained"
    return None


def _for_peft(rows: LoraRows) -> tuple[Settings, str]:
    return {"trainable_token_indices": rows.indices or None}, ""


def _for_transformers(rows: LoraRows) -> tuple[Settings, str]:
    single, whole = _split(rows, is_output_whole=rows.has_output_bias)
    return _lora_arguments(single, whole), f"{_WITHOUT_BIAS}, so the whole layer is trained" if whole else ""


def _for_trl(rows: LoraRows) -> tuple[Settings, str]:
    comment = "TRL 1.16 reads the bias of the output layer, which peft's wrapper of single rows does not have, so "
    if rows.is_tied and rows.indices:
        return _keep_tied(rows), f"{comment}the tied matrix is trained as a whole"
    single, whole = _split(rows, is_output_whole=True)
    return _lora_arguments(single, whole), f"{comment}the whole layer is trained" if whole else ""


def _for_axolotl(rows: LoraRows) -> tuple[Settings, str]:
    single, whole = _split(rows, is_output_whole=rows.has_output_bias)
    comment = (
        "Axolotl 0.19 gives these to peft; leave `tokens` and `special_tokens` out, since the model has the tokens"
    )
    settings = {"peft_trainable_token_indices": single, "lora_modules_to_save": whole}
    return {key: value for key, value in settings.items() if value}, comment


def _for_llamafactory(rows: LoraRows) -> tuple[Settings, str]:
    comment = "LLaMA-Factory 0.9.5 cannot train single rows"
    if rows.is_tied:
        # It does not give peft `ensure_weight_tying`, and takes the last name of a path.
        layers = ",".join(layer.split(".")[-1] for layer in rows.indices)
        settings = {"finetuning_type": "freeze", "freeze_trainable_layers": 0, "freeze_extra_modules": layers}
        return settings, f"{comment}, and its LoRA unties tied embeddings, so the matrix alone is trained, as a whole"
    settings = {"finetuning_type": "lora", "additional_target": ",".join(rows.indices)}
    return settings, f"{comment}, so whole layers are; leave `resize_vocab` out, since the model has the rows"


def _for_unsloth(rows: LoraRows) -> tuple[Settings, str]:
    for layer in rows.indices:
        if layer.split(".")[-1] not in ("embed_tokens", "lm_head"):
            raise ModelError(
                f"Unsloth 2026.10.9 trains embeddings only in layers named embed_tokens and lm_head, not in '{layer}'",
                hint="use another trainer: `--for transformers`",
            )
    settings = _keep_tied(rows) if rows.is_tied else {"modules_to_save": list(rows.indices)}
    return settings, "Unsloth 2026.10.9 freezes single rows, so get_peft_model is to train whole layers"


def _split(rows: LoraRows, *, is_output_whole: bool) -> tuple[dict[str, list[int]], list[str]]:
    """Return the layers of which single rows are trained, and those that are trained as a whole."""
    whole = [rows.output] if rows.output and is_output_whole else []
    return {layer: ids for layer, ids in rows.indices.items() if layer not in whole}, whole


def _lora_arguments(single: Mapping[str, list[int]], whole: list[str]) -> Settings:
    return {"trainable_token_indices": single or None, **({"modules_to_save": whole} if whole else {})}


def _keep_tied(rows: LoraRows) -> Settings:
    for layer in rows.indices:
        if layer.split(".")[-1] != "embed_tokens":
            raise ModelError(
                f"peft ties the output layer to embed_tokens only, not to '{layer}', where it trains whole layers",
                hint="train single rows, with `--for peft` and one line of Python: docs/trainers.md shows it for TRL",
            )
    return {"modules_to_save": list(rows.indices), "ensure_weight_tying": True}


_TRAINERS: Mapping[Trainer, tuple[Syntax, Callable[[LoraRows], tuple[Settings, str]]]] = {
    "peft": ("json", _for_peft),
    "transformers": ("json", _for_transformers),
    "trl": ("json", _for_trl),
    "axolotl": ("yaml", _for_axolotl),
    "llamafactory": ("yaml", _for_llamafactory),
    "unsloth": ("python", _for_unsloth),
}
