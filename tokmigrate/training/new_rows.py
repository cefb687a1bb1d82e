"""The rows of new tokens in a loaded model: which are to learn, how peft trains them alone, and their values after.

peft's trainable tokens (`TrainableTokensConfig`) keep a row for each listed id, put over the frozen matrix; in a model
that ties its embeddings the head follows the input side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from tokmigrate.audit.lora import name_layer
from tokmigrate.audit.run_status import read_snapshot
from tokmigrate.audit.training import training_on_record
from tokmigrate.errors import ModelError, OperationError, UsageError, in_one_line, suggest
from tokmigrate.formatting import format_list
from tokmigrate.model.formats.dtype import Matrix
from tokmigrate.model.weights.movement import embeddings
from tokmigrate.plan.progress import check_progress
from tokmigrate.revision.history import History
from tokmigrate.revision.learned_rows import write_learned_rows
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.objects import ObjectStore
from tokmigrate.training.loaded_model import LoadedModel, silence_libraries
from tokmigrate.training.run_settings import NEW, UNTRAINED
from tokmigrate.vocabulary.row_edit import Side

_INSTALL = 'pip install "tokmigrate[train]"'


@dataclass(frozen=True)
class NewRows:
    """Tokens whose rows are to learn.

    Args:
        tokens: Their texts by id.
        layers: The layer of each side by the name that peft finds it by; of a model with tied embeddings, the input's.
        special: The ids of the special tokens among all of the model.
    """

    tokens: Mapping[int, str]
    layers: Mapping[Side, str]
    special: frozenset[int]

    @property
    def ids(self) -> list[int]:
        return sorted(self.tokens)

    @property
    def names(self) -> tuple[str, ...]:
        """The tokens in the order of their ids."""
        return tuple(self.tokens[number] for number in self.ids)

    def only(self, ids: Iterable[int]) -> NewRows:
        """Return some of them."""
        return replace(self, tokens={number: self.tokens[number] for number in ids})


def choose_rows(workspace: Workspace, entry: ModelEntry, wanted: str | Sequence[str] = UNTRAINED) -> NewRows:
    """Return the rows of a model that are to learn.

    Args:
        wanted: `untrained`, the tokens that migrations initialised and that were not trained since; `new`, all that
            migrations initialised; or tokens by their texts, which may be of the baseline.

    Raises:
        UsageError: There are none, or the model has pending migrations, which would come before the rows.
        OperationError: A token is not in the vocabulary.
        ModelError: The model cannot be read, or has rows that neither peft nor a file of rows knows.
    """
    snapshot = read_snapshot(entry)
    check_progress(snapshot, History.read(workspace).chain_for(entry)).refuse_pending(entry.name)
    matrices = embeddings(snapshot.tensors)
    for tensor in snapshot.tensors:
        # A bias stays, and tied matrices follow.
        if tensor.width > 1 and tensor.canonical not in {matrix.canonical for matrix in matrices.values()}:
            hint = "train the model as a whole, with a trainer of your own"
            raise ModelError(f"rows of '{tensor.name}' cannot be learned alone", where=entry.name, hint=hint)
    layers = {side: name_layer(snapshot, tensor) for side, tensor in matrices.items()}
    special = frozenset(number for token, number in snapshot.state.tokenizer.added.values() if token.special)
    if isinstance(wanted, str):
        state = open_state_if_present(workspace.state, workspace.root)
        known = training_on_record(state, snapshot, ObjectStore(workspace.objects))
        takes_all = wanted == NEW
        tokens = {each.id: each.token for each in known if takes_all or each.is_to_train}
        if not tokens and known:
            hint = "`--tokens new` takes them again; `tokmigrate status` shows how they were trained"
            raise UsageError("no new token is untrained", where=entry.name, hint=hint)
        if not tokens:
            hint = "apply a migration that adds tokens, or name some of the vocabulary with --token"
            raise UsageError("no migration has initialised a token", where=entry.name, hint=hint)
        return NewRows(tokens, layers, special)
    ids = snapshot.state.tokenizer.ids
    for token in wanted:
        if token not in ids:
            raise OperationError(f"'{token}' is not in the vocabulary", where=entry.name, hint=suggest(token, ids))
    return NewRows({ids[token]: token for token in wanted}, layers, special)


def add_trainable_rows(loaded: LoadedModel, rows: NewRows, lora: Mapping[str, Any] | None = None) -> Any:
    """Return the PeftModel in which the rows of `rows`, on all its sides, are the only parameters that learn.

    Args:
        lora: Fields of a LoraConfig, whose adapter learns too.

    Raises:
        UsageError: peft cannot be imported, or refuses the fields.
    """
    try:
        with silence_libraries():
            from peft import LoraConfig, TrainableTokensConfig, get_peft_model  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(f"peft cannot be imported: {in_one_line(str(error))}", hint=_INSTALL) from error

    # An encoder has no output side, and a tied one follows.
    layers = [name for side, name in rows.layers.items() if side == "input" or loaded.output_rows is not None]
    with silence_libraries():
        if lora is None:
            config: Any = TrainableTokensConfig(target_modules=layers, token_indices=rows.ids)
            model = get_peft_model(loaded.model, config)
        else:
            try:
                indices = dict.fromkeys(layers, rows.ids)
                config = LoraConfig(task_type="CAUSAL_LM", trainable_token_indices=indices, **lora)
                model = get_peft_model(loaded.model, config)
            except (ValueError, TypeError, KeyError) as error:
                hint = "give fields of peft's LoraConfig"
                raise UsageError(f"peft refuses the LoRA: {in_one_line(str(error))}", hint=hint) from error
    for parameter in model.parameters():
        if parameter.requires_grad:
            # In a narrow dtype small steps would be rounded away.
            parameter.data = parameter.data.float()
    for layer in _find_layers(model):
        if _loses_bias(layer):
            if lora is not None:
                hint = "leave out --with-lora, or train the whole layer: `tokmigrate peft-config --for transformers`"
                raise UsageError("peft leaves out the bias of an output layer with rows that learn", hint=hint)
            layer.register_forward_hook(lambda layer, _, logits: logits + layer.get_base_layer().bias)
    return model


def _find_layers(model: Any) -> Iterator[Any]:
    """Yield peft's layers with rows that learn; a tied one has none of its own."""
    for module in model.modules():
        if hasattr(module, "trainable_tokens_delta") and module.tied_adapter is None:
            yield module


def _loses_bias(layer: Any) -> bool:
    """Return whether peft's layer leaves out the bias of the one that it stands for, as peft 0.21 does."""
    import torch  # noqa: PLC0415

    base = layer.get_base_layer()
    if getattr(base, "bias", None) is None or not bool(base.bias.any()):
        return False
    with torch.no_grad():
        return not bool(layer(base.weight.new_zeros(1, base.in_features)).any())


def check_installed() -> None:
    """Raise UsageError where a library that training needs is missing."""
    missing = [name for name in ("torch", "transformers", "accelerate", "peft") if find_spec(name) is None]
    if missing:
        raise UsageError(f"training needs {format_list(missing)}", hint=_INSTALL)


def check_learning_rate(rate: float) -> None:
    """Raise UsageError where no row would learn, or none could."""
    if not 0 < rate < inf:
        raise UsageError(f"a learning rate is more than 0, and this is {rate}", hint="give --lr 0.1, or leave it out")


def build_optimizer(model: Any, learning_rate: float, lora_rate: float = 0.0) -> Any:
    """Return AdamW for the parameters that learn.

    Args:
        model: What `add_trainable_rows` returns.
        learning_rate: That of rows, as a share of the root mean square of their matrix: 0.01 changes a number by
            about 1 % of that in a step. So one value suits matrices of any size.
        lora_rate: That of all other parameters.
    """
    import torch  # noqa: PLC0415

    groups: list[dict[str, Any]] = []
    for layer in _find_layers(model):
        matrix = layer.get_base_layer().weight
        size = float(torch.linalg.vector_norm(matrix, dtype=torch.float32)) / matrix.numel() ** 0.5
        deltas = list(layer.trainable_tokens_delta.values())
        groups.append({"params": deltas, "lr": learning_rate * (size or 1.0)})
    rows = {id(parameter) for group in groups for parameter in group["params"]}
    others = [each for each in model.parameters() if each.requires_grad and id(each) not in rows]
    groups += [{"params": others, "lr": lora_rate}] if others else []
    return torch.optim.AdamW(groups, weight_decay=0.0)


def read_rows(model: Any, ids: Iterable[int]) -> dict[Side, Matrix]:
    """Return rows of a PreTrainedModel without peft's layers, `(ids, hidden)` in float64; one side where it is tied."""
    numbers = list(ids)
    head = model.get_output_embeddings()
    matrices: dict[Side, Any] = {"input": model.get_input_embeddings().weight}
    if head is not None and head.weight is not matrices["input"]:
        matrices["output"] = head.weight
    return {side: np.asarray(matrix.detach()[numbers].double().cpu()) for side, matrix in matrices.items()}


def write_rows(
    workspace: Workspace,
    entry: ModelEntry,
    message: str,
    rows: NewRows,
    before: Mapping[Side, Matrix],
    model: Any,
    provenance: Mapping[str, Any],
    remarks: Sequence[str] = (),
) -> Path:
    """Write a migration that gives a model of the workspace the rows that the loaded `model` has now.

    Args:
        before: What `read_rows` gave before they learned. Of rows that did not, such as the input row of a token that
            only ends texts, the migration says so.
    """
    names, learned = rows.names, read_rows(model, rows.ids)
    kept = {
        side: [token for token, was, row in zip(names, before[side], held, strict=True) if np.array_equal(was, row)]
        for side, held in learned.items()
    }
    return write_learned_rows(workspace, entry, message, names, learned, provenance, remarks, kept=kept)
