"""The rows of new tokens in a loaded model: which are to learn, how peft trains them alone, and their values after.

peft's trainable tokens (`TrainableTokensConfig`) keep a row for each listed id, put over the frozen matrix; in a model
that ties its embeddings the head follows the input side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokmigrate.audit.lora import name_layer
from tokmigrate.audit.run_status import guard_reading
from tokmigrate.audit.training import Training, training_on_record
from tokmigrate.errors import OperationError, UsageError, suggest
from tokmigrate.model.formats.dtype import Matrix
from tokmigrate.model.snapshot import take_snapshot
from tokmigrate.model.weights.movement import embeddings
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.objects import ObjectStore
from tokmigrate.training.loaded_model import LoadedModel, silence_libraries
from tokmigrate.vocabulary.row_edit import Side

UNTRAINED, NEW = "untrained", "new"
_TO_TRAIN = (Training.UNTRAINED, Training.MOVED)


@dataclass(frozen=True)
class NewRows:
    """Tokens whose rows are to learn.

    Args:
        tokens: Their texts by id.
        layers: The layer of each side by the name that peft finds it by; of a model with tied embeddings, the input's.
    """

    tokens: Mapping[int, str]
    layers: Mapping[Side, str]

    @property
    def ids(self) -> list[int]:
        return sorted(self.tokens)


def choose_rows(workspace: Workspace, entry: ModelEntry, wanted: str | Sequence[str] = UNTRAINED) -> NewRows:
    """Return the rows of a model that are to learn.

    Args:
        wanted: `untrained`, the tokens that migrations initialised and that were not trained since; `new`, all that
            migrations initialised; or tokens by their texts, which may be of the baseline.

    Raises:
        UsageError: There are none.
        OperationError: A token is not in the vocabulary.
        ModelError: The model cannot be read, or peft cannot train single rows of it.
    """
    with guard_reading(entry):
        snapshot = take_snapshot(entry)
    layers = {side: name_layer(snapshot, tensor) for side, tensor in embeddings(snapshot.tensors).items()}
    if isinstance(wanted, str):
        state = open_state_if_present(workspace.state, workspace.root)
        known = training_on_record(state, snapshot, ObjectStore(workspace.objects))
        takes_all = wanted == NEW
        tokens = {each.id: each.token for each in known if takes_all or set(_TO_TRAIN) & set(each.sides.values())}
        if not tokens:
            hint = "`tokmigrate status` shows what was trained; name tokens with --tokens"
            raise UsageError(f"no token is {'new' if takes_all else 'new and untrained'}", where=entry.name, hint=hint)
        return NewRows(tokens, layers)
    ids = snapshot.state.tokenizer.ids
    for token in wanted:
        if token not in ids:
            raise OperationError(f"'{token}' is not in the vocabulary", where=entry.name, hint=suggest(token, ids))
    return NewRows({ids[token]: token for token in wanted}, layers)


def add_trainable_rows(loaded: LoadedModel, rows: NewRows) -> Any:
    """Return the PeftModel in which the rows of `rows`, on all its sides, are the only parameters that learn.

    Raises:
        UsageError: peft is not installed.
    """
    try:
        from peft import TrainableTokensConfig, get_peft_model  # noqa: PLC0415 - an extra
    except ImportError as error:
        hint = 'pip install "tokmigrate[train]"'
        raise UsageError(f"{error.name} is needed to train rows", hint=hint) from error
    # An encoder has no output side, and a tied one follows.
    layers = [name for side, name in rows.layers.items() if side == "input" or loaded.output_rows is not None]
    with silence_libraries():
        return get_peft_model(loaded.model, TrainableTokensConfig(target_modules=layers, token_indices=rows.ids))


def read_rows(model: Any, ids: Iterable[int]) -> dict[Side, Matrix]:
    """Return rows of a PreTrainedModel without peft's layers, `(ids, hidden)` in float64; one side where it is tied."""
    numbers = list(ids)
    head = model.get_output_embeddings()
    matrices: dict[Side, Any] = {"input": model.get_input_embeddings().weight}
    if head is not None and head.weight is not matrices["input"]:
        matrices["output"] = head.weight
    return {side: np.asarray(matrix.detach()[numbers].double().cpu()) for side, matrix in matrices.items()}
