"""Which tensors of a model follow its vocabulary: those whose shape changes with `vocab_size`.

The model is built twice on the meta device, the second time with a larger vocabulary. An axis that differs
is a vocabulary axis, by definition; an axis that is merely as long does not differ.

Request: `directory`; `open`, the names on disk that are to be explained.

Answer: `vocab_size`, null where the config has none; `following`, `{name: {axis, side, shape}}` for every tensor
that follows, by all names that it may have on disk, `side` being null where the module does not tell it;
`explained`, the same, or null, by name, for the open ones that the model has, null for those that do not
follow; `tied`, whether some are tied. Or else `unknown`, why transformers cannot tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokmigrate.model.worker.meta_model import (
    Tensor,
    UnknownModelError,
    build,
    find_name,
    load_config,
    tensors_on_disk,
    ties_vocabulary,
    vocabulary_size,
    with_more_rows,
)
from tokmigrate.model.worker.worker_main import run_worker

MORE = 7 * 13 * 64
"""How much larger the second vocabulary is: a multiple of what sizes are usually rounded to."""


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Build the models and answer."""
    try:
        config = load_config(request["directory"])
    except UnknownModelError as error:
        return {"unknown": str(error)}
    try:
        model, larger = build(config), build(with_more_rows(config, MORE))
    except UnknownModelError as error:
        return {"unknown": str(error)}
    # A class may fail in any way, and the workspace can still name its tensors.
    except Exception as error:
        return {"unknown": f"transformers cannot build the model: {type(error).__name__}: {error}"}
    before, after = tensors_on_disk(model), tensors_on_disk(larger)
    following = {
        name: {
            "axis": _axis(tensor.shape, after[name].shape),
            "side": _side(model, tensor),
            "shape": list(tensor.shape),
        }
        for name, tensor in before.items()
        if tensor.shape != after[name].shape
    }
    explained = {}
    for name in request["open"]:
        known = find_name(name, before, model.base_model_prefix)
        if known is not None:
            explained[name] = following.get(known)
    return {
        "vocab_size": vocabulary_size(config),
        "following": following,
        "explained": explained,
        "tied": ties_vocabulary(model, following),
    }


def _axis(shape: tuple[int, ...], larger: tuple[int, ...]) -> int:
    return next(axis for axis, (a, b) in enumerate(zip(shape, larger, strict=True)) if a != b)


def _side(model: Any, tensor: Tensor) -> str | None:
    import torch  # noqa: PLC0415

    if tensor.module is None:
        return None
    module = model.get_submodule(tensor.module)
    if isinstance(module, torch.nn.Embedding) or module is _input_embeddings(model):
        return "input"
    is_bias = len(tensor.shape) == 1 or tensor.shape[0] == 1
    return "output" if isinstance(module, torch.nn.Linear | torch.nn.Conv1d) or is_bias else None


def _input_embeddings(model: Any) -> Any | None:
    """Return the module, None where the class does not say which it is, as classes of several models do not."""
    try:
        return model.get_input_embeddings()
    except NotImplementedError:
        return None


if __name__ == "__main__":
    run_worker(answer)
