"""Every place in which a model keeps ids, texts and sizes of tokens: each file is compared as a whole.

The files are written from templates: `{"id": token}` stands for the token's id, `«token»` in a text or a name for
its text, and `§token§` for its id there. What a migration has to leave is what the templates say with the new ids
and texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from making import HIDDEN, Made, random_rows, say_of, tokenizer_json, workspace, write_json, write_weights
from test_real_tokenizers import library
from workspaces import contents

from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.plan import plan
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import OperationError, OutOfStepError, UnknownNameError
from tokmigrate.operations.operation import RiskLevel

SPECIALS = ("<s>", "</s>", "<pad>", "<unk>", "<image>", "<|en|>", "<|fr|>", "<|im_end|>", "<mask>", "<yes>", "<|old|>")
DOCUMENT = tokenizer_json(SPECIALS)
WORDS = list(DOCUMENT["model"]["vocab"])
ROWS = len(WORDS) + len(SPECIALS) + 2
LISTED = "Ġand"
"""A word that stands in lists only."""


def ids(*tokens: str) -> Any:
    found = [{"id": token} for token in tokens]
    return found[0] if len(found) == 1 else found


ROLES = {
    **{f"{role}_token_id": ids(f"<{role}>") for role in ("pad", "unk", "mask")},
    "bos_token_id": ids("<s>"),
    "eos_token_id": ids("</s>", "<|im_end|>"),
    **{f"{role}_token_id": ids("</s>") for role in ("sep", "eod", "forced_eos", "blank")},
    **{f"{role}_token_id": ids("<s>") for role in ("cls", "decoder_start", "forced_bos")},
}
MEDIA = {
    **{f"{kind}_token_{what}": ids("<image>") for kind in ("image", "video", "audio") for what in ("id", "index")},
    **{f"{kind}_token_id": ids("<|im_end|>") for kind in ("user", "system", "assistant", "im_start", "im_end")},
    **{f"vision_{end}_token_id": ids("<mask>") for end in ("start", "end", "bos", "eos")},
    **{f"audio_{end}_token_id": ids("<mask>") for end in ("start", "end", "bos", "eos")},
    **{f"{kind}_token_index": ids("<image>") for kind in ("boi", "eoi", "boa", "eoa")},
    "tts_bos_token_id": ids("<s>"),
    "yes_token_index": ids("<yes>"),
    "vocabulary_map": {"«<image>»": ids("<image>"), "«<|en|>»": ids("<|en|>")},
    "vocab_list": [ids("ing"), ids(LISTED)],
    "image_token_ids": [ids("<image>")],
}
OTHER_SPACES = {
    "type_vocab_size": 2,
    "codebook_pad_token_id": 7,
    "t2u_eos_token_id": 8,
    "entity_pad_id": 9,
    "num_image_tokens": 12,
    "talker_config": {"vocab_size": 30, "bos_token_id": 11},
}
SUPPRESSED = {
    "suppress_tokens": [ids("ing"), ids(LISTED), ids("the")],
    "begin_suppress_tokens": [ids(LISTED)],
    "bad_words_ids": [[ids("ing")], [ids(LISTED), ids("the")]],
}
WHISPER = {
    "lang_to_id": {"«<|en|>»": ids("<|en|>"), "«<|fr|>»": ids("<|fr|>")},
    "task_to_id": {"transcribe": ids("<yes>")},
    "no_timestamps_token_id": ids("<mask>"),
    "prev_sot_token_id": ids("<s>"),
    "forced_decoder_ids": [[1, ids("<|en|>")], [2, None]],
    "max_initial_timestamp_index": 50,
    "prompt_lookup_num_tokens": 10,
}
TEMPLATE = "{% for m in messages %}«<|im_end|>»{{ m }} «<image>»{% endfor %}"
RESPONSE = {
    "start_anchor": "«<|im_end|>»assistant",
    "fields": {"content": {"close": ["«</s>»", "«<|im_end|>»"], "open_pattern": r"\s*(?:«\<|im_end|>»|x)"}},
}
JSON: dict[str, dict[str, Any]] = {
    "config.json": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "tie_word_embeddings": False,
        "hidden_size": HIDDEN,
        "vocab_size": ROWS,
        **ROLES,
        **MEDIA,
        **SUPPRESSED,
        **OTHER_SPACES,
        "text_config": {"vocab_size": ROWS, **ROLES},
        "thinker_config": {"text_config": {**ROLES}},
        "task_specific_params": {"summary": {**ROLES, **SUPPRESSED}},
    },
    "generation_config.json": {
        **ROLES,
        **SUPPRESSED,
        **WHISPER,
        "force_words_ids": [[[ids("ing")], [ids("the")]]],
        "sequence_bias": {"(§the§, §ing§)": 2.5},
        "stop_strings": ["«<|im_end|>»", "never"],
    },
    "processor_config.json": {
        "image_token": "«<image>»",
        "image_token_id": ids("<image>"),
        "image_processor": {"fill_token": "«<mask>»", "image_token_ids": [ids("<image>")], "size": {"height": 14}},
        "audio_ms_per_token": 40,
    },
    "preprocessor_config.json": {
        "image_token": "«<image>»",
        "image_token_index": ids("<image>"),
        "image_seq_length": 3,
    },
    "tokenizer_config.json": {
        "added_tokens_decoder": {f"§{token}§": {"content": f"«{token}»", "special": True} for token in SPECIALS},
        "bos_token": "«<s>»",
        "eos_token": {"content": "«</s>»", "lstrip": False},
        "pad_token": "«<pad>»",
        "image_token": "«<image>»",
        "extra_ids": 100,
        "model_max_length": 64,
        "additional_special_tokens": ["«<|en|>»", {"content": "«<mask>»"}, "«<|old|>»"],
        "extra_special_tokens": {"yes": "«<yes>»"},
        "model_specific_special_tokens": {"boi_token": "«<image>»"},
        "chat_template": [{"name": "default", "template": TEMPLATE}, {"name": "tools", "template": "«<|im_end|>»"}],
        "response_template": RESPONSE,
    },
    "special_tokens_map.json": {
        "bos_token": "«<s>»",
        "mask_token": {"content": "«<mask>»"},
        "additional_special_tokens": ["«<|fr|>»", "«<|old|>»"],
    },
    "added_tokens.json": {f"«{token}»": ids(token) for token in SPECIALS},
    "chat_template.json": {"chat_template": TEMPLATE},
    "config_sentence_transformers.json": {"skiplist_words": ["«<|en|>»", "«<|old|>»", "!"], "prompts": {"q": "q: "}},
    "1_LogitScore/config.json": {"true_token_id": ids("<yes>"), "false_token_id": ids("the")},
    "2_MultiVectorMask/config.json": {
        "keep_only_token_ids": [ids("<image>"), ids(LISTED)],
        "skiplist_words": ["«<|fr|>»", "«<|old|>»"],
    },
    "3_Pooling/config.json": {"pooling_mode_cls_token": True, "word_embedding_dimension": 8},
}
TEXTS = {"chat_template.jinja": TEMPLATE, "additional_chat_templates/tools.jinja": "tools: «<|im_end|>»"}
MODULES = [{"idx": place, "path": path, "type": path} for place, path in enumerate(("", "1_LogitScore"))]
MODULES += [{"idx": 2, "path": "2_MultiVectorMask"}, {"idx": 3, "path": "3_Pooling"}]


@dataclass(frozen=True)
class Tokens:
    """The ids and texts that the files have to give.

    Args:
        number: The id of each token, by the name that it has at first.
        text: Its text.
    """

    number: Mapping[str, int]
    text: Mapping[str, str]

    def said(self, value: Any) -> Any:
        """Return what a template says; what names a token that is gone is left out of lists and objects."""
        if isinstance(value, str):
            value = re.sub(r"«(\\?)(.*?)»", lambda found: self._text(*found.groups()), value)
            return re.sub(r"§(.*?)§", lambda found: str(self.number[found[1]]), value)
        if isinstance(value, list):
            return [self.said(item) for item in value if not self._is_gone(item)]
        if isinstance(value, dict) and set(value) == {"id"}:
            return self.number[value["id"]]
        if isinstance(value, dict):
            left = {key: held for key, held in value.items() if isinstance(held, list) or not self._is_gone(held)}
            return {self.said(key): self.said(held) for key, held in left.items() if not self._is_gone(key)}
        return value

    def _text(self, escaped: str, token: str) -> str:
        return re.escape(self.text[token]) if escaped else self.text[token]

    def _is_gone(self, value: Any) -> bool:
        if isinstance(value, str):
            return any(token not in self.number for token in re.findall(r"[«§]\\?(.*?)[»§]", value))
        if isinstance(value, dict):
            return value.get("id", "the") not in self.number or self._is_gone(value.get("content", ""))
        return isinstance(value, list) and any(map(self._is_gone, value))


def tokens_of(model: Path) -> Tokens:
    held = library(model).get_vocab(with_added_tokens=True)
    return Tokens(held, {token: token for token in held})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A Llama with every file that may name tokens."""
    directory = tmp_path / "model"
    for folder in ("additional_chat_templates", "1_LogitScore", "2_MultiVectorMask", "3_Pooling"):
        (directory / folder).mkdir(parents=True)
    numbers = {token: place for place, token in enumerate((*WORDS, *SPECIALS))}
    special = {"<s>": {"id": "<s>", "ids": [numbers["<s>"]], "tokens": ["<s>"]}}
    first, second = ({"Sequence": {"id": name, "type_id": place}} for place, name in enumerate("AB"))
    single = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, first]
    around = {"type": "TemplateProcessing", "single": single, "pair": [first, second], "special_tokens": special}
    document = {**DOCUMENT, "post_processor": around}
    document["padding"] = {
        "strategy": "BatchLongest",
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": numbers["<pad>"],
        "pad_type_id": 0,
        "pad_token": "<pad>",
    }
    document["model"] = {**document["model"], "unk_token": "<unk>"}
    write_json(directory / "tokenizer.json", document)
    before = Tokens(numbers, {token: token for token in numbers})
    for name, template in JSON.items():
        write_json(directory / name, before.said(template))
    for name, template in TEXTS.items():
        (directory / name).write_text(before.said(template), "utf-8")
    write_json(directory / "modules.json", MODULES)
    write_json(directory / "vocab.json", {word: numbers[word] for word in WORDS})
    (directory / "vocab.txt").write_text("\n".join([*WORDS, *SPECIALS]) + "\n", "utf-8")
    merges = [" ".join(pair) for pair in document["model"]["merges"]]
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")
    names = ("model.embed_tokens.weight", "lm_head.weight")
    write_weights(directory, {name: random_rows(ROWS, HIDDEN, dtype="float32", seed=3) for name in names})
    return directory


def check_every_file(model: Path, now: Tokens, rows: int = ROWS) -> None:
    """Compare every file with what its template says of the new ids and texts."""
    for name, template in JSON.items():
        wanted = now.said(template)
        if name == "config.json":
            wanted["vocab_size"] = wanted["text_config"]["vocab_size"] = rows
        held = json.loads((model / name).read_text("utf-8"))
        for key in {*wanted, *held}:
            assert held.get(key) == wanted.get(key), (name, key)
    for name, template in TEXTS.items():
        assert (model / name).read_text("utf-8") == now.said(template), name
    tokenizer = json.loads((model / "tokenizer.json").read_text("utf-8"))
    around = tokenizer["post_processor"]["special_tokens"][now.text["<s>"]]
    assert (around["ids"], around["tokens"]) == ([now.number["<s>"]], [now.text["<s>"]])
    assert tokenizer["padding"]["pad_id"] == now.number["<pad>"]
    assert tokenizer["padding"]["pad_token"] == now.text["<pad>"]
    assert tokenizer["model"]["unk_token"] == now.text["<unk>"]
    loaded = library(model).get_vocab(with_added_tokens=True)
    assert loaded == {now.text[token]: number for token, number in now.number.items()}
    listed = json.loads((model / "vocab.json").read_text("utf-8"))
    assert listed == {now.text[word]: now.number[word] for word in WORDS if word in now.number}
    lines = (model / "vocab.txt").read_text("utf-8").splitlines()
    assert {line: place for place, line in enumerate(lines)} == loaded


def migrated(root: Path, model: Path, *operations: dict[str, Any]) -> Made:
    return workspace(root / "w", {"m": model}, [{"operations": list(operations)}])


def up(made: Made) -> None:
    upgrade(made.workspace, made.entry("m"))


def test_the_templates_say_what_is_there(model: Path) -> None:
    check_every_file(model, tokens_of(model))


def test_moved_tokens(model: Path, tmp_path: Path) -> None:
    before, old = contents(model), tokens_of(model)
    # Every token that a file names gets another id: those that stand side by side change places.
    named = sorted({*SPECIALS, "ing", LISTED, "the", "in"}, key=old.number.__getitem__)
    pairs = [*zip(named[::2], named[1::2], strict=False)]
    moves = {token: old.number[other] for a, b in pairs for token, other in ((a, b), (b, a))}
    assert len(named) - len(moves) == 1
    made = migrated(tmp_path, model, {"move_tokens": {"acknowledge": "breaking", "tokens": moves}})
    up(made)
    check_every_file(model, replace(old, number={**old.number, **moves}))
    downgrade(made.workspace, made.entry("m"), "base")
    assert contents(model) == before


@pytest.mark.parametrize("shrink", [False, True])
def test_ids_that_close_up(model: Path, tmp_path: Path, shrink: bool) -> None:
    before, old = contents(model), tokens_of(model)
    gone = {"re", LISTED, "<|old|>"}
    passed = sorted(old.number[token] for token in gone)
    number = {
        token: place - sum(at < place for at in passed) for token, place in old.number.items() if token not in gone
    }
    made = migrated(
        tmp_path,
        model,
        {"remove_tokens": {"tokens": sorted(gone), "ids": "compact", "acknowledge": "breaking", "shrink": shrink}},
    )
    up(made)
    check_every_file(model, Tokens(number, old.text), ROWS - 3 if shrink else ROWS)
    assert LISTED not in (model / "merges.txt").read_text("utf-8").replace(" ", "")
    downgrade(made.workspace, made.entry("m"), "base")
    assert contents(model) == before


def test_placeholders(model: Path, tmp_path: Path) -> None:
    before, old = contents(model), tokens_of(model)
    made = migrated(
        tmp_path, model, {"remove_tokens": {"tokens": ["<|old|>"], "ids": "tombstone", "acknowledge": "breaking"}}
    )
    up(made)
    number = old.number["<|old|>"]
    for name in sorted(before):
        text = (model / name).read_bytes()
        assert b"<|old|>" not in text, name
    assert library(model).id_to_token(number) == f"<|removed_{number}|>"
    downgrade(made.workspace, made.entry("m"), "base")
    assert contents(model) == before


def test_renamed_tokens(model: Path, tmp_path: Path) -> None:
    before, old = contents(model), tokens_of(model)
    names = {token: f"{token[:-1]}:new)" for token in SPECIALS}
    made = migrated(tmp_path, model, {"rename_tokens": {"tokens": names, "in_template": True}})
    (effect,) = plan(made.workspace, made.entry("m")).steps[0].effects
    assert effect.risk.level is RiskLevel.CAUTION
    up(made)
    check_every_file(model, replace(old, text={**old.text, **names}))
    downgrade(made.workspace, made.entry("m"), "base")
    assert contents(model) == before


def without(name: str, *keys: str) -> Callable[[Path], None]:
    """Return what takes fields, or without any a whole file, out of a model."""

    def take(model: Path) -> None:
        if not keys:
            (model / name).unlink()
            return
        held = json.loads((model / name).read_text("utf-8"))
        write_json(model / name, {key: value for key, value in held.items() if key not in keys})

    return take


CHAT = (
    without("tokenizer_config.json", "chat_template", "response_template"),
    without("chat_template.jinja"),
    without("chat_template.json"),
)


@pytest.mark.parametrize(
    ("left", "kind"),
    [
        ((CHAT[0], CHAT[1], without("additional_chat_templates/tools.jinja")), "the chat template"),
        (CHAT, "the chat template"),
        (
            (
                without("tokenizer_config.json", "chat_template"),
                *CHAT[1:],
                without("additional_chat_templates/tools.jinja"),
            ),
            "the response template",
        ),
    ],
    ids=["chat_template.json", "additional_chat_templates", "response_template"],
)
def test_a_template_that_is_left_is_reported(
    model: Path, tmp_path: Path, left: tuple[Callable[[Path], None], ...], kind: str
) -> None:
    for take in left:
        take(model)
    renaming = {"rename_tokens": {"tokens": {"<|im_end|>": "<|end|>"}, "acknowledge": "breaking"}}
    (effect,) = plan(*_of(migrated(tmp_path, model, renaming))).steps[0].effects
    assert effect.risk.level is RiskLevel.BREAKING
    assert effect.risk.reason.startswith(f"{kind} still names '<|im_end|>'")
    removing = {"remove_tokens": {"tokens": ["<|im_end|>"], "ids": "tombstone", "acknowledge": "breaking"}}
    with pytest.raises(OperationError, match=f"'<.im_end.>' is used by {kind}"):
        plan(*_of(migrated(tmp_path / "r", model, removing)))


def _of(made: Made) -> tuple[Any, Any]:
    return made.workspace, made.entry("m")


@pytest.mark.parametrize("name", ["processor_config.json", "preprocessor_config.json"])
def test_a_processor_keeps_its_token(model: Path, tmp_path: Path, name: str) -> None:
    others = {"processor_config.json", "preprocessor_config.json", "chat_template.jinja", "chat_template.json"} - {name}
    for other in others:
        (model / other).unlink()
    without("tokenizer_config.json", "chat_template", "image_token", "model_specific_special_tokens")(model)
    removing = {"remove_tokens": {"tokens": ["<image>"], "ids": "tombstone", "acknowledge": "breaking"}}
    with pytest.raises(OperationError, match=rf"{name}: '<image>' is used by 'image_token'"):
        plan(*_of(migrated(tmp_path, model, removing)))


def test_a_normalizer_that_names_a_token_is_reported(model: Path, tmp_path: Path) -> None:
    held = json.loads((model / "tokenizer.json").read_text("utf-8"))
    held["normalizer"] = {"type": "Replace", "pattern": {"String": "<mask>"}, "content": " "}
    write_json(model / "tokenizer.json", held)
    renaming = {"tokens": {"<mask>": "<hidden>"}, "in_template": True, "acknowledge": "breaking"}
    made = migrated(tmp_path, model, {"rename_tokens": renaming})
    (effect,) = plan(*_of(made)).steps[0].effects
    assert effect.risk.reason.startswith("the normalizer still names '<mask>'")


UNKNOWN = {"router_token_id": 5, "deep": [{"whistle_tokens": [[6], [7]]}], "token_to_id": {"a": 8}}


def declared(made: Made, fields: Mapping[str, str]) -> Made:
    """Say in tokmigrate.yaml what fields hold."""
    say_of(made.root, "m", id_fields=dict(fields))
    return made


@pytest.mark.parametrize("name", ["config.json", "1_LogitScore/config.json", "tokenizer_config.json"])
def test_a_field_that_is_not_known_is_declared(model: Path, tmp_path: Path, name: str) -> None:
    held = json.loads((model / name).read_text("utf-8"))
    write_json(model / name, held | UNKNOWN)
    before, old = contents(model), tokens_of(model)
    texts = {number: token for token, number in old.number.items()}
    adding = migrated(tmp_path / "add", model, {"add_tokens": {"tokens": ["<new>"]}})
    notes = [note for note in plan(*_of(adding)).notes if note.startswith(f"{name}: '")]
    assert [note.split("'")[1] for note in notes] == ["router_token_id", "deep.whistle_tokens", "token_to_id"]
    assert "holds 6, 7 and" in notes[1]
    moves = {texts[number]: 20 + number for number in (5, 6, 7, 8)} | {texts[20 + n]: n for n in (5, 6, 7, 8)}
    made = migrated(tmp_path, model, {"move_tokens": {"acknowledge": "breaking", "tokens": moves}})
    fields: dict[str, str] = {}
    for place, said in (("router_token_id", "ids"), ("deep.whistle_tokens", "list"), ("token_to_id", "ignore")):
        with pytest.raises(OutOfStepError, match=f"{name}: '{place}' holds") as told:
            up(made)
        assert f'id_fields:\n  "{place}": ids' in str(told.value.hint)
        fields[place] = said
        declared(made, fields)
        declared(adding, fields)
    assert not [note for note in plan(*_of(adding)).notes if note.startswith(f"{name}: '")]
    up(made)
    now = json.loads((model / name).read_text("utf-8"))
    assert {key: now[key] for key in UNKNOWN} == {
        "router_token_id": 25,
        "deep": [{"whistle_tokens": [[26], [27]]}],
        "token_to_id": {"a": 8},
    }
    downgrade(made.workspace, made.entry("m"), "base")
    assert contents(model) == before


def test_what_is_declared_must_be_true(model: Path, tmp_path: Path) -> None:
    made = migrated(tmp_path, model, {"add_tokens": {"tokens": ["<new>"]}})
    wrong = (
        ({"bos_token": "ids"}, "says 'ids' of 'bos_token', but it holds"),
        ({"sequence_bias": "map"}, "says 'map' of"),
        ({"suppress_tokens": "positions"}, "says 'positions'"),
        ({"router_id": "ids"}, "no configuration of the model has such a field"),
    )
    for fields, said in wrong:
        with pytest.raises((OutOfStepError, UnknownNameError), match=said) as told:
            plan(*_of(declared(made, fields)))
        assert told.value.hint
    known = {
        "vocab_list": "ids",
        "talker_config.bos_token_id": "ids",
        "lang_to_id": "map",
        "forced_decoder_ids": "positions",
        "sequence_bias": "bias",
    }
    plan(*_of(declared(made, known)))


def test_a_declared_path_goes_before_the_name(model: Path, tmp_path: Path) -> None:
    old = tokens_of(model)
    moves = {"<s>": old.number["</s>"], "</s>": old.number["<s>"]}
    made = migrated(tmp_path, model, {"move_tokens": {"acknowledge": "breaking", "tokens": moves}})
    up(declared(made, {"task_specific_params.summary.bos_token_id": "ignore"}))
    held = json.loads((model / "config.json").read_text("utf-8"))
    assert held["task_specific_params"]["summary"]["bos_token_id"] == old.number["<s>"]
    assert held["bos_token_id"] == held["text_config"]["bos_token_id"] == old.number["</s>"]
