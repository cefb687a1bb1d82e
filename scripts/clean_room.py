"""Use an installed tokmigrate as a new user does: init, a model, a migration, upgrade, report, downgrade.

    cd EMPTY-FOLDER && ENVIRONMENT/bin/python clean_room.py

It needs nothing of the repository. The model has random weights and is made with the installed libraries.
"""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

END = "</s>"
OPERATIONS = """\
operations:
  - add_tokens:
      tokens:
        - {content: "<tool_call>", special: true, init: {strategy: description, text: "a call of a tool"}}
        - {content: "</tool_call>", special: true}
verify:
  - single_token: "<tool_call>"
"""


def make_model(folder: Path) -> None:
    """Write a byte-level BPE and a Llama of two layers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: PLC0415
    from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415

    disable_progress_bar()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([__doc__ or ""], trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id(END),
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def run(*words: str, code: int = 0) -> None:
    """Run a command and print it with its output; another exit code ends the script."""
    print(f"$ {' '.join(words)}", flush=True)
    done = subprocess.run([str(Path(sys.executable).with_name(words[0])), *words[1:]], check=False)
    if done.returncode != code:
        sys.exit(f"exit code {done.returncode}, expected {code}")


def digest(folder: Path) -> dict[str, str]:
    """Return the digest of each file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def replace(pattern: str, text: str, path: Path) -> None:
    """Edit a file as a user would."""
    found, count = re.subn(pattern, text.replace("\\", r"\\"), path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    if count != 1:
        sys.exit(f"{path}: {count} places for {pattern}")
    path.write_text(found, "utf-8")


def main() -> None:
    """Do what the README describes."""
    model = Path("mine")
    make_model(model)
    before = digest(model)
    run("tokmigrate", "init")
    replace(r"^models:$", "models:\n  mine: {path: mine}", Path("tokmigrate.yaml"))
    run("tokmigrate", "doctor")
    run("tokmigrate", "revision", "-m", "Add tool tokens")
    (migration,) = Path("migrations").glob("0001_*.yaml")
    replace(r"^operations:\n.*", OPERATIONS, migration)
    run("tokmigrate", "lock")
    run("tokmigrate", "validate")
    run("tokmigrate", "plan")
    run("tokmigrate", "check", code=3)
    run("tokmigrate", "upgrade")
    run("tokmigrate", "check")
    if digest(model) == before:
        sys.exit("the upgrade changed nothing")
    run("tokmigrate", "report")
    run("python", "-m", "tokmigrate", "downgrade", "base")
    if digest(model) != before:
        sys.exit("the downgrade did not restore the bytes")
    print(f"every byte of the {len(before)} files is back")


if __name__ == "__main__":
    main()
