"""What the children answer, and that each failure of one of them reaches the caller as an error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

from tokmigrate.errors import TokenizerError, VerificationError
from tokmigrate.model.worker import worker_main
from tokmigrate.model.worker.vocabulary_axes import Tensor, find_name
from tokmigrate.model.worker.worker import call_worker, prepare_worker, stop_server

VOCABULARY = {"<pad>": 0, "</s>": 1, "a": 2, "b": 3, "c": 4, "ab": 5}
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


def tokenizer_document(**model: Any) -> dict[str, Any]:
    made = Tokenizer(BPE(VOCABULARY, [("a", "b")]))
    made.add_special_tokens(["<pad>", "</s>"])
    made.enable_truncation(2)
    made.enable_padding(length=8, pad_token="<pad>")
    made.post_processor = TemplateProcessing(single="$A </s>", pair="$A $B", special_tokens=[("</s>", 1)])
    document = json.loads(made.to_str())
    return document | {"model": document["model"] | model}


def write_tokenizer(directory: Path, **model: Any) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / "tokenizer.json"
    path.write_text(json.dumps(tokenizer_document(**model)), encoding="utf-8")
    return path


def write_model(directory: Path, **config: Any) -> Path:
    write_tokenizer(directory)
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "padding_side": "left",
        "chat_template": TEMPLATE,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer_config), encoding="utf-8")
    sizes = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 8,
        "hidden_size": 4,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }
    (directory / "config.json").write_text(json.dumps(sizes | config), encoding="utf-8")
    return directory


def test_the_tokenizers_library_is_asked(tmp_path: Path) -> None:
    file = str(write_tokenizer(tmp_path))

    answer = call_worker(
        "tokenizer",
        {"file": file, "expected": VOCABULARY, "encode": ["abcabc", "ab</s>"]},
    )

    assert answer["size"] == 6
    assert answer["differences"] == {"count": 0, "examples": {}}
    assert answer["encodings"] == [
        {"ids": [5, 4, 5, 4], "tokens": ["ab", "c", "ab", "c"]},
        {"ids": [5, 1], "tokens": ["ab", "</s>"]},
    ]


def test_ids_that_the_library_gives_itself_are_reported(tmp_path: Path) -> None:
    file = write_tokenizer(tmp_path)
    document = tokenizer_document()
    document["added_tokens"].append(document["added_tokens"][0] | {"id": 20, "content": "<new>"})
    file.write_text(json.dumps(document), encoding="utf-8")

    answer = call_worker("tokenizer", {"file": str(file), "expected": VOCABULARY | {"<new>": 20}})

    assert answer["differences"] == {"count": 1, "examples": {"<new>": [20, 6]}}


def test_a_panic_is_an_error_of_the_tokenizer(tmp_path: Path) -> None:
    file = write_tokenizer(tmp_path, merges=[["b", "c"]])

    with pytest.raises(TokenizerError) as raised:
        call_worker("tokenizer", {"file": str(file)})

    assert raised.value.where == str(file)
    assert "bc" in raised.value.message or "Panic" in raised.value.message


def test_a_file_that_is_not_there_is_an_error_of_the_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="No such file"):
        call_worker("tokenizer", {"file": str(tmp_path / "tokenizer.json")})


def test_a_child_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(VerificationError, match=r"no answer within 0\.2 seconds"):
        call_worker("transformers", {"directory": str(write_model(tmp_path))}, timeout=0.2)
    assert time.monotonic() - start < 10


def servers() -> list[Path]:
    """Return the /proc folders of this process's servers."""
    listed = []
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        process = Path("/proc", pid)
        if b"tokmigrate.model.worker.server" in (process / "cmdline").read_bytes():
            listed.append(process)
    return listed


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_one_server_forks_all_workers_and_outlives_them(tmp_path: Path) -> None:
    directory = str(write_model(tmp_path / "model"))
    broken = write_tokenizer(tmp_path / "broken", merges=[["b", "c"]])
    call_worker("vocabulary_axes", {"directory": directory, "open": []})
    (server,) = servers()

    with pytest.raises(TokenizerError):
        call_worker("tokenizer", {"file": str(broken)})
    with pytest.raises(VerificationError, match="no answer within"):
        call_worker("transformers", {"directory": directory}, timeout=0.01)

    assert call_worker("transformers", {"directory": directory})["model"]["class"] == "LlamaForCausalLM"
    assert servers() == [server]
    # A process with threads cannot be forked safely.
    assert len(list((server / "task").iterdir())) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_a_server_imports_libraries_before_the_first_question(tmp_path: Path) -> None:
    stop_server()
    prepare_worker("tokenizer")
    deadline = time.monotonic() + 60
    # A process that has just been started has no command line yet.
    while not any("tokenizers" in (server / "maps").read_text() for server in servers()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (server,) = servers()
    assert call_worker("tokenizer", {"file": str(write_tokenizer(tmp_path))})["size"] == len(VOCABULARY)
    assert servers() == [server]


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
@pytest.mark.parametrize("ended", ["killed", "stopped"])
def test_a_server_that_is_gone_is_replaced(tmp_path: Path, ended: str) -> None:
    request = {"file": str(write_tokenizer(tmp_path)), "encode": ["ab"]}
    first = call_worker("tokenizer", request)
    (server,) = servers()
    if ended == "killed":
        os.kill(int(server.name), signal.SIGKILL)
        os.waitid(os.P_PID, int(server.name), os.WEXITED | os.WNOWAIT)
    else:
        stop_server()
        assert servers() == []

    assert call_worker("tokenizer", request) == first
    assert servers() != [server]


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_a_server_outlives_the_directory_that_it_was_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_server()
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    assert call_worker("tokenizer", {"file": str(write_tokenizer(tmp_path))})["size"] == len(VOCABULARY)
    monkeypatch.chdir(tmp_path)
    gone.rmdir()
    # torch is imported now, and its MKL does not load where there is no current directory.
    directory = str(write_model(tmp_path))
    assert call_worker("transformers", {"directory": directory})["model"]["class"] == "LlamaForCausalLM"


def test_a_worker_has_the_working_directory_of_the_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("first", "second"):
        write_tokenizer(tmp_path / name)
        monkeypatch.chdir(tmp_path / name)
        assert call_worker("tokenizer", {"file": "tokenizer.json"})["size"] == len(VOCABULARY)


def test_transformers_is_asked(tmp_path: Path) -> None:
    directory = write_model(tmp_path)
    shapes = {
        "model.embed_tokens.weight": [8, 4],
        "model.layers.0.mlp.gate_proj.weight": [8, 4],
        "lm_head.weight": [7, 4],
        "of.another.kind": [3],
    }

    answer = call_worker(
        "transformers",
        {"directory": str(directory), "expected": VOCABULARY | {"a": 3}, "shapes": shapes, "encode": ["abc"]},
    )

    tokenizer, model = answer["tokenizer"], answer["model"]
    assert tokenizer["differences"] == {"count": 1, "examples": {"a": [3, 2]}}
    assert tokenizer["encodings"] == [[5, 4]]
    assert "chat_error" not in tokenizer
    assert model["class"] == "LlamaForCausalLM"
    assert model["mismatched"] == {"lm_head.weight": [[7, 4], [8, 4]]}


def test_a_broken_config_is_an_error(tmp_path: Path) -> None:
    directory = write_model(tmp_path, hidden_size="wide")

    with pytest.raises(VerificationError) as raised:
        call_worker("vocabulary_axes", {"directory": str(directory), "open": []})

    assert raised.value.where == str(directory)
    assert "hidden_size" in raised.value.message or "Error" in raised.value.message


def test_code_that_comes_with_a_model_is_never_run(tmp_path: Path) -> None:
    from tokmigrate.model.worker.vocabulary_axes import answer

    directory = write_model(tmp_path / "model", model_type="own", auto_map={"AutoConfig": "code.Config"})
    trap = tmp_path / "trap"
    (directory / "code.py").write_text(f"open({str(trap)!r}, 'w').close()", encoding="utf-8")

    assert "foreign code" in answer({"directory": str(directory), "open": []})["unknown"]
    assert not trap.exists()


def test_an_axis_as_long_as_the_vocabulary_does_not_follow_it(tmp_path: Path) -> None:
    from tokmigrate.model.worker.vocabulary_axes import answer

    experts = {"num_local_experts": 2, "num_experts_per_tok": 1, "num_key_value_heads": 2}
    directory = write_model(tmp_path, model_type="mixtral", architectures=["MixtralForCausalLM"], **experts)
    expert = "model.layers.0.block_sparse_moe.experts.1.w1.weight"
    asked = ["embed_tokens.weight", "lm_head.weight", expert, "not.there"]

    told = answer({"directory": str(directory), "open": asked})

    shape = told["following"]["lm_head.weight"]["shape"]
    assert shape[0] == told["vocab_size"]
    assert told["explained"] == {
        "embed_tokens.weight": {"axis": 0, "side": "input", "shape": shape},
        "lm_head.weight": {"axis": 0, "side": "output", "shape": shape},
        expert: None,
    }
    assert set(told["following"]) == {"model.embed_tokens.weight", "lm_head.weight"}
    assert (told["vocab_size"], told["tied"]) == (8, False)


@pytest.mark.parametrize(
    ("model_type", "architecture", "sizes", "expected"),
    [
        (
            "bart",
            "BartForConditionalGeneration",
            {
                "d_model": 4,
                "encoder_layers": 1,
                "decoder_layers": 1,
                "encoder_attention_heads": 2,
                "decoder_attention_heads": 2,
            },
            {"final_logits_bias": (1, "output"), "model.shared.weight": (0, "input"), "lm_head.weight": (0, "output")},
        ),
        (
            "gpt_neox",
            "GPTNeoXForCausalLM",
            {"tie_word_embeddings": True},
            {"gpt_neox.embed_in.weight": (0, "input"), "embed_out.weight": (0, "output")},
        ),
        (
            "mobilebert",
            "MobileBertForMaskedLM",
            {"num_hidden_layers": 1, "hidden_size": 24, "embedding_size": 16, "true_hidden_size": 16},
            {
                "cls.predictions.dense.weight": (1, "output"),
                "cls.predictions.bias": (0, "output"),
                "mobilebert.embeddings.word_embeddings.weight": (0, "input"),
            },
        ),
    ],
)
def test_axes_and_sides(
    tmp_path: Path,
    model_type: str,
    architecture: str,
    sizes: Mapping[str, Any],
    expected: Mapping[str, tuple[int, str]],
) -> None:
    from tokmigrate.model.worker.vocabulary_axes import answer

    directory = write_model(tmp_path, model_type=model_type, architectures=[architecture], **sizes)

    told = answer({"directory": str(directory), "open": []})

    assert {name: (told["following"][name]["axis"], told["following"][name]["side"]) for name in expected} == expected
    assert told["tied"]


def test_asking_imports_none_of_the_libraries() -> None:
    heavy = "{'torch', 'transformers', 'tokenizers'}"
    command = f"import sys, tokmigrate.model.weights.vocabulary_tensors; print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 9)), st.dictionaries(st.text(max_size=3), st.integers(0, 9)))
def test_differences_are_counted_and_only_differences(expected: dict[str, int], found: dict[str, int]) -> None:
    told = worker_main.id_differences(expected, found)

    differing = {text for text in {*expected, *found} if expected.get(text) != found.get(text)}
    assert told["count"] == len(differing)
    assert len(told["examples"]) == min(len(differing), worker_main.SHOWN)
    assert all(pair == [expected.get(text), found.get(text)] for text, pair in told["examples"].items())


@given(st.sampled_from(["", "model.", "base.", "base.model."]), st.sampled_from(["embed.weight", "norm.weight"]))
def test_a_name_is_matched_only_where_one_thing_fits(prefix: str, name: str) -> None:
    tensors = {
        "base.embed.weight": Tensor((2, 2), None),
        "a.norm.weight": Tensor((2,), None),
        "b.norm.weight": Tensor((2,), None),
    }

    known = find_name(prefix + name, tensors, "base")

    # "model.embed.weight" ends like nothing that the model has.
    fits = name == "embed.weight" and prefix in {"", "base."}
    assert known == ("base.embed.weight" if fits else None)
