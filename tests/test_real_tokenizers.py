"""Real tokenizers, each beside a small model of the architecture it was made for."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from making import Tensors, tensors_of, workspace, write_json
from real_tokenizers import DATA, GOLDEN, available, is_available, real
from safetensors.torch import load_file, save_file
from shared_models import shared_model
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from workspaces import contents

from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.inspect import verify
from tokmigrate.commands.upgrade import Upgraded, upgrade
from tokmigrate.errors import OperationError

Ids = list[int]
Operations = list[dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """A tokenizer, the model beside it, and a migration of both.

    Args:
        tokenizer: Its folder among the shared ones.
        model: Makes the model for it, as transformers would train it.
        auto: The class of transformers that loads the model.
        operations: The migration.
        given: The ids that the new tokens must get.
        rows: The rows before and after.
        pad: The pad token afterwards.
        published: The texts with published ids.
        verify: How thorough the upgrade is.
    """

    tokenizer: str
    model: Callable[[], transformers.PreTrainedModel]
    auto: str
    operations: Operations
    given: Mapping[str, int]
    rows: tuple[int, int]
    pad: str
    published: str | None = None
    verify: Literal["full", "fast"] = "fast"


SMALL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
SMALL_ENCODER = {key: value for key, value in SMALL.items() if key != "num_key_value_heads"}


def phi3() -> transformers.PreTrainedModel:
    """Phi-3 mini keeps 32064 rows for 32011 tokens."""
    ids = {"bos_token_id": 1, "eos_token_id": 32000, "pad_token_id": 32000}
    config = transformers.Phi3Config(**SMALL, **ids, vocab_size=32064, tie_word_embeddings=False, dtype="bfloat16")
    return transformers.Phi3ForCausalLM(config).to(torch.bfloat16)


def phi() -> transformers.PreTrainedModel:
    """Phi-2 keeps 51200 rows for 50295 tokens, and its head has a bias."""
    ids = {"bos_token_id": 50256, "eos_token_id": 50256}
    config = transformers.PhiConfig(**SMALL, **ids, vocab_size=51200, tie_word_embeddings=False, dtype="float16")
    model = transformers.PhiForCausalLM(config)
    torch.nn.init.normal_(model.lm_head.bias)
    return model.to(torch.float16)


def chatml(*, tied: bool = True) -> transformers.PreTrainedModel:
    """A Qwen3 as small as MiniMind, which ties its head and has no row to spare."""
    config = transformers.Qwen3Config(
        **SMALL, head_dim=8, bos_token_id=1, eos_token_id=2, vocab_size=6400, tie_word_embeddings=tied
    )
    return transformers.Qwen3ForCausalLM(config)


def t5() -> transformers.PreTrainedModel:
    """T5 keeps 32128 rows for 32100 tokens."""
    config = transformers.T5Config(
        vocab_size=32128,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    return transformers.T5ForConditionalGeneration(config)


def roberta() -> transformers.PreTrainedModel:
    """RoBERTa counts positions from its pad id, and its head has a bias."""
    config = transformers.RobertaConfig(
        **(SMALL_ENCODER | {"max_position_embeddings": 514}), vocab_size=50265, type_vocab_size=1
    )
    model = transformers.RobertaForMaskedLM(config)
    torch.nn.init.normal_(model.lm_head.bias)
    return model


def bert() -> transformers.PreTrainedModel:
    """BERT ties its head, whose bias stands alone."""
    model = transformers.BertForMaskedLM(transformers.BertConfig(**SMALL_ENCODER, vocab_size=30522))
    torch.nn.init.normal_(model.cls.predictions.bias)
    return model


def minilm() -> transformers.PreTrainedModel:
    """A sentence encoder has no head."""
    return transformers.BertModel(transformers.BertConfig(**SMALL_ENCODER, vocab_size=30522))


def roles(new: Mapping[str, str], end: str, template: str = "set") -> dict[str, Any]:
    """Return an operation that adds role tokens to a model that has its end token already."""
    return {"add_role_tokens": {"roles": dict(new), "end": end, "existing": "reuse", "template": template}}


WORDS = ({"content": "<ent>", "special": True}, {"content": "</ent>", "special": True})

PACKAGED = (
    Case(
        "mistral-chat",
        phi3,
        "AutoModelForCausalLM",
        [
            roles(
                {"user": "<|user|>", "assistant": "<|assistant|>", "tool": "<|tool|>", "judge": "<|judge|>"}, "<|end|>"
            ),
            {"set_padding": {"token": "<|placeholder1|>", "side": "left"}},
        ],
        {"<|tool|>": 32011, "<|judge|>": 32012},
        (32064, 32064),
        "<|placeholder1|>",
        verify="full",
    ),
    Case(
        "phi-2",
        phi,
        "AutoModelForCausalLM",
        [
            {"add_role_tokens": {"preset": "chatml"}},
            {"set_padding": {"token": "<|endoftext|>", "side": "left", "pad_to_multiple_of": 8}},
        ],
        {"<|im_start|>": 50295, "<|im_end|>": 50296},
        (51200, 51200),
        "<|endoftext|>",
        "gpt-2",
    ),
    Case(
        "gpt2-chatml",
        chatml,
        "AutoModelForCausalLM",
        [
            roles({"judge": "<|judge|>", "critic": "<|critic|>"}, "<|im_end|>"),
            {"set_padding": {"token": "<|endoftext|>", "max_length": "longest"}},
        ],
        {"<|judge|>": 6400, "<|critic|>": 6401},
        (6400, 6402),
        "<|endoftext|>",
    ),
    Case(
        "oromo-t5",
        t5,
        "AutoModelForSeq2SeqLM",
        [
            roles({"user": "<user>", "assistant": "<assistant>"}, "</s>", "keep"),
            {"set_padding": {"token": "<pad>", "side": "right"}},
        ],
        {"<user>": 32100, "<assistant>": 32101},
        (32128, 32128),
        "<pad>",
    ),
    Case(
        "gpt2-roberta",
        roberta,
        "AutoModelForMaskedLM",
        [{"add_tokens": {"tokens": list(WORDS)}}, {"set_padding": {"token": "<pad>", "pad_to_multiple_of": 8}}],
        {"<ent>": 50265, "</ent>": 50266},
        (50265, 50267),
        "<pad>",
        "gpt-2",
    ),
    Case(
        "bert-base-uncased",
        bert,
        "AutoModelForMaskedLM",
        [{"add_tokens": {"tokens": list(WORDS)}}, {"set_padding": {"token": "[PAD]", "side": "right"}}],
        {"<ent>": 30522, "</ent>": 30523},
        (30522, 30524),
        "[PAD]",
        "bert-bge",
    ),
    Case(
        "all-minilm-l6-v2",
        minilm,
        "AutoModel",
        [{"add_tokens": {"tokens": list(WORDS)}}, {"set_padding": {"token": "[PAD]", "pad_to_multiple_of": 16}}],
        {"<ent>": 30522, "</ent>": 30523},
        (30522, 30524),
        "[PAD]",
        "bert-bge",
    ),
)
_BY_NAME = {case.tokenizer: case for case in PACKAGED}
SHARED = (
    replace(_BY_NAME["mistral-chat"], tokenizer="phi-3-mini", published="phi-3", verify="fast"),
    replace(_BY_NAME["oromo-t5"], tokenizer="t5-small"),
)
"""The same with tokenizers that no package ships."""

CASES = (*PACKAGED, *(case for case in SHARED if is_available(case.tokenizer)))


def texts(name: str) -> list[str]:
    """Return the texts of a published set."""
    return (GOLDEN / f"{name}.inp").read_bytes().decode("utf-8").split("\n__ggml_vocab_test__\n")


def published_ids(name: str) -> list[Ids]:
    """Return the published ids of each text of a set; the file ends without those of its last, empty text."""
    return [[int(word) for word in line.split()] for line in (GOLDEN / f"{name}.out").read_text("utf-8").splitlines()]


OWN_TEXTS = (
    "The tide came in at 12:30, and nobody's boat had been moved.",
    "  two  spaces,\tthen a tab \n\n and lines\r\n",
    "def add(a: int, b: int) -> int:\n    return a + b  # 3.14159, 1_000 and 0xFF",
    "naïve café, Straße, İstanbul, ŁÓDŹ, Ελλάδα, Москва",
    "漢字とかな、한국어 문장, ไทย, العربية من اليمين, עברית",
    "🦙 👩‍👩‍👧‍👦 🇪🇹 \u200b\u00ad\ufeff",
    "\ufb01ne \u2460\u2461 \uff21\uff42\uff43 \u338f \u00bd",
    "e\u0301 and \u00e9 are one letter",
    "Afaan Oromoo barachuuf kitaaba kana dubbisi.",
    "<s>[INST] hi [/INST] [MASK] </s>",
    "https://example.org/a?b=c&d=%20#e",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "!?.,;:-_'\"()[]{}<>@#$%^&*+=~`|/\\",
    "I'm, you're, we'll, they've, he'd, IT'S",
    "",
    " ",
    "\n",
    "\x00\x07\x7f",
)

ALL_TEXTS = (
    *OWN_TEXTS,
    *(
        dict.fromkeys(text for name in ("phi-3", "gpt-2", "bert-bge") for text in texts(name))
        if GOLDEN.is_dir()
        else ()
    ),
)


def library(directory: Path) -> Tokenizer:
    """Load tokenizer.json with the tokenizers library, neither filling nor cutting."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def cut(tokenizer: Tokenizer, text: str) -> Ids:
    """Return a text's ids without special tokens around it."""
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def auto_tokenizer(directory: Path) -> Any:
    """Load a tokenizer as users do."""
    return transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)


def auto_cut(tokenizer: Any, text: str) -> Ids:
    """Return a text's ids as transformers cuts it, without special tokens around it."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def make_model(directory: Path, case: Case) -> Path:
    """Write the case's tokenizer and its model, of fixed random weights."""
    torch.manual_seed(7)
    model = case.model()
    tokens = len(library(real(case.tokenizer)).get_vocab())
    with torch.no_grad():
        for matrix in _embeddings(model):
            # Rows that mean something by their place and spread, and rows to spare that no mean may take in.
            matrix.mul_(torch.linspace(0.5, 2.0, matrix.shape[1])).add_(0.05)
            matrix[tokens:] = 3.0
    model.save_pretrained(directory)
    for file in sorted((real(case.tokenizer)).iterdir()):
        shutil.copyfile(file, directory / file.name)
    return directory


def _embeddings(model: transformers.PreTrainedModel) -> list[torch.Tensor]:
    found = [module.weight for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module]
    return found if len(found) == 1 or found[0] is not found[1] else found[:1]


@dataclass(frozen=True)
class Stop:
    """A directory on the way, with what the libraries make of it."""

    directory: Path

    @cached_property
    def library(self) -> Tokenizer:
        """What the tokenizers library loads."""
        return library(self.directory)

    @cached_property
    def auto(self) -> Any:
        """What transformers loads."""
        return auto_tokenizer(self.directory)

    @cached_property
    def tensors(self) -> Tensors:
        """Every tensor by its name."""
        return tensors_of(self.directory)


@dataclass(frozen=True)
class Migrated:
    """A case before and after its migration, and after the downgrade."""

    case: Case
    before: Stop
    after: Stop
    restored: Path
    upgraded: Upgraded


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.tokenizer)
def migrated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Migrated:
    """Take each case up and back, with a copy of every stop."""
    case: Case = request.param
    root = tmp_path_factory.mktemp(case.tokenizer)
    model = make_model(root / "model", case)
    before = shutil.copytree(model, root / "before")
    made = workspace(root, {"real": model}, [{"operations": case.operations}])
    settings = replace(made.workspace, verify=case.verify)
    upgraded = upgrade(settings, made.entry("real"))
    after = shutil.copytree(model, root / "after")
    downgrade(made.workspace, made.entry("real"), "base")
    return Migrated(case, Stop(before), Stop(after), model, upgraded)


def document(directory: Path, name: str) -> dict[str, Any]:
    """Return a JSON file."""
    found: dict[str, Any] = json.loads((directory / name).read_text("utf-8"))
    return found


def test_downgrade_restores_every_byte(migrated: Migrated) -> None:
    assert contents(migrated.restored) == contents(migrated.before.directory)
    assert contents(migrated.after.directory) != contents(migrated.before.directory)


def test_every_text_is_tokenized_as_before(migrated: Migrated) -> None:
    before, after = migrated.before.library, migrated.after.library
    for text in ALL_TEXTS:
        assert cut(after, text) == cut(before, text)
        assert after.encode(text).ids == before.encode(text).ids


def test_every_text_is_tokenized_as_before_by_transformers(migrated: Migrated) -> None:
    before, after = migrated.before.auto, migrated.after.auto
    assert type(after) is type(before)
    for text in ALL_TEXTS:
        assert auto_cut(after, text) == auto_cut(before, text)
        assert after(text)["input_ids"] == before(text)["input_ids"]


def test_new_tokens_are_one_id_each(migrated: Migrated) -> None:
    tokenizer, auto = migrated.after.library, migrated.after.auto
    for token, number in migrated.case.given.items():
        assert tokenizer.token_to_id(token) == number
        assert cut(tokenizer, token) == [number]
        assert auto.convert_tokens_to_ids(token) == number
        assert auto_cut(auto, token) == [number]
        inside = auto_cut(auto, f"one {token} two")
        assert inside.count(number) == 1
        assert token not in auto.decode(inside, skip_special_tokens=True)


def test_every_old_token_keeps_its_id(migrated: Migrated) -> None:
    new = migrated.case.given
    assert migrated.after.library.get_vocab() == {**migrated.before.library.get_vocab(), **new}
    assert migrated.after.auto.get_vocab() == {**migrated.before.auto.get_vocab(), **new}


def test_rows_grow_only_when_none_is_spare(migrated: Migrated) -> None:
    old, new = migrated.case.rows
    before, after = migrated.before.tensors, migrated.after.tensors
    assert migrated.upgraded.plan.snapshot.tensors
    wide = {tensor.name: tensor.axis for tensor in migrated.upgraded.plan.snapshot.tensors}
    fresh = set(migrated.case.given.values())
    kept = torch.tensor([row for row in range(old) if row not in fresh])
    for name, tensor in before.items():
        if name not in wide:
            assert torch.equal(after[name], tensor), name
            continue
        assert tensor.shape[wide[name]] == old
        assert after[name].shape[wide[name]] == new
        assert torch.equal(after[name].index_select(wide[name], kept), tensor.index_select(wide[name], kept)), name
    assert document(migrated.after.directory, "config.json")["vocab_size"] == new


def test_new_rows_are_the_mean_of_the_tokens(migrated: Migrated) -> None:
    count = len(migrated.before.library.get_vocab())
    before, after = migrated.before.tensors, migrated.after.tensors
    for tensor in migrated.upgraded.plan.snapshot.tensors:
        assert tensor.axis == 0
        mean = before[tensor.name][:count].double().mean(0)
        for number in migrated.case.given.values():
            made = after[tensor.name][number]
            assert torch.allclose(made.double(), mean, rtol=2**-7 if made.dtype == torch.bfloat16 else 1e-3, atol=1e-7)


def test_padding_is_the_same_everywhere(migrated: Migrated) -> None:
    number = migrated.before.library.token_to_id(migrated.case.pad)
    asked = migrated.case.operations[-1]["set_padding"]
    assert document(migrated.after.directory, "config.json")["pad_token_id"] == number
    if (migrated.after.directory / "generation_config.json").exists():
        assert document(migrated.after.directory, "generation_config.json")["pad_token_id"] == number
    auto = migrated.after.auto
    assert (auto.pad_token, auto.pad_token_id) == (migrated.case.pad, number)
    section = Tokenizer.from_file(str(migrated.after.directory / "tokenizer.json")).padding
    assert section is not None
    assert (section["pad_token"], section["pad_id"]) == (migrated.case.pad, number)
    if "pad_to_multiple_of" in asked:
        assert section["pad_to_multiple_of"] == asked["pad_to_multiple_of"]
    if "side" in asked:
        assert (auto.padding_side, section["direction"]) == (asked["side"], asked["side"])
    batch = auto(["a", "a longer text of some more words"], padding=True)["input_ids"]
    assert len(batch[0]) == len(batch[1])
    assert number in batch[0]


def test_a_chat_is_made_of_the_new_tokens(migrated: Migrated) -> None:
    asked = migrated.case.operations[0].get("add_role_tokens")
    if asked is None or asked.get("template") == "keep":
        return  # It does not chat.
    turns = asked.get("roles") or {"user": "<|im_start|>", "assistant": "<|im_start|>"}
    messages = [{"role": role, "content": "Hello there"} for role in turns]
    auto = migrated.after.auto
    ids = auto.apply_chat_template(messages, tokenize=True, return_dict=False)
    end = auto.convert_tokens_to_ids(asked.get("end", "<|im_end|>"))
    starts = [auto.convert_tokens_to_ids(token) for token in turns.values()]
    marks = {*starts, end}
    assert [number for number in ids if number in marks] == [mark for start in starts for mark in (start, end)]
    assert set(migrated.case.given.values()) <= marks
    assert auto.eos_token_id == end
    assert document(migrated.after.directory, "config.json")["eos_token_id"] == end


def test_added_tokens_decoder_is_in_step(migrated: Migrated) -> None:
    path = migrated.after.directory / "tokenizer_config.json"
    settings = json.loads(path.read_text("utf-8"))
    added = {entry["content"]: entry for entry in document(migrated.after.directory, "tokenizer.json")["added_tokens"]}
    held = {entry["content"]: (int(key), entry) for key, entry in settings.get("added_tokens_decoder", {}).items()}
    before = migrated.before.directory / "tokenizer_config.json"
    had = before.exists() and "added_tokens_decoder" in json.loads(before.read_text("utf-8"))
    assert bool(held) == had
    for token, number in migrated.case.given.items():
        assert added[token]["id"] == number
        if had:
            where, entry = held[token]
            assert where == number
            assert {"id": number, **entry} == added[token]


def test_transformers_loads_it_and_runs_over_a_new_token(migrated: Migrated) -> None:
    case = migrated.case
    (before, named_before), (after, named_after) = (loaded(case, stop) for stop in (migrated.before, migrated.after))
    assert named_after == named_before
    old = torch.tensor([[5, 6, 8, 9, 7]])
    was, now = outputs(before, old), outputs(after, old)
    columns = [column for column in range(was.shape[-1]) if column not in case.given.values()]
    # A matrix with more columns may be multiplied in another order.
    assert torch.allclose(now[..., columns], was[..., columns], rtol=1e-4, atol=1e-5)
    new = outputs(after, torch.tensor([[5, 6, *case.given.values(), 7]]))
    assert torch.isfinite(new).all()
    assert not torch.equal(new, now)
    assert new.shape[-1] == (16 if case.auto == "AutoModel" else case.rows[1])


def loaded(case: Case, stop: Stop) -> tuple[transformers.PreTrainedModel, dict[str, list[str]]]:
    """Load a model as users do, with the names that did not fit."""
    loader = getattr(transformers, case.auto)
    model, told = loader.from_pretrained(stop.directory, output_loading_info=True, local_files_only=True)
    assert not told["mismatched_keys"]
    return model.eval(), {key: sorted(told[key]) for key in ("missing_keys", "unexpected_keys")}


def outputs(model: transformers.PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Run a model and return its logits, or its last states where it has no head."""
    more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        output = model(input_ids=ids, **more)
    found: torch.Tensor = output.logits if "logits" in output else output.last_hidden_state
    return found


# The published ids


PUBLISHED = [case for case in CASES if case.published and GOLDEN.is_dir()]


@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: case.tokenizer)
def test_published_ids_are_those_of_the_tokenizers(case: Case) -> None:
    """The other tests compare with the tokenizer before; this one says that it was right to begin with."""
    tokenizer = library(real(case.tokenizer))
    checked = 0
    for text, wanted in expected_cuts(case):
        assert cut(tokenizer, text) == wanted
        checked += 1
    assert checked >= 30


def expected_cuts(case: Case) -> Iterator[tuple[str, Ids]]:
    """Yield each published text with the ids that this tokenizer must give it."""
    assert case.published is not None
    added = [entry["content"] for entry in document(real(case.tokenizer), "tokenizer.json")["added_tokens"]]
    vocabulary = document(real("gpt2"), "vocab.json") if case.tokenizer == "gpt2-roberta" else {}
    pieces = {number: piece for piece, number in vocabulary.items()}
    own = document(real(case.tokenizer), "vocab.json") if vocabulary else {}
    for text, ids in zip(texts(case.published), published_ids(case.published), strict=False):
        if case.tokenizer == "phi-2" and any(token in text for token in added):
            continue  # GPT-2 has no tokens for runs of spaces.
        # RoBERTa tokenizes as GPT-2 does and numbers the tokens in its own way.
        yield text, [own[pieces[number]] for number in ids] if vocabulary else ids


def test_published_ids_hold_after_the_migration(migrated: Migrated) -> None:
    case = migrated.case
    if case not in PUBLISHED:
        return  # Its ids are compared with those before.
    tokenizer, auto = migrated.after.library, migrated.after.auto
    for text, wanted in expected_cuts(case):
        assert cut(tokenizer, text) == wanted
        assert auto_cut(auto, text) == wanted


# How rows are initialised

Rows = npt.NDArray[np.float64]
COUNT = 50295
"""The tokens of phi-2."""


def test_every_strategy_gives_the_rows_that_its_formula_says(tmp_path: Path) -> None:
    case = replace(CASES[1], model=lambda: phi().float())
    model = make_model(tmp_path / "model", case)
    names = {"input": "model.embed_tokens.weight", "output": "lm_head.weight", "bias": "lm_head.bias"}
    before = as_float64(model, names)
    tokenizer = library(model)
    own_row = torch.linspace(-1, 1, 16)
    pieces = cut(tokenizer, "hyperparameterisation")
    phrase = cut(tokenizer, "a call of a tool")
    assert len(pieces) > 2
    the, of = tokenizer.token_to_id("Ġthe"), tokenizer.token_to_id("Ġof")
    inits: dict[str, dict[str, Any]] = {
        "<mean>": {"strategy": "mean"},
        "<zeros>": {"strategy": "zeros"},
        "<copy>": {"strategy": "copy", "token": "Ġthe"},
        "<average>": {"strategy": "average", "tokens": {"Ġthe": 3, "Ġof": 1}},
        "<alike>": {"strategy": "average", "tokens": ["Ġthe", "Ġof"]},
        "hyperparameterisation": {"strategy": "subtokens"},
        "<tool>": {"strategy": "description", "text": "a call of a tool"},
        "<file>": {"strategy": "file", "path": "rows.safetensors"},
        "<apart>": {"input": {"strategy": "copy", "token": "Ġof"}, "output": {"strategy": "mean", "norm": "match"}},
        "<matched>": {"strategy": "copy", "token": "Ġthe", "norm": "match"},
    }
    tokens = [{"content": token, "init": init} for token, init in inits.items()]
    later = [
        {"content": "hyperparameterisations", "init": {"strategy": "subtokens", "output": "first_piece"}},
        {"content": "<second mean>", "init": {"strategy": "mean"}},
        {"content": "<copied file>", "init": {"strategy": "copy", "token": "<file>"}},
    ]
    made = workspace(
        tmp_path, {"real": model}, [{"operations": [{"add_tokens": {"tokens": each}}]} for each in (tokens, later)]
    )
    save_file({"<file>": own_row}, tmp_path / "migrations" / "rows.safetensors")
    upgrade(made.workspace, made.entry("real"))

    after = as_float64(model, names)
    ids = library(model).get_vocab()
    mean = {side: rows[:COUNT].mean(axis=0) for side, rows in before.items()}
    median = {side: float(np.median(np.linalg.norm(before[side][:COUNT], axis=1))) for side in ("input", "output")}

    def matched(side: str, row: Rows) -> Rows:
        scaled: Rows = row if side == "bias" else row * (median[side] / np.linalg.norm(row))
        return scaled

    # The pieces of the later word were one token and a rest by then; the row of that token was read as made.
    assert cut(tokenizer, "s")
    word = [ids["hyperparameterisation"], *cut(tokenizer, "s")]
    for side, rows in before.items():
        second = after[side][word]
        order = [1.0, 0.5] if side != "input" else [0.5, 1.0]
        wanted: dict[str, Rows] = {
            "<mean>": mean[side],
            "<zeros>": np.zeros_like(mean[side]),
            "<copy>": rows[the],
            "<average>": 0.75 * rows[the] + 0.25 * rows[of],
            "<alike>": (rows[the] + rows[of]) / 2,
            "hyperparameterisation": rows[pieces].mean(axis=0),
            "<tool>": rows[phrase].mean(axis=0),
            "<file>": mean[side] if side == "bias" else own_row.double().numpy(),
            "<apart>": rows[of] if side == "input" else matched(side, mean[side]),
            "<matched>": matched(side, rows[the]),
            "hyperparameterisations": np.average(second, axis=0, weights=order),
            "<second mean>": mean[side],
            "<copied file>": after[side][ids["<file>"]],
        }
        for token, row in wanted.items():
            np.testing.assert_allclose(after[side][ids[token]], row, rtol=1e-6, atol=1e-8, err_msg=f"{token} {side}")
        assert np.array_equal(after[side][ids["<copy>"]], rows[the])

    (event,) = (each for each in made.events() if each.token == "<file>")
    stated = {"strategy": "file", "path": "rows.safetensors", "tensor": "<file>"}
    assert event.init == {"input": stated, "output": stated}


def as_float64(directory: Path, names: Mapping[str, str]) -> dict[str, Rows]:
    """Return the tensors wanted, as numpy reads them."""
    held = tensors_of(directory)
    return {side: held[name].double().numpy() for side, name in names.items()}


def test_random_strategies_have_the_distribution_that_they_promise(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.tokenizer == "gpt2-chatml")
    model = make_model(tmp_path / "model", replace(case, model=lambda: chatml(tied=False)))
    names = {"input": "model.embed_tokens.weight", "output": "lm_head.weight"}
    before = as_float64(model, names)
    count, rows_before = 150, 6400
    kinds: dict[str, dict[str, Any]] = {
        "wide": {"strategy": "mean_cov", "scale": 1.0},
        "narrow": {"strategy": "mean_cov"},
        "normal": {"strategy": "normal", "mean": 2.0, "std": 0.5},
    }
    tokens = [
        {"content": f"<{kind} {number}>", "init": init} for kind, init in kinds.items() for number in range(count)
    ]
    made = workspace(tmp_path, {"real": model}, [{"operations": [{"add_tokens": {"tokens": tokens}}]}])
    upgrade(made.workspace, made.entry("real"))
    after = as_float64(model, names)
    for side, rows in before.items():
        mean, covariance = rows[:rows_before].mean(axis=0), np.cov(rows[:rows_before].T)
        whiten = np.linalg.inv(np.linalg.cholesky(covariance))
        wide, narrow, normal = (
            after[side][rows_before + start : rows_before + start + count] for start in (0, count, 2 * count)
        )
        for drawn, scale in ((wide, 1.0), (narrow, 1e-9)):
            white = (drawn - mean) @ whiten.T / np.sqrt(scale)
            # Five deviations of the estimates; float32 adds little to the narrow draws.
            np.testing.assert_allclose(white.mean(axis=0), 0.0, atol=5 / np.sqrt(count))
            np.testing.assert_allclose(np.cov(white.T), np.eye(16), atol=5 * np.sqrt(2 / count))
            assert len({row.tobytes() for row in drawn}) == count
        assert abs(normal.mean() - 2.0) < 5 * 0.5 / np.sqrt(normal.size)
        assert abs(normal.std() - 0.5) < 5 * 0.5 / np.sqrt(2 * normal.size)
    assert not np.array_equal(after["input"][rows_before:], after["output"][rows_before:])


# Flags of added tokens


def peer_cases() -> list[dict[str, Any]]:
    """Return the cases of the tokenizers library's own tests."""
    path = DATA / "peer_cases" / "added_tokens.json"
    return [case for case in json.loads(path.read_text("utf-8")) if "add" in case] if path.exists() else []


def gpt2(directory: Path, *, add_prefix_space: bool) -> Path:
    """Make a GPT-2 of two columns from its published vocabulary and merges."""
    directory.mkdir()
    vocabulary = document(real("gpt2"), "vocab.json")
    lines = (real("gpt2") / "merges.txt").read_text("utf-8").splitlines()
    pairs = [(first, second) for first, second in (line.split(" ") for line in lines if not line.startswith("#v"))]
    tokenizer = Tokenizer(BPE(vocabulary, pairs))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.save(str(directory / "tokenizer.json"))
    write_json(directory / "config.json", {"model_type": "gpt2", "vocab_size": len(vocabulary), "n_embd": 2})
    save_file({"wte.weight": torch.ones(len(vocabulary), 2)}, directory / "model.safetensors", {"format": "pt"})
    return directory


@pytest.mark.parametrize("case", peer_cases(), ids=lambda case: case["case"])
def test_flags_of_added_tokens_do_what_they_do_elsewhere(case: Mapping[str, Any], tmp_path: Path) -> None:
    model = gpt2(tmp_path / "model", add_prefix_space="add_prefix_space=True" in case["base"])
    before = contents(model)
    known = [token["content"] for token in case["add"] if token["content"] in library(model).get_vocab()]
    made = workspace(tmp_path, {"gpt2": model}, [{"operations": [{"add_tokens": {"tokens": case["add"]}}]}])
    if known:
        # The peer turns a piece of its vocabulary into an added token; here nothing that exists is added.
        with pytest.raises(OperationError, match=f"'{known[0]}' exists already"):
            upgrade(made.workspace, made.entry("gpt2"))
        assert contents(model) == before
        return
    upgrade(made.workspace, made.entry("gpt2"))
    assert library(model).encode(case["text"], add_special_tokens=False).tokens == case["peer_expect"]
    downgrade(made.workspace, made.entry("gpt2"), "base")
    assert contents(model) == before


FLAGGED: tuple[dict[str, Any], ...] = (
    {"content": "<l>", "lstrip": True},
    {"content": "<r>", "rstrip": True},
    {"content": "<s>", "special": True, "lstrip": True, "rstrip": True},
    {"content": "<plain>"},
    {"content": "zqw", "single_word": True},
    {"content": "vkx", "single_word": False},
    {"content": "<Raw>", "normalized": False},
    {"content": "<Folded>", "special": True, "normalized": True},
)
TEXTS_WITH_FLAGGED = (
    "I saw a <l> and a <r> cat",
    "  <s>  <plain>  <l>  <r>  ",
    "zqw zqwing bezqw zqw, zqw.",
    "vkx vkxing bevkx vkx",
    "<Raw> <raw> <RAW> <Folded> <folded> <FOLDED>",
)


@pytest.mark.parametrize("name", ["gpt2-chatml", "bert-base-uncased", "oromo-t5"])
def test_flags_are_those_that_the_library_gives(name: str, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.tokenizer == name)
    model = make_model(tmp_path / "model", case)
    peer = library(model)
    peer.add_tokens(
        [AddedToken(**{**token, "normalized": token.get("normalized", not token.get("special"))}) for token in FLAGGED]
    )
    made = workspace(tmp_path, {"real": model}, [{"operations": [{"add_tokens": {"tokens": list(FLAGGED)}}]}])
    upgrade(made.workspace, made.entry("real"))
    tokenizer = library(model)
    assert tokenizer.get_vocab() == peer.get_vocab()
    for text in TEXTS_WITH_FLAGGED:
        assert tokenizer.encode(text).tokens == peer.encode(text).tokens
    held = document(model, "tokenizer.json")["added_tokens"]
    assert held == json.loads(peer.to_str())["added_tokens"]


# Tokenizers as their packages ship them, and those that are made of them


@pytest.mark.parametrize("name", ["deepseek", "oromo-unigram"])
def test_a_shipped_tokenizer_takes_a_token_and_loses_one(name: str, tmp_path: Path) -> None:
    model = shared_model(tmp_path, name)
    before, old = model.bytes(), model.library().get_vocab(with_added_tokens=True)
    gone = max(model.json("tokenizer.json")["added_tokens"], key=lambda token: int(token["id"]))["content"]
    removal = {"tokens": [gone], "ids": "compact", "acknowledge": "breaking"}
    model.migrate(
        '- add_tokens: {tokens: [{content: "<|tool|>", special: true}]}\n'
        f"- remove_tokens: {json.dumps(removal, ensure_ascii=False)}"
    )
    new = model.library().get_vocab(with_added_tokens=True)
    kept = sorted(old.keys() - {gone}, key=old.__getitem__)
    assert sorted(new, key=new.__getitem__) == [*kept, "<|tool|>"]
    assert sorted(new.values()) == list(range(len(old)))
    model.down()
    assert model.bytes() == before


@pytest.mark.parametrize("name", ["phi-2", "bert-base-uncased", "all-minilm-l6-v2", "gpt2", "mistral-spm"])
def test_what_is_made_of_a_package_is_what_was_published(name: str) -> None:
    made = real(name)
    digests = {
        "phi-2": {"tokenizer.json": "d8938558869162fb"},
        "bert-base-uncased": {"tokenizer.json": "74f09e1180051141"},
        "all-minilm-l6-v2": {"tokenizer.json": "f1b200424bcb2f76"},
        "gpt2": {"merges.txt": "1ce1664773c50f3e", "vocab.json": "196139668be63f3b"},
        "mistral-spm": {"tokenizer.model": "dadfd56d766715c6"},
    }[name]
    for file, digest in digests.items():
        content = (made / file).read_bytes()
        value = content if not file.startswith("tokenizer.json") else canonical(content)
        assert hashlib.sha256(value).hexdigest()[:16] == digest


def canonical(content: bytes) -> bytes:
    """Return JSON with its keys in order."""
    return json.dumps(json.loads(content), sort_keys=True).encode()


# Models of embeddings alone, and those that cannot be helped

NEW: Operations = [{"add_tokens": {"tokens": ["<ent>"]}}]


@pytest.mark.parametrize("name", available("model2vec-float16", "model2vec-float32"))
def test_static_embeddings_are_known_by_their_config(name: str, tmp_path: Path) -> None:
    model = copied(real(name), tmp_path / "model")
    before = contents(model)
    made = workspace(tmp_path, {"static": model}, [{"operations": NEW}])
    upgrade(made.workspace, made.entry("static"))
    old, new = load_file(real(name) / "model.safetensors"), tensors_of(model)
    assert new["embeddings"].dtype == old["embeddings"].dtype
    assert torch.equal(new["embeddings"][:29528], old["embeddings"])
    mean = old["embeddings"].double().mean(0)
    assert torch.allclose(new["embeddings"][29528].double(), mean, rtol=1e-3, atol=1e-4)
    assert new["embeddings"].shape == (29529, 2)
    assert cut(library(model), "an <ent>")[-1] == 29528
    assert verify(made.workspace, made.entry("static")).changed == ()
    downgrade(made.workspace, made.entry("static"), "base")
    assert contents(model) == before


def copied(source: Path, target: Path) -> Path:
    """Copy a directory's files, which may be read-only where they come from."""
    target.mkdir()
    for file in source.iterdir():
        shutil.copyfile(file, target / file.name)
    return target


def test_roberta_keeps_the_pad_token_that_positions_are_counted_from(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.tokenizer == "gpt2-roberta")
    model = make_model(tmp_path / "model", case)
    before = contents(model)
    operations: Operations = [{"add_tokens": {"tokens": ["<fill>"]}}, {"set_padding": {"token": "<fill>"}}]
    made = workspace(tmp_path, {"real": model}, [{"operations": operations}])
    with pytest.raises(OperationError, match="positions") as told:
        upgrade(made.workspace, made.entry("real"))
    assert "<pad>" in str(told.value.hint)
    assert contents(model) == before


def test_special_tokens_map_follows(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.tokenizer == "gpt2-chatml")
    model = make_model(tmp_path / "model", case)
    write_json(model / "special_tokens_map.json", {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"})
    before = contents(model)
    operations: Operations = [
        {"add_tokens": {"tokens": [{"content": "<fill>", "special": True}]}},
        {"set_padding": {"token": "<fill>"}},
    ]
    made = workspace(tmp_path, {"real": model}, [{"operations": operations}])
    upgrade(made.workspace, made.entry("real"))
    assert document(model, "special_tokens_map.json") == {"eos_token": "<|im_end|>", "pad_token": "<fill>"}
    auto = auto_tokenizer(model)
    assert (auto.pad_token, auto.pad_token_id, auto.eos_token) == ("<fill>", 6400, "<|im_end|>")
    downgrade(made.workspace, made.entry("real"), "base")
    assert contents(model) == before
