"""What `evaluate` measures is what a full softmax of both models gives, text by text."""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from making import BOS, EOS, TOKENS, WORDS, built, llama, migrated, tokenizer_json, workspace, write_tokenizer
from safetensors.torch import load_file, save_file
from workspaces import REPOSITORY, Workspace, contents, make_workspace

import tokmigrate
from tokmigrate.apply.temporary_folder import open_temporary_folder
from tokmigrate.errors import BusyError
from tokmigrate.events import ActivityStarted, Event
from tokmigrate.model.worker.corpora import Corpus
from tokmigrate.model.worker.corpus_files import CorpusFile
from tokmigrate.settings import ModelEntry, read_workspace
from tokmigrate.training.aligned_windows import cut_windows, tokenize
from tokmigrate.training.evaluate import evaluate as measure

NEW = "<|new|>"
PLAIN = ["in the end of the day", "the rest of it is there", "to be or not to be", "x"]
MARKED = [f"{NEW}in the end", f"one {NEW} and {NEW}{NEW}", f"the other{NEW}"]
ADD = {"add_tokens": {"tokens": [{"content": NEW, "special": True}], "init": {"strategy": "mean"}}}
PAD = {"resize_vocab": {"multiple_of": 64}}
REMOVE = {"remove_tokens": {"tokens": ["Ġof", "ing"], "ids": "compact", "acknowledge": "breaking", "shrink": "exact"}}
TWO = ((BOS, EOS), (BOS, EOS, NEW))
Found = Mapping[str, Any]


MAKERS = {
    "untied": llama,
    "tied": lambda path: llama(path, head="tied"),
    "bias": lambda path: built(path, "PhiForCausalLM", tie_word_embeddings=False, initializer_range=0.4),
}


def make(root: Path, kind: str, *operations: Mapping[str, Any], pending: bool = False) -> tuple[Workspace, Path]:
    """Return a workspace with a model `m` at the head, or at base, and the directory of the model before."""
    before = MAKERS[kind](root / "before")
    shutil.copytree(before, root / "m")
    workspace(root, {"m": root / "m"}, [{"operations": [operation]} for operation in operations])
    here = Workspace(root)
    if not pending:
        here.asked("upgrade")
    return here, before


def evaluate(here: Workspace, texts: Sequence[str], *words: str) -> Found:
    path = here.root / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return here.asked("evaluate", "--corpus", str(path), *words)


class Side:
    """A model that is run one text at a time."""

    def __init__(self, directory: Path) -> None:
        self.library = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
        self.model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float64).eval()

    def read(self, text: str) -> tuple[list[int], torch.Tensor, list[int]]:
        """Return the ids of a text, the logarithms of all probabilities, and where each token ends."""
        ids = self.library.encode(text).ids
        with torch.no_grad():
            logs = self.model(torch.tensor([ids])).logits[0].log_softmax(1)
        lengths = [len(self.library.decode([number], skip_special_tokens=False)) for number in ids]
        return ids, logs, torch.tensor(lengths).cumsum(0).tolist()


def losses(sides: Sequence[Side], text: str) -> tuple[int, list[float]]:
    """Return the bytes that count, those from the first boundary that both have, and the nats of each side on them."""
    read = [side.read(text) for side in sides]
    first = min(set(read[0][2]) & set(read[1][2]))
    nats = []
    for ids, logs, ends in read:
        start = ends.index(first) + 1
        nats.append(-sum(float(logs[place - 1, ids[place]]) for place in range(start, len(ids))))
    return len(text.encode()) - first, nats


@pytest.mark.parametrize(
    ("kind", "operations"),
    [
        ("untied", (ADD, PAD)),
        ("tied", (ADD, PAD)),
        ("untied", (REMOVE,)),
        ("bias", (REMOVE,)),
        ("tied", (REMOVE, ADD)),
        ("bias", (REMOVE, ADD)),
    ],
)
def test_divergence_is_that_of_a_full_softmax(tmp_path: Path, kind: str, operations: Sequence[Found]) -> None:
    here, before = make(tmp_path, kind, *operations)
    found = evaluate(here, [*PLAIN, *MARKED])
    old, new = sides = [Side(before), Side(tmp_path / "m")]
    ids = [side.library.get_vocab(with_added_tokens=True) for side in sides]
    shared = [token for token in ids[0] if token in ids[1]]
    kept = [torch.tensor([each[token] for token in shared]) for each in ids]
    added, removed, masses = [], [], []
    for text in (*PLAIN, *MARKED):
        (numbers, was, _), (others, now, _) = old.read(text), new.read(text)
        if [old.library.id_to_token(n) for n in numbers] != [new.library.id_to_token(n) for n in others]:
            continue
        for place in range(len(numbers) - 1):
            p, q = was[place, kept[0]].exp(), now[place, kept[1]].exp()
            masses.append(float(1 - p.sum()))
            removed.append(-math.log(float(p.sum())))
            p = p / p.sum()
            added.append(float((p * (p.log() - q.log())).sum()))
    far = found["divergence"]
    assert far["positions"] == len(added) > 10
    assert far["of_added_rows"] == pytest.approx(sum(added) / len(added), abs=1e-5)
    assert far["of_added_rows_at_most"] == pytest.approx(max(added), abs=1e-5)
    assert far["of_removed_rows"] == pytest.approx(sum(removed) / len(removed), abs=1e-5)
    assert far["removed_mass"] == pytest.approx(sum(masses) / len(masses), abs=1e-5)
    assert far["nats"] == pytest.approx(far["of_added_rows"] + far["of_removed_rows"])
    if operations == (ADD, PAD) and kind != "bias":
        rows = len(new.model.get_output_embeddings().weight)
        assert far["bound"] == pytest.approx(math.log1p((rows - TOKENS) / TOKENS))
        assert max(added) <= far["bound"]


@pytest.mark.parametrize("kind", ["tied", "bias"])
def test_nats_per_byte_are_those_of_a_loop(tmp_path: Path, kind: str) -> None:
    here, before = make(tmp_path, kind, ADD, REMOVE)
    found = evaluate(here, [*PLAIN, *MARKED])
    sides = [Side(before), Side(tmp_path / "m")]
    expected = [losses(sides, text) for text in (*PLAIN, *MARKED)]
    counted = sum(size for size, _ in expected)
    whole = found["nats_per_byte"]["all"]
    assert whole["bytes"] == counted
    for place, name in enumerate(("before", "after")):
        assert whole[name] == pytest.approx(sum(nats[place] for _, nats in expected) / counted, abs=1e-5)
        tokens = sum(len(sides[place].read(text)[0]) for text in (*PLAIN, *MARKED))
        size = sum(len(text.encode()) for text in (*PLAIN, *MARKED))
        assert found["tokens_per_byte"][name] == pytest.approx(tokens / size)
    on_new, after_new = [], []
    for text in MARKED:
        ids, logs, _ = sides[1].read(text)
        number = sides[1].library.token_to_id(NEW)
        for place in range(1, len(ids)):
            nats = -float(logs[place - 1, ids[place]])
            if ids[place] == number:
                on_new.append(nats)
            elif ids[place - 1] == number:
                after_new.append(nats)
    for name, expected_nats in (("on_new_tokens", on_new), ("after_new_tokens", after_new)):
        assert found["loss"][name]["tokens"] == len(expected_nats) > 0
        assert found["loss"][name]["before"] is None
        assert found["loss"][name]["after"] == pytest.approx(sum(expected_nats) / len(expected_nats), abs=1e-5)


def test_pending_migrations_are_measured_before_they_are_applied(tmp_path: Path) -> None:
    here, before = make(tmp_path, "untied", REMOVE, ADD, pending=True)
    planned = evaluate(here, [*PLAIN, *MARKED], "--to", "head")
    assert contents(tmp_path / "m") == contents(before)
    same = here.run("evaluate", "--corpus", "corpus.jsonl").stdout
    assert "note: both sides are the same; --to head measures pending migrations" in same
    here.asked("upgrade")
    applied = evaluate(here, [*PLAIN, *MARKED])
    for name in ("divergence", "nats_per_byte", "tokens_per_byte", "loss", "texts"):
        assert planned[name] == applied[name]
    assert planned["divergence"]["removed_mass"] > 0
    assert here.run("evaluate", "--corpus", "corpus.jsonl", "--to", "head").returncode == 1
    assert "there is no such directory" in here.run("evaluate", "--corpus", "corpus.jsonl", "--old", "./x").stderr


def test_a_model_beside_itself_is_equal_to_the_last_digit(tmp_path: Path) -> None:
    here, _ = make(tmp_path, "untied", ADD)
    found = evaluate(here, [*PLAIN, *MARKED], "--old", "m")
    whole = found["nats_per_byte"]["all"]
    assert whole["before"] == whole["after"]
    assert found["divergence"]["nats"] == 0 == found["new_tokens"]
    assert found["nats_per_byte"]["with_new_tokens"]["bytes"] == 0


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    here, _ = make(tmp_path, "tied", ADD)
    area = tmp_path / ".m.tokmigrate"
    left, used = area / "staged-left", area / "staged-used"
    for folder in (left, used):
        folder.mkdir()
        (folder / "model.safetensors").touch()
    number = os.open(used, os.O_RDONLY)
    fcntl.flock(number, fcntl.LOCK_EX)
    evaluate(here, PLAIN)
    os.close(number)
    assert {path.name for path in area.iterdir()} == {"lock", "staged-used"}


def test_a_model_is_staged_in_its_work_area_where_there_can_be_one(tmp_path: Path) -> None:
    entry = ModelEntry("m", llama(tmp_path / "m"))
    with open_temporary_folder(entry.path) as folder:
        assert folder.parent == tmp_path / ".m.tokmigrate"
    assert not folder.parent.exists()
    folder.parent.write_bytes(b"in the way")
    with open_temporary_folder(entry.path) as folder:
        assert tmp_path not in folder.parents
    assert not folder.exists()


def test_a_model_that_is_changed_while_it_is_read_is_not_measured(tmp_path: Path) -> None:
    here, _ = make(tmp_path, "tied", ADD)

    def change(event: Event) -> None:
        if event == ActivityStarted("m", "reading"):
            here.asked("downgrade", "base")

    settings = read_workspace(tmp_path / "tokmigrate.yaml")
    corpus = Corpus("corpus", (CorpusFile(str(tmp_path / "corpus.txt"), "corpus"),))
    (tmp_path / "corpus.txt").write_text("\n".join(PLAIN), "utf-8")
    with pytest.raises(BusyError, match="it was changed while it was read"):
        measure(settings, settings.models["m"], corpus, on_progress=change)


def vision(directory: Path) -> Path:
    """Make a CLIP, which takes pictures with its texts."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    parts = {"text_config": {"vocab_size": TOKENS, **sizes}, "vision_config": {"image_size": 32, **sizes}}
    return built(directory, "CLIPModel", **parts)


def sees_all(directory: Path) -> Path:
    """Make a BERT that is called a decoder."""
    return built(directory, "BertLMHeadModel", initializer_range=0.5)


def diverged(directory: Path) -> Path:
    """Make a model with a weight that is not a number."""
    tensors = load_file(llama(directory) / "model.safetensors")
    tensors["model.norm.weight"][0] = math.nan
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def without_unknown(directory: Path) -> Path:
    """Make a model whose tokenizer has no token for what it does not know."""
    llama(directory)
    words = {"type": "WordLevel", "vocab": {"in": 0, "the": 1}, "unk_token": "<unk>"}
    write_tokenizer(directory, {**tokenizer_json(), "model": words, "added_tokens": []})
    return directory


def without_rows(directory: Path) -> Path:
    """Make a model whose tokenizer was edited by hand."""
    llama(directory)
    write_tokenizer(directory, tokenizer_json((BOS, EOS, NEW)))
    return directory


@pytest.mark.parametrize(
    ("maker", "words"),
    [
        (vision, "transformers cannot load it"),
        (diverged, "an infinity or a NaN comes out"),
        (sees_all, "it sees the tokens that follow"),
        (without_unknown, "a text cannot be tokenized: WordLevel error: Missing [UNK]"),
        (without_rows, f"go up to {TOKENS}, and the embeddings have {TOKENS}"),
    ],
)
def test_a_directory_that_cannot_be_compared_with(tmp_path: Path, maker: Callable[[Path], Path], words: str) -> None:
    here, _ = make(tmp_path, "untied", ADD, pending=True)
    (tmp_path / "corpus.txt").write_text("\n".join(MARKED), "utf-8")
    done = here.run("evaluate", "--corpus", "corpus.txt", "--old", str(maker(tmp_path / "other")))
    assert (done.returncode, words in done.stderr) == (1, True), done.stderr


def test_the_model_is_named_where_its_kind_is_not_measured(tmp_path: Path) -> None:
    """The model before its migrations is a copy, which nobody knows."""
    here = Workspace(tmp_path)
    migrated(tmp_path, built(tmp_path / "m", "T5ForConditionalGeneration"), ADD)
    (tmp_path / "corpus.txt").write_text("the end\n", "utf-8")
    done = here.run("evaluate", "--corpus", "corpus.txt")
    assert f"error: {tmp_path / 'm'}: t5 encodes and decodes" in done.stderr


@pytest.mark.parametrize("kind", ["causal", "encoder"])
def test_a_text_without_tokens_has_no_figures(tmp_path: Path, kind: str) -> None:
    model = llama(tmp_path / "m") if kind == "causal" else bert(tmp_path / "m", None)
    library = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json()))
    library.normalizer = tokenizers.normalizers.Strip()
    if kind == "causal":
        library.post_processor = tokenizers.processors.TemplateProcessing(f"{BOS} $A", special_tokens=[(BOS, 9)])
    write_tokenizer(model, json.loads(library.to_str()))
    workspace(tmp_path, {"m": model}, [])
    found = evaluate(Workspace(tmp_path), ["  ", " "])
    if kind == "causal":
        assert {found["divergence"][name] for name in ("nats", "of_added_rows_at_most", "removed_mass_at_most")} == {
            None
        }
    found = evaluate(Workspace(tmp_path), ["  ", *PLAIN])
    measured = found["divergence"]["nats"] if kind == "causal" else found["cosine"]["without_new_tokens"]["mean"]
    assert measured == pytest.approx(float(kind == "encoder"))


def test_unused_tokens_cost_what_their_divergence_says(tmp_path: Path) -> None:
    here, _ = make(tmp_path, "tied", ADD)
    found = evaluate(here, PLAIN)
    whole, far = found["nats_per_byte"]["all"], found["divergence"]
    cost = far["nats"] * far["positions"] / whole["bytes"]
    assert 0 < cost == pytest.approx(whole["after"] - whole["before"], abs=1e-6)
    part = evaluate(here, PLAIN, "--limit", str(len(PLAIN[0]) + 1))
    assert part["texts"] == {"all": 2, "without_new_tokens": 2, "bytes": len("".join(PLAIN[:2]))}


def make_checked(root: Path, *models: str, **limits: float) -> Workspace:
    """Return a workspace whose pending migration has checks with these limits."""
    paths = {name: llama(root / name) for name in models}
    workspace(root, paths, [])
    (root / "migrations" / "a sample.txt").write_text("\n".join(PLAIN), "utf-8")
    fields = {"kl_at_most": "nats", "tokens_per_byte_at_most": "value"}
    checks = [{name: {"corpus": "a sample.txt", fields[name]: limit}} for name, limit in limits.items()]
    workspace(root, paths, [{"operations": [ADD], "verify": checks}])
    return Workspace(root)


@pytest.mark.parametrize("models", [("a",), ("a", "b")])
@pytest.mark.parametrize("name", ["kl_at_most", "tokens_per_byte_at_most"])
def test_upgrade_refuses_what_a_check_does_not_allow(tmp_path: Path, name: str, models: tuple[str, ...]) -> None:
    here = make_checked(tmp_path, *models, **{name: 1e-6})
    before = {model: contents(tmp_path / model) for model in models}
    done = here.run("upgrade")
    assert done.returncode == 1
    assert "a `verify:` case does not hold" in done.stderr
    assert {model: contents(tmp_path / model) for model in models} == before
    assert {path.name for model in models for path in (tmp_path / f".{model}.tokmigrate").glob("*")} <= {"lock"}
    if name == "kl_at_most":
        hint = re.search(r"`tokmigrate (evaluate [^`]*)`", done.stderr)
        assert hint
        assert here.asked(*shlex.split(hint[1]))["divergence"]["nats"] > 1e-6


def test_checks_that_hold(tmp_path: Path) -> None:
    here = make_checked(tmp_path, "a", kl_at_most=1.0, tokens_per_byte_at_most=1.0)
    found = here.asked("evaluate", "--to", "head", "--corpus", "migrations/a sample.txt")
    assert 0 < found["divergence"]["nats"] < 0.1
    before = contents(tmp_path / "a")
    here.asked("upgrade")
    assert "`kl_at_most` is not checked again" in here.run("verify").stdout
    assert "not part of it: `kl_at_most`" in here.run("test", "--all").stdout
    again = here.asked("evaluate", "--corpus", "migrations/a sample.txt")
    assert again["divergence"] == found["divergence"]
    here.asked("downgrade", "base")
    assert contents(tmp_path / "a") == before


def test_a_check_runs_each_of_several_models_once(tmp_path: Path) -> None:
    make_checked(tmp_path, "a", "b", kl_at_most=1.0)
    events: list[Event] = []
    with tokmigrate.open(tmp_path) as opened:
        assert len(opened.upgrade(on_progress=events.append)) == 2
    measured = [each.model for each in events if isinstance(each, ActivityStarted) and "measuring" in each.activity]
    assert measured == ["a", "b"]


def test_the_corpus_of_a_check_is_missing(tmp_path: Path) -> None:
    here = make_checked(tmp_path, "a", kl_at_most=1.0)
    (tmp_path / "migrations" / "a sample.txt").unlink()
    done = here.run("upgrade")
    assert done.returncode == 2
    assert "a sample.txt" in done.stderr


@pytest.mark.parametrize("changed", ["body", "a row", "configuration"])
def test_models_with_other_weights_are_both_run(tmp_path: Path, changed: str) -> None:
    here, before = make(tmp_path, "untied", ADD)
    tensors = load_file(before / "model.safetensors")
    the = tokenizer_json()["model"]["vocab"]["the"]
    if changed == "body":
        tensors["model.layers.0.mlp.up_proj.weight"][5] += 0.5
    elif changed == "a row":
        tensors["lm_head.weight"][the] += 0.5
    else:
        config = json.loads((before / "config.json").read_text("utf-8"))
        (before / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}), "utf-8")
    save_file(tensors, before / "model.safetensors", metadata={"format": "pt"})
    found = evaluate(here, PLAIN, "--old", str(before))
    assert found["same_body"] == (changed != "body")
    old, new = Side(before), Side(tmp_path / "m")
    kls: list[float] = []
    nats: tuple[list[float], list[float]] = [], []
    for text in PLAIN:
        (ids, was, _), (_, now, _) = old.read(text), new.read(text)
        if changed != "a row" or the not in ids:
            kls += (was.exp() * (was - now[:, :TOKENS])).sum(1)[: len(ids) - 1].tolist()
        for side, logs in enumerate((was, now)):
            nats[side].extend(-float(logs[place - 1, the]) for place in range(1, len(ids)) if ids[place] == the)
    assert found["divergence"]["nats"] == pytest.approx(sum(kls) / len(kls), abs=1e-5)
    assert found["divergence"]["nats"] > 1e-4
    on_new = found["loss"]["on_new_tokens"]
    assert on_new["tokens"] == (len(nats[0]) if changed == "a row" else 0)
    if changed == "a row":
        assert len(nats[0]) > 1
        assert [on_new["before"], on_new["after"]] == pytest.approx([sum(each) / len(each) for each in nats], abs=1e-5)


def bert(directory: Path, pooling: str | None) -> Path:
    built(directory, "BertModel")
    if pooling:
        modules = [{}, {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
        (directory / "modules.json").write_text(json.dumps(modules), "utf-8")
        (directory / "1_Pooling").mkdir()
        modes = {name: name == pooling for name in ("pooling_mode_cls_token", "pooling_mode_mean_tokens")}
        held = modes if pooling in modes else {"pooling_mode": pooling}
        (directory / "1_Pooling" / "config.json").write_text(json.dumps(held), "utf-8")
    return directory


POOLED: Mapping[str | None, Callable[[torch.Tensor], torch.Tensor]] = {
    None: lambda states: states.mean(0),
    "pooling_mode_cls_token": lambda states: states[0],
    "weightedmean": lambda states: sum(place * state for place, state in enumerate(states, 1)),
}


@pytest.mark.parametrize("pooling", POOLED)
def test_embeddings_are_compared_text_by_text(tmp_path: Path, pooling: str | None) -> None:
    before = bert(tmp_path / "before", pooling)
    migrated(tmp_path, Path(shutil.copytree(before, tmp_path / "m")), ADD)
    here = Workspace(tmp_path)
    found = evaluate(here, [*PLAIN, *MARKED])
    embeddings: list[list[torch.Tensor]] = []
    for directory in (before, tmp_path / "m"):
        library = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
        model = transformers.AutoModel.from_pretrained(directory).eval()
        with torch.no_grad():
            states = [model(torch.tensor([library.encode(text).ids])).last_hidden_state[0] for text in MARKED]
        embeddings.append([POOLED[pooling](each) for each in states])
    cosines = [float(torch.cosine_similarity(old, new, dim=0)) for old, new in zip(*embeddings, strict=True)]
    assert found["kind"] == "encoder"
    assert found["cosine"]["without_new_tokens"] == {"texts": 4, "mean": pytest.approx(1), "min": pytest.approx(1)}
    with_new = found["cosine"]["with_new_tokens"]
    assert with_new["texts"] == len(MARKED)
    assert with_new["mean"] == pytest.approx(sum(cosines) / len(cosines), abs=1e-5)
    assert with_new["min"] == pytest.approx(min(cosines), abs=1e-5)
    assert min(cosines) < 0.999


@given(
    texts=st.lists(st.sampled_from([*WORDS, " ", "é", "☃", NEW, "<|o", "<s>"]), max_size=60),
    puts=st.tuples(st.booleans(), st.booleans()),
)
def test_windows_cover_the_same_bytes_on_both_sides(texts: list[str], puts: tuple[bool, bool]) -> None:
    libraries = [tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(specials))) for specials in TWO]
    around = tokenizers.processors.TemplateProcessing(single=f"{BOS} $A {EOS}", special_tokens=[(BOS, 9), (EOS, 8)])
    for library, is_put in zip(libraries, puts, strict=True):
        if is_put:
            library.post_processor = around
    text = "".join(texts)
    old, new = (tokenize(library, [text])[0] for library in libraries)
    windows = list(cut_windows(text, (old, new), 16))
    for side, (library, is_put) in enumerate(zip(libraries, puts, strict=True)):
        ids = [window.ids[side][: window.stop[side]] for window in windows]
        start, end = ([9], [8]) if is_put else ([], [])
        read = [number for each in ids for number in each]
        assert read == (start if text else []) + library.encode(text, add_special_tokens=False).ids
        for window in windows:
            counted = window.ids[side][window.first[side] : window.stop[side]]
            assert len(library.decode(counted, skip_special_tokens=False).encode()) == window.text_bytes
            assert list(window.ids[side][window.stop[side] :]) == end
            assert len(window.ids[side]) <= 16
            assert 0 < window.first[side] <= window.stop[side]
    if windows and all(puts):
        assert windows[0].first == (1, 1)


def test_checks_stay_when_migrations_are_squashed(tmp_path: Path) -> None:
    here = make_checked(tmp_path, "a", kl_at_most=1e-9, tokens_per_byte_at_most=1.0)
    second = {"format": 1, "revision": "second00", "down_revision": "000000000001", "message": "m", "operations": [PAD]}
    (tmp_path / "migrations" / "0002_m.yaml").write_text(json.dumps(second), "utf-8")
    here.asked("lock")
    here.asked("squash", "000000000001:second00", "-m", "Both")
    (migration,) = (tmp_path / "migrations").glob("0*.yaml")
    assert "kl_at_most" in migration.read_text("utf-8")
    assert "the KL on a sample.txt is" in here.run("upgrade").stderr


def test_the_page_on_evaluate_and_the_report(tmp_path: Path) -> None:
    made = make_workspace(tmp_path / "w")
    page = (REPOSITORY / "docs" / "evaluate.md").read_text("utf-8")
    commands, output = re.findall(r"^```(?:bash)?\n(.*?)^```$", page, re.S | re.M)[:2]
    here = Workspace(made.root)
    (texts,) = re.findall(r"<<'END'\n(.*?)^END$", commands, re.S | re.M)
    (made.root / "texts.jsonl").write_text(texts, "utf-8")
    typed = [here.run(*line.split()[1:]) for line in commands.splitlines() if line.startswith("tokmigrate")]
    words = [re.sub(r"[-+0-9.]+", "0", each).split() for each in (output, typed[0].stdout, typed[2].stdout)]
    assert words[0] == words[1] == words[2]
    figures = here.asked("evaluate", "--corpus", "texts.jsonl")
    found = here.asked("report")["models"][0]["evaluation"]
    assert found["is_current"]
    assert found["divergence"] == figures["divergence"]
    html = (made.root / ".tokmigrate/reports/report-demo.html").read_text("utf-8")
    assert "text with new tokens" in html
    assert "has changed since" not in html
    kept = made.root / ".tokmigrate/evaluations/demo.json"
    as_kept = kept.read_text("utf-8")
    for edited in ("[]", "{}", '{"measurement": {}}', as_kept.replace('"digest": "', '"digest": "0'), as_kept[:-9]):
        kept.write_text(edited, "utf-8")
        assert here.asked("report")["models"][0]["evaluation"] is None
    kept.write_text(as_kept, "utf-8")
    shard = next(made.model.glob("*.safetensors"))
    tensors = load_file(shard)
    name = next(name for name in sorted(tensors) if "embed" in name or "mlp" in name)
    tensors[name][3] += 1
    save_file(tensors, shard, metadata={"format": "pt"})
    assert not here.asked("report")["models"][0]["evaluation"]["is_current"]
    assert "has changed since" in (made.root / ".tokmigrate/reports/report-demo.html").read_text("utf-8")
    # The undo data has no body of the model.
    assert "trained or saved again since" in here.run("evaluate", "--corpus", "texts.jsonl").stdout
