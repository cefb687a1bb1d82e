"""A model that is loaded to run: from safetensors only, without code of its own, where memory suffices in float32."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, Literal

from tokmigrate.commands.resources import free_memory
from tokmigrate.errors import LimitError, ModelError, OutOfStepError, in_one_line
from tokmigrate.formatting import format_bytes, format_list
from tokmigrate.model.documents.architecture_quirks import POSITION_IDS_FROM_PAD
from tokmigrate.model.tokenizer.library import library_errors, open_tokenizer
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.model.weights.vocabulary_tensor import ids_elsewhere
from tokmigrate.model.weights.weights import read_weights

Kind = Literal["causal", "encoder"]

_FLOAT32 = 4
_SMALL = 64 << 20
"""The bytes of a model, in float32, below which one thread computes it."""

_SPARE = 1.25
"""How much more than its weights a model takes while it runs without gradients."""


@dataclass(frozen=True)
class LoadedModel:
    """A model of the library, in evaluation mode, with its tokenizer.

    Args:
        model: The PreTrainedModel, on `device` and in `dtype`.
        tokenizer: That of the tokenizers library, without truncation and padding.
        kind: Whether it is trained to predict the next token, or to embed a text.
        longest: How many tokens a text may have, None where the configuration does not say.
    """

    directory: Path
    model: Any
    tokenizer: Any
    kind: Kind
    device: Any
    dtype: Any
    longest: int | None

    def run(self, ids: Any, mask: Any, **options: Any) -> Any:
        """Return what the model makes of ids, `(texts, tokens)`; raises ModelError where transformers cannot run it."""
        with _model_errors(self.directory, "run"):
            return self.model(input_ids=ids, attention_mask=mask, **options)

    @property
    def input_rows(self) -> Any:
        """The matrix of the input embeddings, `(rows, hidden)`."""
        return self.model.get_input_embeddings().weight

    @property
    def output_rows(self) -> Any:
        """The matrix of the output embeddings, `(rows, hidden)`; the input's where tied, None of an encoder."""
        layer = self.model.get_output_embeddings()
        return None if layer is None else layer.weight


def load_models(*directories: Path) -> tuple[LoadedModel, ...]:
    """Load the models of directories to run them, on a GPU where there is one, all in the same place and dtype.

    Raises:
        ModelError: transformers cannot load one, or it is neither a decoder nor an encoder.
        LimitError: There is not enough memory for them.
    """
    import torch  # noqa: PLC0415 - seconds, which only who runs a model pays

    device, dtype = _choose_place(directories, torch)
    return tuple(_load(directory, device, dtype) for directory in directories)


def _load(directory: Path, device: Any, dtype: Any) -> LoadedModel:
    import transformers  # noqa: PLC0415

    with silence_libraries(), _model_errors(directory, "load"):
        config = transformers.AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        kind, loader = _find_kind(directory, config, transformers)
        model = loader.from_pretrained(
            directory, config=config, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
        model = model.to(device).eval()
        rows = len(model.get_input_embeddings().weight)
    with library_errors(
        lambda cause: ModelError(cause, where=str(directory / FILE), hint="restore it from a copy of the model")
    ):
        tokenizer = open_tokenizer(directory / FILE)
        highest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
    if highest >= rows + ids_elsewhere(config.to_dict()):
        message = f"the ids of its tokens go up to {highest}, and the embeddings have {rows} rows"
        hint = "give the model the tokenizer that it was trained with"
        raise OutOfStepError(message, where=str(directory), hint=hint)
    inner = config.get_text_config()
    longest = getattr(inner, "max_position_embeddings", None)
    if longest is not None and inner.model_type in POSITION_IDS_FROM_PAD:
        longest -= (inner.pad_token_id or 0) + 1
    return LoadedModel(directory, model, tokenizer, kind, device, dtype, longest)


def _find_kind(directory: Path, config: Any, transformers: Any) -> tuple[Kind, Any]:
    if getattr(config, "is_encoder_decoder", False):
        hint = "models that only decode, and models that only encode, can be measured and trained"
        raise ModelError(f"{config.model_type} encodes and decodes", where=str(directory), hint=hint)
    names: Sequence[str] = config.architectures or ()
    known = transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if known.get(config.model_type) in names or any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        return "causal", transformers.AutoModelForCausalLM
    if any(name.endswith("ForConditionalGeneration") for name in names):
        return "causal", getattr(transformers, names[0])
    return "encoder", transformers.AutoModel


def _choose_place(directories: Sequence[Path], torch: Any) -> tuple[Any, Any]:
    """Return the device and the dtype: a GPU and float32 where there is memory for them, or the dtype of the file."""
    tensors = [entry for directory in directories for _, entry in read_weights(directory).tensors()]
    stored = sum(entry.end - entry.begin for entry in tensors)
    whole = sum(_FLOAT32 * prod(entry.shape) for entry in tensors)
    threads = _count_threads()
    # The parts of a small model take less time than threads need to wait for one another.
    torch.set_num_threads(1 if whole < _SMALL else threads)
    names = ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",)
    free: int | None = None
    for device in map(torch.device, names):
        free = find_free_memory(device)
        for needed, dtype in ((whole, torch.float32), (stored, "auto")):
            if free is None or needed * _SPARE <= free:
                return device, dtype
    needed, free = int(min(whole, stored) * _SPARE), free or 0
    raise LimitError(
        f"{format_bytes(needed)} of memory are needed, {format_bytes(free)} are free",
        where=format_list([str(directory) for directory in directories]),
        hint="run this on a larger machine",
    )


def find_free_memory(device: Any) -> int | None:
    """Return the bytes of memory that are free where a model runs, None if unknown."""
    import torch  # noqa: PLC0415

    return int(torch.cuda.mem_get_info()[0]) if device.type == "cuda" else free_memory()


@cache
def _count_threads() -> int:
    """Return how many threads torch had before a model was loaded."""
    import torch  # noqa: PLC0415

    return int(torch.get_num_threads())


@contextmanager
def _model_errors(directory: Path, doing: Literal["load", "run"]) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, OSError, ImportError, RuntimeError) as error:
        hint = "look with `tokmigrate verify`, which loads it in the same way" if doing == "load" else None
        raise ModelError(
            f"transformers cannot {doing} it: {in_one_line(str(error))}", where=str(directory), hint=hint
        ) from error


@contextmanager
def silence_libraries() -> Iterator[None]:
    """Keep progress bars and warnings of the libraries off the terminal."""
    from transformers.utils import logging  # noqa: PLC0415

    level, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()
