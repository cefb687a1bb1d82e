"""What other programs would read of a model: each rule finds what it is for, and nothing in a model without it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest
import tokenizers
from making import BOS, EOS, TOKENS, llama, tokenizer_json, write_json
from real_tokenizers import real
from shared_models import shared_model
from test_adapters import KINDS, pair
from test_copies import write_onnx
from test_llama_cpp import make_model_with_pieces
from test_slow_tokenizer_files import SPARE
from workspaces import Workspace

from tokmigrate.model.adapter import take_adapter
from tokmigrate.model.snapshot import take_snapshot
from tokmigrate.servers import onnx, tgi, vllm
from tokmigrate.servers.finding import Loaded, Reading, Subject
from tokmigrate.servers.gguf import read as read_gguf
from tokmigrate.servers.pre_tokenizers import CHECK_TEXT, find_pre_tokenizer
from tokmigrate.servers.templates import find_unsupported, keeps_block_lines
from tokmigrate.settings import ModelEntry

TEMPLATE = "{% for m in messages %}{{ m['content'] ~ eos_token }}{% endfor %}"


def subject(model: Path, adapters: Iterable[Path] = (), specials: Iterable[str] = (BOS, EOS)) -> Subject:
    """Return what rules are about, with what transformers would say of the tokenizer."""
    snapshot = take_snapshot(ModelEntry("m", model))
    return Subject(
        snapshot, tuple(take_adapter(each, snapshot) for each in adapters), Loaded(specials=frozenset(specials))
    )


def errors(reading: Reading) -> list[str]:
    return [each.message for each in reading.findings if each.severity == "error"]


def warnings(reading: Reading) -> list[str]:
    return [each.message for each in reading.findings if each.severity == "warning"]


def change(model: Path, name: str, **values: Any) -> None:
    """Set keys of a JSON file, or remove those that are None."""
    held = json.loads((model / name).read_text("utf-8")) if (model / name).exists() else {}
    changed = {**held, **values}
    write_json(model / name, {key: value for key, value in changed.items() if value is not None})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return llama(tmp_path / "model", spare=3)


def test_what_is_said_of_a_model_and_its_exit_code(tmp_path: Path) -> None:
    made = shared_model(tmp_path, "phi-2")
    change(made.directory, "config.json", architectures=["PhiForCausalLM"], num_attention_heads=2)
    here = Workspace(tmp_path)
    tokens = made.library().get_vocab_size()
    (found,) = here.asked("check", "--target", "gguf")["models"]
    assert found["program"] == "llama.cpp"
    assert found["reads"].startswith(f"reads {tokens + 3:,} tokens from tokenizer.json")
    assert found["reads"].endswith("pre-tokenizer phi-2")
    assert (found["errors"], [each["severity"] for each in found["findings"]]) == (0, [])

    # The digest is one of ids.
    made.migrate('- move_tokens: {tokens: {"3": 20, "5": 18}, acknowledge: breaking}')
    done = here.run("check", "--target", "gguf")
    assert done.returncode == 1
    assert "error: tokenizer.json: the converter stops: it does not know this pre-tokenizer" in done.stdout
    assert "moved ids, new merges" in done.stdout
    refused = here.run("check", "--target", "gguf", "--copies")
    assert (refused.returncode, "--copies contradicts --target" in refused.stderr) == (2, True)


@pytest.mark.parametrize("target", ["vllm", "tgi", "onnx"])
def test_nothing_is_found_in_a_plain_model(tmp_path: Path, target: str) -> None:
    shared_model(tmp_path, "phi-2")
    done = Workspace(tmp_path).run("check", "--target", target)
    assert done.returncode == 0
    assert "tokens with AutoTokenizer from tokenizer.json" in done.stdout
    assert done.stdout.endswith("  nothing found\n")


def test_added_tokens_that_the_converter_does_not_find(tmp_path: Path, pieces: Path) -> None:
    model = make_model_with_pieces(tmp_path / "m", pieces)
    found = read_gguf(subject(model))
    assert "placeholders such as [PAD7] take the place of 3 tokens: '<|a|>', '<|b|>', 'word'" in errors(found)
    # Without tokenizer.model it reads others, and as many tokens as there are.
    (model / "tokenizer.model").unlink()
    found = read_gguf(subject(model, specials=["<s>", "</s>", "<unk>"]))
    rows = json.loads((model / "config.json").read_text("utf-8"))["vocab_size"]
    assert f"llama.cpp does not load the GGUF: it has {rows - SPARE:,} tokens, and {rows:,} rows" in errors(found)
    assert any(
        each.startswith("the flag is lost, and the text is printed, of 3 special tokens") for each in errors(found)
    )
    assert any("writes neither merges nor scores" in each for each in warnings(found))
    change(model, "config.json", architectures=["GemmaForCausalLM"])
    assert errors(read_gguf(subject(model))) == [
        "the converter reads tokenizer.model for GemmaForCausalLM, and stops without it"
    ]


def test_tokens_at_which_llama_cpp_stops_keep_their_flag(tmp_path: Path) -> None:
    made = shared_model(tmp_path, "mistral-chat-small")
    change(made.directory, "config.json", architectures=["MistralForCausalLM"])
    added = {each["content"] for each in made.json("tokenizer.json")["added_tokens"] if each["special"]}
    lost = added - {"<s>", "</s>", "<unk>", "<|end|>", "<|endoftext|>"}
    (message,) = [
        each for each in errors(read_gguf(subject(made.directory, specials=["<s>", "<unk>"]))) if "flag" in each
    ]
    assert f"of {len(lost)} special tokens" in message


GGUF: Mapping[str, tuple[str, Mapping[str, Any], str, str]] = {
    "no architecture": ("config.json", {"architectures": None}, "error", "does not say the architecture"),
    "unknown class": (
        "config.json",
        {"architectures": ["NewForCausalLM"]},
        "warning",
        "of NewForCausalLM is not known",
    ),
    "no end": ("tokenizer_config.json", {"eos_token": "the"}, "error", "the GGUF gets another `eos`"),
    "no start": ("tokenizer_config.json", {"add_bos_token": True, "bos_token": None}, "error", "no `bos` token"),
    "more ends": (
        "generation_config.json",
        {"eos_token_id": [TOKENS - 1, 70]},
        "warning",
        "llama.cpp does not stop at",
    ),
    "template": ("tokenizer_config.json", {"chat_template": "{{ 1 }}"}, "error", "and transformers another one"),
}


@pytest.mark.parametrize("case", GGUF)
def test_what_a_gguf_would_lose(model: Path, case: str) -> None:
    file, values, severity, words = GGUF[case]
    (model / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    assert not read_gguf(subject(model)).findings
    change(model, file, **values)
    if case == "no start":
        change(model, "config.json", bos_token_id=None)
    found = {each.severity for each in read_gguf(subject(model)).findings if words in each.message}
    assert found == {severity}


def test_a_template_is_read_beside_a_tokenizer_config_alone(model: Path) -> None:
    (model / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    for text in ("{}", '{"chat_template": null}', '{"model_max_length": 9}'):
        (model / "tokenizer_config.json").write_text(text, "utf-8")
        loses = any("template" in each for each in errors(read_gguf(subject(model))))
        assert loses == (gguf.SpecialVocab(model).chat_template is None)


def test_a_vocabulary_that_is_smaller_than_an_id(model: Path) -> None:
    about = subject(model)
    # As of Mllama, whose embeddings have rows that its head lacks.
    state = about.snapshot.state.with_value("config.json", ("vocab_size",), TOKENS - 1)
    found = errors(read_gguf(replace(about, snapshot=replace(about.snapshot, state=state))))
    assert f"the converter stops: the id {TOKENS - 1} is not below `vocab_size`, {TOKENS - 1}" in found


def test_flags_and_types_that_a_gguf_does_not_have(model: Path) -> None:
    document = tokenizer_json()
    flags = {"single_word": True, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    document["added_tokens"].append({"id": TOKENS, "content": "<|plain|>", **flags})
    write_json(model / "tokenizer.json", document)
    found = read_gguf(subject(model))
    assert not errors(found)
    assert [each.partition(":")[0] for each in warnings(found)] == [
        "the text of 1 token is not printed, since it looks special",
        "a GGUF has no single_word, lstrip, rstrip",
    ]
    # The text of the placeholder for an id without a token.
    twice = {"id": TOKENS + 1, "content": f"[PAD{TOKENS + 2}]", **flags, "single_word": False}
    document["added_tokens"].append(twice)
    write_json(model / "tokenizer.json", document)
    assert errors(read_gguf(subject(model))) == [f"llama.cpp stops at a text that two ids have: '[PAD{TOKENS + 2}]'"]


def test_added_tokens_of_a_wordpiece_are_to_be_special(tmp_path: Path) -> None:
    made = shared_model(tmp_path, "bert-base-uncased")
    change(made.directory, "config.json", architectures=["BertModel"])
    assert not read_gguf(subject(made.directory)).findings
    made.migrate("- add_tokens: {tokens: ['<new>', {content: '<role>', special: true}]}")
    assert errors(read_gguf(subject(made.directory))) == [
        "a mark, which text does not have, is written before 1 added token: '<new>'"
    ]


@pytest.mark.parametrize(
    ("name", "pre_tokenizer"),
    [("phi-2", "phi-2"), ("bert-base-uncased", "jina-v2-en"), ("deepseek", "joyai-llm"), ("gpt2-chatml", None)],
)
def test_pre_tokenizers_that_the_converter_knows(name: str, pre_tokenizer: str | None) -> None:
    library = tokenizers.Tokenizer.from_file(str(real(name) / "tokenizer.json"))
    library.no_truncation()
    assert find_pre_tokenizer(library.encode(CHECK_TEXT).ids) == pre_tokenizer


def test_a_gemma_3_needs_no_tokenizer_model(model: Path) -> None:
    text = {"vocab_size_per_layer_input": TOKENS}
    change(model, "config.json", architectures=["Gemma3nForConditionalGeneration"], **text)
    assert not read_gguf(subject(model)).findings


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("config.json", {"text_config": "x"}),
        ("config.json", {"thinker_config": [{}]}),
        ("config.json", {"llm_config": True}),
        ("config.json", {"architectures": {"a": 1}}),
        ("generation_config.json", {"eos_token_id": [{}]}),
    ],
)
def test_values_that_mean_nothing_stop_no_rule(model: Path, file: str, values: dict[str, Any]) -> None:
    change(model, file, **values)
    for read in (read_gguf, vllm.read, tgi.read, onnx.read):
        assert read(subject(model)).summary


def test_roles_that_a_post_processor_adds_without_naming_them(model: Path) -> None:
    document = tokenizer_json()
    document["post_processor"] = {
        "type": "RobertaProcessing",
        "sep": [EOS, TOKENS - 1],
        "cls": [BOS, TOKENS - 2],
        "trim_offsets": True,
        "add_prefix_space": False,
    }
    write_json(model / "tokenizer.json", document)
    change(model, "tokenizer_config.json", bos_token=None)
    change(model, "config.json", bos_token_id=None)
    assert errors(read_gguf(subject(model))) == [
        "`add_bos_token` is true, and the GGUF has no `bos` token: llama.cpp takes another one, or stops"
    ]


@pytest.mark.parametrize(
    ("kind", "by_vllm", "by_tgi"),
    [
        ("away from the vocabulary", 0, 0),
        ("on the head", 1, 0),
        ("on the embeddings", 1, 1),
        ("with both saved", 1, 1),
        ("of a list of tokens", 1, 1),
    ],
)
def test_adapters_with_rows_of_the_vocabulary(tmp_path: Path, kind: str, by_vllm: int, by_tgi: int) -> None:
    both = pair(tmp_path, KINDS[kind])
    about = subject(both.model, [both.adapter])
    assert (len(vllm.read(about).findings), len(tgi.read(about).findings)) == (by_vllm, by_tgi)
    refused = kind in ("with both saved", "of a list of tokens")
    assert ["it refuses the adapter" in each for each in errors(vllm.read(about))] == [True] * refused
    stops = ["convert_lora_to_gguf.py stops" in each for each in errors(read_gguf(about))]
    assert stops == [True] * refused
    assert bool(onnx.read(about).findings) == (kind != "away from the vocabulary")


def test_where_servers_stop_at_other_tokens(model: Path) -> None:
    for end, by_vllm, by_tgi in (
        (TOKENS - 1, 0, 0),
        ([TOKENS - 1], 0, 0),
        (70, 1, 1),
        ([70], 1, 0),
        ([70, TOKENS - 1], 0, 0),
    ):
        change(model, "generation_config.json", eos_token_id=end)
        about = subject(model)
        assert (len(warnings(vllm.read(about))), len(errors(tgi.read(about)))) == (by_vllm, by_tgi), end


def test_the_template_that_text_generation_inference_takes(model: Path) -> None:
    (model / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    assert [each.partition(":")[0] for each in errors(tgi.read(subject(model)))] == ["it has no chat template"]
    (model / "chat_template.jinja").write_text("{{ 1 | wordcount }}", "utf-8")
    assert len(errors(tgi.read(subject(model)))) == 2
    (model / "chat_template.jinja").write_text("{{ }", "utf-8")
    assert any(each.startswith("it does not start: chat template, line 1") for each in errors(tgi.read(subject(model))))
    (model / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    change(model, "tokenizer_config.json", chat_template=TEMPLATE)
    assert not tgi.read(subject(model)).findings
    change(model, "chat_template.json", chat_template="{{ other }}")
    assert errors(tgi.read(subject(model))) == [
        "it takes the chat template of chat_template.json, and transformers another one"
    ]
    (model / "chat_template.jinja").unlink()
    change(model, "chat_template.json", chat_template="{% for m in messages %}\n  {{ m ~ pad_token }}{% endfor %}")
    found = tgi.read(subject(model))
    assert [each.partition(":")[0] for each in errors(found)] == [
        "prompts have line breaks or spaces that transformers leaves out"
    ]
    assert any("names `pad_token`, which is empty there" in each for each in warnings(found))


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("{%- generation %}x{%- endgeneration %}", "line 1: the tag `{%- generation %}`"),
        ("\n{{ messages | wordcount }}", "line 2: the filter `wordcount`"),
        ("{{ 1 if messages is callable }}", "line 1: the test `callable`"),
        ("{{ '%s' % bos_token }}", "line 1: `%` with a text"),
        ("{{ bos_token.zfill(3) }}", "line 1: the method `zfill`"),
        ("{% set c = cycler(1, 2) %}", "line 1: the function `cycler`"),
        ("{% generation %}{{ messages[::-1] | tojson }}{% endgeneration %}", None),
        (
            "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content.strip() }}{% endfor %}",
            None,
        ),
    ],
)
def test_what_minijinja_does_not_take(template: str, what: str | None) -> None:
    assert next(find_unsupported(template), None) == what


@pytest.mark.parametrize(
    ("template", "keeps"),
    [
        ("{% if a %}\nx{% endif %}", True),
        ("x\n  {% if a %}y{% endif %}", True),
        ("{%- if a -%}\nx\n{%- endif -%}", False),
    ],
)
def test_whether_lines_of_tags_come_out(template: str, keeps: bool) -> None:
    assert keeps_block_lines(template) == keeps


def test_graphs_in_the_directory_of_a_model(model: Path) -> None:
    (model / "onnx").mkdir()
    write_onnx(model / "onnx" / "model.onnx", TOKENS + 3)
    found = onnx.read(subject(model))
    assert (found.findings, "1 ONNX files" in found.summary) == ((), True)
    write_onnx(model / "onnx" / "model.onnx", TOKENS)
    rows = f"has {TOKENS} rows, and that of the model {TOKENS + 3}"
    assert errors(onnx.read(subject(model))) == [f"its 'model.embed_tokens.weight' {rows}"]
    write_onnx(model / "onnx" / "model.onnx", TOKENS, width=1)
    assert not errors(onnx.read(subject(model)))
    (model / "onnx" / "model.onnx").write_bytes(b"none")
    assert errors(onnx.read(subject(model))) == ["is not an ONNX file"]
