"""The libraries load what a change leaves before it is published, and what they load now where that is wrong."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers
from making import Made, llama, tokenizer_json, workspace, write_json
from real_tokenizers import DATA
from shared_models import SharedModel, shared_model
from workspaces import contents, edit

import tokmigrate
from tokmigrate.apply.candidate import Documents, stage_files
from tokmigrate.apply.library_check import verify_documents
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import VerificationError
from tokmigrate.events import ActivityStarted, Event, Warned
from tokmigrate.model.documents.pipeline_overrides import find_added_on_loading
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.model.tokenizer.tokenizer_json import Tokenizer
from tokmigrate.settings import ModelEntry
from tokmigrate.vocabulary.row_edit import RowEdit

ADD = {"operations": [{"add_tokens": {"tokens": ["<new>"]}}]}
FLORENCE = DATA / "cases" / "wild" / "bart-alias-florence2"


def with_settings(model: Path, **settings: Any) -> Path:
    """Give a model's tokenizer_config.json other settings."""
    held = json.loads((model / "tokenizer_config.json").read_text("utf-8"))
    write_json(model / "tokenizer_config.json", held | settings)
    return model


def with_own_token(folder: Path) -> Path:
    """Make a model to which transformers adds a token on loading: a Cohere tokenizer with a Qwen2 config."""
    model = with_settings(llama(folder), tokenizer_class="CohereTokenizer")
    config = json.loads((model / "config.json").read_text("utf-8"))
    write_json(model / "config.json", config | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]})
    return model


def full(made: Made) -> None:
    """Have a workspace verify with transformers."""
    path = made.root / "tokmigrate.yaml"
    edit(path, '"fast"', '"full"')


def snapshot_of(model: Path) -> Snapshot:
    return take_snapshot(ModelEntry("m", model))


def refused(snapshot: Snapshot, documents: Documents) -> VerificationError:
    with pytest.raises(VerificationError) as raised:
        verify_documents(snapshot, documents, (), "full")
    return raised.value


def after(snapshot: Snapshot, **parts: Any) -> Documents:
    """Return the files of a model whose tokenizer.json has other parts."""
    document = snapshot.state.documents["tokenizer.json"] | parts
    return Documents(
        {"tokenizer.json": json.dumps(document).encode()}, RowEdit.identity(snapshot.state.rows), Tokenizer(document)
    )


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A workspace with a model `sound`, and one that transformers adds a token to, `odd`, which comes second."""
    root = tmp_path_factory.mktemp("fleet")
    models = {"a-sound": llama(root / "a"), "b-odd": with_own_token(root / "b")}
    made = workspace(root / "w", models, [ADD])
    full(made)
    return made


def test_no_model_is_changed_where_the_libraries_refuse_another(fleet: Made, tmp_path: Path) -> None:
    sound = fleet.entry("a-sound").path
    before = contents(sound)
    done = fleet.run("upgrade")
    assert done.returncode == 1
    assert "both before and after the change, transformers gives 1 tokens other ids: {'<|endoftext|>'" in done.stderr
    assert "`verify: fast` in tokmigrate.yaml" in done.stderr
    assert done.stderr.endswith("done: none; failed: b-odd; not tried: a-sound\n")
    assert contents(sound) == before
    with_others = shutil.copytree(fleet.root.parent, tmp_path / "copy")
    copied = workspace(with_others / "w", {"a-sound": with_others / "a", "b-odd": with_others / "b"}, [ADD])
    full(copied)
    going = copied.run("upgrade", "--keep-going")
    assert going.returncode == 1
    assert going.stderr.endswith("done: a-sound; failed: b-odd; not tried: none\n")
    # What the hint names lets the other one through.
    copied = workspace(with_others / "w", {"a-sound": with_others / "a", "b-odd": with_others / "b"}, [ADD])
    assert copied.run("upgrade").returncode == 0


def test_what_transformers_adds_is_reported_before_anything_is_verified(fleet: Made) -> None:
    for command in ("plan", "status"):
        done = fleet.run(command, "-M", "b-odd")
        assert done.returncode == 0
        assert "transformers adds '<|endoftext|>' when it loads the tokenizer" in " ".join(done.stdout.split())
        assert "transformers adds" not in fleet.run(command, "-M", "a-sound").stdout


def test_migrations_are_tried_with_what_an_upgrade_verifies_with(fleet: Made) -> None:
    done = fleet.run("test", "-M", "b-odd")
    assert done.returncode == 1
    assert "transformers gives 1 tokens other ids" in done.stderr
    passed = fleet.run("test", "-M", "a-sound")
    assert passed.returncode == 0
    assert "tokenizers and transformers load it as planned" in passed.stdout


def test_the_libraries_are_asked_once_for_each_of_several_models(tmp_path: Path) -> None:
    made = workspace(tmp_path / "w", {name: llama(tmp_path / name) for name in "ab"}, [ADD])
    heard: list[Event] = []
    with tokmigrate.open(made.root) as place:
        place.upgrade(on_progress=heard.append)
        place.downgrade("base", on_progress=heard.append)
    started = [each for each in heard if isinstance(each, ActivityStarted)]
    assert [each.model for each in started if each.activity.startswith("verifying")] == ["a", "b"] * 2


@pytest.fixture
def roberta(tmp_path: Path) -> Snapshot:
    """A model whose class builds its pipeline, under another name; no operation leaves such a class beside a change."""
    model = llama(tmp_path / "m", spare=3)
    write_json(model / "tokenizer.json", tokenizer_json(("<s>", "</s>", "<pad>", "<unk>", "<mask>")))
    return snapshot_of(with_settings(model, tokenizer_class="BartTokenizer"))


def test_a_change_that_transformers_ignores_is_refused(roberta: Snapshot) -> None:
    error = refused(roberta, after(roberta, normalizer={"type": "NFKC"}))
    assert error.message == (
        "transformers ignores the change of the normalizer: its RobertaTokenizer builds that itself"
    )


def test_an_ignored_change_of_a_part_that_was_not_read_before_is_named(roberta: Snapshot) -> None:
    part = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    named = verify_documents(roberta, after(roberta, post_processor=part), (), "full")
    assert named[0] == "transformers ignores the change of the post_processor: its RobertaTokenizer builds that itself"


def test_what_transformers_could_not_load_before_is_not_the_migrations_fault(tmp_path: Path) -> None:
    model = with_settings(llama(tmp_path / "m"), tokenizer_class="MarianTokenizer")
    made = workspace(tmp_path / "w", {"m": model}, [ADD])
    full(made)
    for command in ("plan", "status"):
        said = " ".join(made.run(command).stdout.split())
        assert "cannot load the tokenizer: MarianTokenizer needs source.spm, target.spm, vocab.json" in said
    before = contents(model)
    done = made.run("upgrade")
    assert done.returncode == 1
    assert "both before and after the change, transformers cannot load the tokenizer" in done.stderr
    assert "the migration is not the cause" in done.stderr
    assert "`verify: fast`" in done.stderr
    assert contents(model) == before


def test_what_transformers_cannot_load_after_it_is_the_changes_fault(tmp_path: Path) -> None:
    snapshot = snapshot_of(llama(tmp_path / "m"))
    settings = snapshot.state.documents["tokenizer_config.json"] | {"tokenizer_class": "MarianTokenizer"}
    documents = replace(after(snapshot), files={"tokenizer_config.json": json.dumps(settings).encode()})
    error = refused(snapshot, documents)
    assert error.message.startswith("transformers cannot load the tokenizer: ")
    assert str(error.hint).endswith("it is not so before the change")


def small(made: SharedModel) -> SharedModel:
    """Give a model a config that transformers builds a model of."""
    sizes = {"num_attention_heads": 1, "num_key_value_heads": 1, "intermediate_size": 8, "num_hidden_layers": 1}
    write_json(made.directory / "config.json", made.json("config.json") | sizes)
    return made


def test_a_difference_that_was_there_before_is_named(tmp_path: Path) -> None:
    made = small(shared_model(tmp_path, "mistral-chat-small"))
    made.write("- add_tokens: {tokens: ['<new>']}")
    heard: list[Event] = []
    upgrade(replace(made.workspace, verify="full"), made.entry, on_progress=heard.append)
    (told,) = [each.message for each in heard if isinstance(each, Warned)]
    assert told.startswith("transformers' LlamaTokenizer tokenizes ' leading, trailing ' and ")
    assert told.endswith("differently from tokenizer.json, both before and after the change")


def test_a_normalizer_set_for_a_class_under_another_name_has_its_effect(tmp_path: Path) -> None:
    if not FLORENCE.is_dir():
        pytest.skip(f"no shared case at {FLORENCE}")
    made = small(shared_model(tmp_path, FLORENCE.name, source=FLORENCE))
    made.write("- set_normalizer: {normalizer: {type: NFKC}}")
    upgrade(replace(made.workspace, verify="full"), made.entry)
    loaded = transformers.AutoTokenizer.from_pretrained(made.directory)
    assert loaded("\uff46\uff55\uff4c\uff4c", add_special_tokens=False) == loaded("full", add_special_tokens=False)


@pytest.mark.parametrize(
    "settings",
    [
        {"tokenizer_class": "GPT2Tokenizer"},
        {"tokenizer_class": "BartTokenizerFast", "mask_token": None},
        {"pad_token": "<pad>", "unk_token": "<unk>"},
        {"tokenizer_class": "Qwen2Tokenizer", "pad_token": "<pad>"},
        {"extra_special_tokens": ["<x>"], "added_tokens_decoder": {"300": {"content": "<y>", "special": True}}},
    ],
    ids=["gpt2", "alias", "roles", "qwen2", "lists"],
)
def test_the_tokens_that_transformers_adds_are_foretold(settings: dict[str, Any], tmp_path: Path) -> None:
    model = with_settings(llama(tmp_path / "m"), **settings)
    snapshot = snapshot_of(model)
    added = transformers.AutoTokenizer.from_pretrained(model).get_vocab().keys() - snapshot.state.tokenizer.ids.keys()
    assert added
    assert {told.split("'")[1] for told in find_added_on_loading(snapshot.state)} == added


def test_a_file_behind_a_link_is_not_written_into_the_model(tmp_path: Path) -> None:
    model = llama(tmp_path / "m")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "config.json").write_text("{}", "utf-8")
    (model / "1_Pooling").symlink_to(tmp_path / "elsewhere")
    snapshot = snapshot_of(model)
    documents = replace(after(snapshot), files={"1_Pooling/config.json": b'{"a": 1}', "generation_config.json": None})
    before = contents(tmp_path)
    with stage_files(snapshot, documents) as directory:
        assert (directory / "1_Pooling" / "config.json").read_bytes() == b'{"a": 1}'
        assert not (directory / "generation_config.json").exists()
        assert (directory / "config.json").read_bytes() == (model / "config.json").read_bytes()
    assert contents(tmp_path) == before


def test_a_class_that_reads_the_file_afterwards_is_named(tmp_path: Path) -> None:
    model = with_settings(llama(tmp_path / "m"), tokenizer_class="GPT2Tokenizer", unk_token="</s>")
    held = tokenizer_json()
    write_json(model / "tokenizer.json", held | {"pre_tokenizer": held["pre_tokenizer"] | {"add_prefix_space": True}})
    normalizer = {"operations": [{"set_normalizer": {"normalizer": {"type": "NFKC"}}}]}
    made = workspace(tmp_path / "w", {"m": model}, [normalizer])
    heard: list[Event] = []
    upgrade(replace(made.workspace, verify="full"), made.entry("m"), on_progress=heard.append)
    told = [each.message for each in heard if isinstance(each, Warned)]
    assert told[0].startswith("transformers' GPT2Tokenizer tokenizes 'The quick ")
    assert told[0].endswith(" differently from tokenizer.json before the change, and not after it")
