"""Tiny models and workspaces that tests make for themselves in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from workspaces import Workspace as Place

from tokmigrate.commands.upgrade import upgrade
from tokmigrate.settings import ModelEntry, Workspace, read_workspace
from tokmigrate.state.database import open_state
from tokmigrate.state.ledger import State
from tokmigrate.state.rows import TokenEvent

Dtype = Literal["bfloat16", "float16", "float32", "float64"]
Head = Literal["tied", "untied", "stored twice"]
Tensors = dict[str, torch.Tensor]

BOS, EOS = "<s>", "</s>"
IMAGE = "<|image|>"
WORDS = ("the", "in", "re", "on", "er", "and", "to", "of", "Ġthe", "Ġa", "Ġin", "Ġof", "ing", "Ġto", "Ġand", "es")
HIDDEN = 8


def byte_alphabet() -> list[str]:
    """Return the letter that a byte-level tokenizer writes for each byte, from 0 to 255."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in letters)
    letters |= {byte: chr(256 + place) for place, byte in enumerate(others)}
    return [letters[byte] for byte in range(256)]


def tokenizer_json(specials: Sequence[str] = (BOS, EOS), words: Sequence[str] = WORDS) -> dict[str, Any]:
    """Return a byte-level BPE tokenizer: the bytes, the words and all that they are merged from, then the specials."""
    tokens = dict.fromkeys(byte_alphabet())
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        for end in range(2, len(word) + 1):
            merges.setdefault((word[: end - 1], word[end - 1]))
            tokens.setdefault(word[:end])
    vocabulary = {token: number for number, token in enumerate(tokens)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": content, **flags} for number, content in enumerate(specials, len(vocabulary))
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [list(pair) for pair in merges],
        },
    }


def token_count(document: Mapping[str, Any]) -> int:
    """Return how many tokens a tokenizer of `tokenizer_json` has."""
    return len(document["model"]["vocab"]) + len(document["added_tokens"])


TOKENS = token_count(tokenizer_json())


def write_json(path: Path, value: object) -> None:
    """Write JSON as transformers does."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


def write_tokenizer(directory: Path, document: Mapping[str, Any] | None = None) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    write_json(directory / "tokenizer.json", document or tokenizer_json())
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "model_max_length": 64,
        "clean_up_tokenization_spaces": False,
    }
    write_json(directory / "tokenizer_config.json", settings)


def write_weights(directory: Path, tensors: Tensors, shards: int = 1) -> None:
    """Write a single file, or shards with an index that share out the tensors in turn."""
    if shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return
    places: dict[str, str] = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        held = {name: tensors[name] for name in sorted(tensors)[number::shards]}
        save_file(held, directory / file, metadata={"format": "pt"})
        places |= dict.fromkeys(held, file)
    metadata = {
        "total_parameters": sum(tensor.numel() for tensor in tensors.values()),
        "total_size": sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
    }
    index = {"metadata": metadata, "weight_map": dict(sorted(places.items()))}
    write_json(directory / "model.safetensors.index.json", index)


def tensors_of(directory: Path) -> Tensors:
    """Return every tensor of a model directory, as the safetensors library reads it."""
    found: Tensors = {}
    for path in sorted(directory.glob("*.safetensors")):
        found |= load_file(path)
    return found


def random_rows(*shape: int, dtype: Dtype, seed: int) -> torch.Tensor:
    """Return normal numbers of a seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(getattr(torch, dtype))


def _write_model(directory: Path, config: Mapping[str, Any], tensors: Tensors, shards: int, dtype: Dtype) -> Path:
    directory.mkdir(parents=True)
    write_tokenizer(directory)
    write_json(directory / "config.json", {**config, "dtype": dtype})
    ids = {"bos_token_id": TOKENS - 2, "eos_token_id": TOKENS - 1}
    write_json(directory / "generation_config.json", {**ids, "transformers_version": "5.0.0"})
    write_weights(directory, tensors, shards)
    return directory


def llama(
    directory: Path,
    *,
    dtype: Dtype = "float32",
    head: Head = "untied",
    shards: int = 1,
    spare: int = 0,
) -> Path:
    """Make a Llama of one layer.

    Args:
        directory: Where; it must not exist.
        dtype: The dtype of every tensor.
        head: Whether the head is tied to the embeddings and absent, its own, or tied and stored all the same.
        shards: How many files.
        spare: Rows without a token.
    """
    rows = TOKENS + spare
    layer = "model.layers.0."
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (rows, HIDDEN),
        **({"lm_head.weight": (rows, HIDDEN)} if head == "untied" else {}),
        "model.norm.weight": (HIDDEN,),
        f"{layer}input_layernorm.weight": (HIDDEN,),
        f"{layer}post_attention_layernorm.weight": (HIDDEN,),
        **{f"{layer}self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkvo"},
        f"{layer}mlp.gate_proj.weight": (12, HIDDEN),
        f"{layer}mlp.up_proj.weight": (12, HIDDEN),
        f"{layer}mlp.down_proj.weight": (HIDDEN, 12),
    }
    tensors = {name: random_rows(*shape, dtype=dtype, seed=seed) for seed, (name, shape) in enumerate(shapes.items())}
    if head == "stored twice":
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "bos_token_id": TOKENS - 2,
        "eos_token_id": TOKENS - 1,
        "hidden_size": HIDDEN,
        "intermediate_size": 12,
        "max_position_embeddings": 64,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "num_key_value_heads": 2,
        "tie_word_embeddings": head != "untied",
        "vocab_size": rows,
    }
    return _write_model(directory, config, tensors, shards, dtype)


def phi(directory: Path, *, dtype: Dtype = "float32", shards: int = 1, spare: int = 0) -> Path:
    """Make what of a Phi matters here: a head with a bias."""
    rows = TOKENS + spare
    tensors = {
        "model.embed_tokens.weight": random_rows(rows, HIDDEN, dtype=dtype, seed=0),
        "lm_head.weight": random_rows(rows, HIDDEN, dtype=dtype, seed=1),
        "lm_head.bias": random_rows(rows, dtype=dtype, seed=2),
        "model.final_layernorm.weight": random_rows(HIDDEN, dtype=dtype, seed=3),
    }
    config = {"architectures": ["PhiForCausalLM"], "model_type": "phi", "hidden_size": HIDDEN, "vocab_size": rows}
    return _write_model(directory, {**config, "tie_word_embeddings": False}, tensors, shards, dtype)


def bert(directory: Path, *, dtype: Dtype = "float32", shards: int = 1, spare: int = 0) -> Path:
    """Make what of a BERT matters here: tied embeddings and a bias of their own."""
    rows = TOKENS + spare
    tensors = {
        "bert.embeddings.word_embeddings.weight": random_rows(rows, HIDDEN, dtype=dtype, seed=0),
        "cls.predictions.bias": random_rows(rows, dtype=dtype, seed=1),
        "cls.predictions.transform.dense.weight": random_rows(HIDDEN, HIDDEN, dtype=dtype, seed=2),
    }
    config = {"architectures": ["BertForMaskedLM"], "model_type": "bert", "hidden_size": HIDDEN, "vocab_size": rows}
    return _write_model(directory, config, tensors, shards, dtype)


def bart(directory: Path, *, dtype: Dtype = "float32", shards: int = 1, spare: int = 0) -> Path:
    """Make what of a BART matters here: `final_logits_bias`, whose vocabulary is axis 1."""
    rows = TOKENS + spare
    tensors = {
        "model.shared.weight": random_rows(rows, HIDDEN, dtype=dtype, seed=0),
        "final_logits_bias": random_rows(1, rows, dtype=dtype, seed=1),
        "model.encoder.layernorm_embedding.weight": random_rows(HIDDEN, dtype=dtype, seed=2),
    }
    config = {
        "architectures": ["BartForConditionalGeneration"],
        "model_type": "bart",
        "d_model": HIDDEN,
        "vocab_size": rows,
    }
    return _write_model(directory, config, tensors, shards, dtype)


def built(directory: Path, name: str, **fields: Any) -> Path:
    """Make a small model of a class of transformers, which runs; a head's bias is random too, if it has one.

    Args:
        directory: Where.
        name: The class.
        fields: Those of its configuration that are not as in others.
    """
    import transformers

    torch.manual_seed(3)
    kind = getattr(transformers, name)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    common = {"vocab_size": TOKENS, "max_position_embeddings": 64, **sizes}
    model = kind(kind.config_class(**{**common, **fields}))
    bias = dict(model.named_parameters()).get("lm_head.bias")
    if bias is not None:
        torch.nn.init.normal_(bias)
    model.save_pretrained(directory)
    write_tokenizer(directory)
    return directory


def _base_model(model_type: str, rows: int) -> dict[str, Any]:
    return {"model_type": model_type, "hidden_size": HIDDEN, "vocab_size": rows, "tie_word_embeddings": False}


def mllama(directory: Path, *, dtype: Dtype = "float32", shards: int = 1, spare: int = 0) -> Path:
    """Make what of a Mllama matters here: eight ids behind its vocabulary have an input row only."""
    rows = TOKENS + spare
    tensors = {
        "model.embed_tokens.weight": random_rows(rows + 8, HIDDEN, dtype=dtype, seed=0),
        "lm_head.weight": random_rows(rows, HIDDEN, dtype=dtype, seed=1),
    }
    _write_model(directory, _base_model("mllama_text_model", rows), tensors, shards, dtype)
    if not spare:
        write_tokenizer(directory, tokenizer_json((BOS, EOS, IMAGE)))
    return directory


def per_layer(directory: Path, *, dtype: Dtype = "float32", shards: int = 1, spare: int = 0) -> Path:
    """Make what of a Gemma 3n matters here: a table for its layers that holds the first ids only."""
    rows = TOKENS + spare
    tensors = {
        "model.embed_tokens.weight": random_rows(rows, HIDDEN, dtype=dtype, seed=0),
        "model.embed_tokens_per_layer.weight": random_rows(TOKENS - 5, 3, dtype=dtype, seed=1),
        "lm_head.weight": random_rows(rows, HIDDEN, dtype=dtype, seed=2),
    }
    config = {**_base_model("gemma3n_text", rows), "vocab_size_per_layer_input": TOKENS - 5}
    return _write_model(directory, config, tensors, shards, dtype)


def tailed(directory: Path, *, dtype: Dtype = "float32", shards: int = 1, spare: int = 0) -> Path:
    """Make what of a CPM-Ant matters here: rows of prompts behind those of its tokens."""
    rows = TOKENS + spare
    tensors = {
        "cpmant.input_embedding.weight": random_rows(rows + 6, HIDDEN, dtype=dtype, seed=0),
        "lm_head.weight": random_rows(rows, HIDDEN, dtype=dtype, seed=1),
    }
    config = {**_base_model("cpmant", rows), "prompt_types": 2, "prompt_length": 3}
    return _write_model(directory, config, tensors, shards, dtype)


def routed(directory: Path, *, dtype: Dtype = "float32", shards: int = 1, spare: int = 0) -> Path:
    """Make what of a DeepSeek-V4 matters here: a table of integers with a row for each token."""
    rows = TOKENS + spare
    generator = torch.Generator().manual_seed(4)
    tensors = {
        "model.embed_tokens.weight": random_rows(rows, HIDDEN, dtype=dtype, seed=0),
        "model.layers.0.mlp.gate.tid2eid": torch.randint(0, 9, (rows, 2), generator=generator),
        "lm_head.weight": random_rows(rows, HIDDEN, dtype=dtype, seed=1),
    }
    return _write_model(directory, _base_model("deepseek_v4", rows), tensors, shards, dtype)


@dataclass(frozen=True)
class Made(Place):
    """A workspace with its models and migrations.

    Args:
        revisions: The revisions of its migrations, in order.
    """

    revisions: tuple[str, ...]

    @property
    def workspace(self) -> Workspace:
        """The workspace as tokmigrate reads it."""
        return read_workspace(self.root / "tokmigrate.yaml", {})

    @property
    def state(self) -> State:
        """What the workspace has on record."""
        return open_state(self.workspace.state, self.root)

    def events(self) -> list[TokenEvent]:
        """Return the token events of its only model."""
        (model,) = self.state.list_models()
        return [row.event for row in self.state.token_events(model)]

    def entry(self, model: str) -> ModelEntry:
        """Return a model of the workspace by its name."""
        return self.workspace.models[model]


def workspace(root: Path, models: Mapping[str, Path], migrations: Sequence[Mapping[str, Any]]) -> Made:
    """Make a workspace.

    Args:
        root: Its folder, which may exist.
        models: The directories of its models by name.
        migrations: What each migration says besides `format`, its revision, the one before it and a message.
    """
    (root / "migrations").mkdir(parents=True, exist_ok=True)
    settings = {"format": 1, "verify": "fast", "models": {name: {"path": str(path)} for name, path in models.items()}}
    write_json(root / "tokmigrate.yaml", settings)
    revisions: list[str] = []
    for number, migration in enumerate(migrations, 1):
        revision = f"{number:012x}"
        head = {"format": 1, "revision": revision, "down_revision": revisions[-1] if revisions else None}
        content = {**head, "message": f"Step {number}", **migration}
        # JSON is YAML too, and tells a text from a number by its quotes.
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (root / "migrations" / f"{number:04}_step_{number}.yaml").write_text(text, "utf-8")
        revisions.append(revision)
    return Made(root, tuple(revisions))


def say_of(root: Path, model: str, **fields: Any) -> None:
    """Say more of a model in tokmigrate.yaml, which need not list it yet."""
    settings = json.loads((root / "tokmigrate.yaml").read_text("utf-8"))
    settings["models"].setdefault(model, {}).update(fields)
    write_json(root / "tokmigrate.yaml", settings)


def migrated(root: Path, model: Path, *steps: Mapping[str, Any]) -> Made:
    """Make a workspace with a model `m` that has gone through a migration for each of these operations."""
    made = workspace(root, {"m": model}, [{"operations": [step]} for step in steps])
    upgrade(made.workspace, made.entry("m"))
    return made
