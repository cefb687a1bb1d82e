"""The demo with the repository's own migrations and full verification: up, used by transformers, and back."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from workspaces import HEAD, REPOSITORY, Image, image, make_workspace

TEXT = REPOSITORY / "models" / "demo-text.txt"
START, END, PAD = "<|im_start|>", "<|im_end|>", "<|pad|>"
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
OLD_TOKENS, ROWS = 1024, 1088
WINDOW, WINDOWS = 128, 12


@dataclass(frozen=True)
class Story:
    """The demo after the commands.

    Args:
        base: A copy of it before.
        head: A copy of it after `upgrade`.
        images: What the model was before, after `upgrade`, after another one, and after `downgrade base`.
        inodes: The files' numbers after `upgrade`, and after another one.
        said: What the commands printed.
    """

    base: Path
    head: Path
    images: tuple[Image, Image, Image, Image]
    inodes: tuple[dict[str, int], dict[str, int]]
    said: tuple[str, str, str]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("demo")
    made = make_workspace(folder / "workspace")
    made.settings.write_text(made.settings.read_text("utf-8").replace("verify: fast", "verify: full"), "utf-8")
    shutil.copytree(made.model, folder / "base")
    images, inodes, said = [image(made.model)], [], []
    for number, words in enumerate((["upgrade"], ["upgrade"], ["downgrade", "base"])):
        done = made.run(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        said.append(done.stdout)
        images.append(image(made.model))
        inodes.append({path.name: path.stat().st_ino for path in (made.model, *made.model.iterdir())})
        if number == 0:
            shutil.copytree(made.model, folder / "head")
    assert not made.left_over()
    return Story(
        folder / "base",
        folder / "head",
        (images[0], images[1], images[2], images[3]),
        (inodes[0], inodes[1]),
        (said[0], said[1], said[2]),
    )


def tokenizer_of(directory: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(directory)


def model_of(directory: Path) -> Any:
    model, found = transformers.AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
    assert not any(found[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def windows(directory: Path) -> torch.Tensor:
    """Return the beginning of the text that the demo was trained on, `(windows, tokens)`."""
    ids = tokenizer_of(directory)(TEXT.read_text("utf-8"), add_special_tokens=False)["input_ids"]
    return torch.tensor(ids[: WINDOW * WINDOWS]).reshape(WINDOWS, WINDOW)


def losses(directory: Path, text: torch.Tensor) -> torch.Tensor:
    """Return the loss of every next token in nats, in float64."""
    model = model_of(directory).double()
    with torch.no_grad():
        logits = model(text).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten(), reduction="none")


def test_every_file_that_a_program_reads_is_in_step(story: Story) -> None:
    tokenizer = tokenizer_of(story.head)
    model = model_of(story.head)
    assert tokenizer.convert_tokens_to_ids([START, END, PAD]) == [OLD_TOKENS, OLD_TOKENS + 1, OLD_TOKENS + 2]
    assert len(tokenizer) == OLD_TOKENS + 3
    assert model.config.vocab_size == ROWS
    assert model.get_input_embeddings().weight.shape[0] == ROWS
    assert model.get_output_embeddings().weight.shape[0] == ROWS
    assert (tokenizer.pad_token, tokenizer.padding_side) == (PAD, "left")
    assert model.config.pad_token_id == model.generation_config.pad_token_id == tokenizer.pad_token_id
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == (END, OLD_TOKENS + 1)
    for eos in (model.config.eos_token_id, model.generation_config.eos_token_id):
        assert (eos[0] if isinstance(eos, list) else eos) == tokenizer.eos_token_id


def test_the_chat_template_uses_the_new_tokens_as_single_ids(story: Story) -> None:
    tokenizer = tokenizer_of(story.head)
    text = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    ids = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert text.startswith(f"{START}system\nBe brief.{END}\n{START}user\nHello{END}\n")
    assert ids.count(OLD_TOKENS) == text.count(START) == 3
    assert ids.count(OLD_TOKENS + 1) == text.count(END) == 2
    assert tokenizer.decode(ids) == text
    assert len(tokenizer_of(story.base)(text)["input_ids"]) > len(ids)


def test_a_batch_is_padded_on_the_left_to_a_multiple(story: Story) -> None:
    tokenizer = tokenizer_of(story.head)
    batch = tokenizer(["Hello", "Hello, how are you today?"], padding=True, pad_to_multiple_of=8)
    assert {len(ids) for ids in batch["input_ids"]} == {-(-max(map(sum, batch["attention_mask"])) // 8) * 8}
    for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        assert mask == sorted(mask)
        assert [number == tokenizer.pad_token_id for number in ids] == [not seen for seen in mask]
    model = model_of(story.head)
    with torch.no_grad():
        logits = model(
            **{name: torch.tensor(value) for name, value in batch.items() if "token_type" not in name}
        ).logits
    assert torch.isfinite(logits[:, -1]).all()


def test_old_text_is_tokenized_as_before(story: Story) -> None:
    text = TEXT.read_text("utf-8")
    assert tokenizer_of(story.head)(text)["input_ids"] == tokenizer_of(story.base)(text)["input_ids"]


def test_the_loss_on_old_text_rises_by_no_more_than_the_mean_allows(story: Story) -> None:
    text = windows(story.base)
    rise = losses(story.head, text) - losses(story.base, text)
    bound = math.log(1 + (ROWS - OLD_TOKENS) / OLD_TOKENS)
    # New rows can only take probability. The bound is on exact means; the rows are rounded to bfloat16.
    assert rise.min() > -1e-6
    assert rise.max() <= bound + 1e-6
    assert 0 < rise.mean() <= bound


def test_rows_of_old_tokens_are_the_same_bits(story: Story) -> None:
    found = []
    for path in sorted(story.base.glob("*.safetensors")):
        old, new = load_file(path), load_file(story.head / path.name)
        assert old.keys() == new.keys()
        for name, was in old.items():
            assert torch.equal(new[name][: len(was)], was)
            found += [name] if len(new[name]) == ROWS else []
            assert len(new[name]) in (len(was), ROWS)
    assert sorted(found) == ["lm_head.weight", "model.embed_tokens.weight"]


def test_a_second_upgrade_touches_nothing(story: Story) -> None:
    assert HEAD[:4] in story.said[0]
    assert "nothing" in story.said[1].lower()
    assert story.inodes[0] == story.inodes[1]
    assert story.images[1] == story.images[2]


def test_downgrade_restores_every_byte_mode_and_time(story: Story) -> None:
    before, upgraded, _, after = story.images
    assert "tokmigrate.json" in upgraded
    assert upgraded != before
    assert after == before
