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

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tokmigrate.model.documents.config_fields import NESTED, SIZES
from tokmigrate.model.worker.worker_main import run_worker

MORE = 7 * 13 * 64
"""How much larger the second vocabulary is: a multiple of what sizes are usually rounded to."""


class UnknownModelError(Exception):
    """The installed transformers has no code for this model."""


@dataclass(frozen=True)
class Tensor:
    """A tensor as it is on disk, and the name of its module, None where a conversion made it of several."""

    shape: tuple[int, ...]
    module: str | None


def missing_package(error: ImportError) -> str:
    """Return why a library could not be imported, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else "a package is missing"


def load_config(directory: str) -> Any:
    """Return the directory's config as transformers reads it; raises UnknownModelError."""
    try:
        import torch  # noqa: F401, PLC0415
        from transformers import AutoConfig  # noqa: PLC0415
    except ImportError as error:
        raise UnknownModelError(f"{error.name} is not installed") from error
    try:
        return AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (ValueError, KeyError) as error:
        if any(sign in str(error) for sign in ("trust_remote_code", "Unrecognized model", "does not recognize")):
            reason = "transformers has no code of its own for this model type, and foreign code is never run"
            raise UnknownModelError(reason) from error
        raise


def build(config: Any) -> Any:
    """Return the model that config.json names, on the meta device; raises UnknownModelError."""
    import torch  # noqa: PLC0415

    config = copy.deepcopy(config)
    for part in parts(config):
        # Kernels that are not installed must not matter for shapes.
        part._attn_implementation = "eager"
    model_class = _model_class(config)
    try:
        with torch.device("meta"):
            return model_class(config)
    except ImportError as error:
        # A vision tower may need a package that shapes of the language model do not justify.
        raise UnknownModelError(missing_package(error)) from error


def _model_class(config: Any) -> Any:
    import transformers  # noqa: PLC0415

    for name in config.architectures or ():
        if isinstance(found := getattr(transformers, name, None), type):
            return found
    from transformers.models.auto import modeling_auto  # noqa: PLC0415

    for mapping in (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING,
        modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
        modeling_auto.MODEL_FOR_MASKED_LM_MAPPING,
        modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        modeling_auto.MODEL_MAPPING,
    ):
        if type(config) in mapping:
            found = mapping[type(config)]
            return found[0] if isinstance(found, tuple) else found
    raise UnknownModelError(f"transformers has no model class for {type(config).__name__}")


def parts(config: Any) -> Iterator[Any]:
    """Yield a config and all that it nests."""
    yield config
    for value in list(vars(config).values()):
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            yield from parts(value)


def vocabulary_size(config: Any) -> int | None:
    """Return the rows that a config gives its text vocabulary, None if it has none."""
    for part in (config.get_text_config(decoder=True), config):
        for name in ("vocab_size", "tgt_vocab_size"):
            size = getattr(part, name, None)
            if isinstance(size, int):
                return size
    return None


def with_more_rows(config: Any, more: int) -> Any:
    """Return a copy of a config in which every size of the text vocabulary is larger by `more`."""
    size = vocabulary_size(config)
    config = copy.deepcopy(config)
    for part in _language_parts(config):
        for name in SIZES:
            value = vars(part).get(name)
            if isinstance(value, int) and (value == size or name != "vocab_size"):
                setattr(part, name, value + more)
    return config


def _language_parts(config: Any) -> Iterator[Any]:
    """Yield a config and the language models that it nests; a vision tower counts other things."""
    yield config
    for name in NESTED:
        inner = vars(config).get(name)
        if hasattr(inner, "to_dict"):
            yield from _language_parts(inner)


def tensors_on_disk(model: Any) -> dict[str, Tensor]:
    """Return every tensor of a model under the names that `save_pretrained` writes, and those of its modules."""
    from transformers.core_model_loading import revert_weight_conversion  # noqa: PLC0415

    state = model.state_dict()
    names = {id(tensor): name for name, tensor in state.items()}
    try:
        saved: Mapping[str, Any] = revert_weight_conversion(model, dict(state))
    # One that needs the numbers fails here, and leaves the names of the modules.
    except Exception:
        saved = {}

    def describe(tensor: Any) -> Tensor:
        name = names.get(id(tensor))
        return Tensor(tuple(tensor.shape), None if name is None else name.rpartition(".")[0])

    found = {name: describe(tensor) for name, tensor in state.items()}
    return found | {name: describe(tensor) for name, tensor in saved.items()}


def find_name(name: str, tensors: Mapping[str, Tensor], prefix: str) -> str | None:
    """Return the model's name of a tensor on disk, None where nothing or more than one thing fits.

    The `prefix` is the model's `base_model_prefix`, which a file may have or lack.
    """
    for candidate in (name, f"{prefix}.{name}", name.removeprefix(f"{prefix}.")):
        if candidate in tensors:
            return candidate
    ends = [known for known in tensors if known.endswith(f".{name}") or name.endswith(f".{known}")]
    return ends[0] if len(ends) == 1 else None


def ties_vocabulary(model: Any, following: Mapping[str, Any]) -> bool:
    """Return whether the model ties two of the tensors that follow its vocabulary."""
    tied = model.get_expanded_tied_weights_keys(all_submodels=True)
    return any(target in following and source in following for target, source in tied.items())


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
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
            "axis": next(axis for axis, size in enumerate(tensor.shape) if size != after[name].shape[axis]),
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
