"""Make the demo model: a byte-level BPE tokenizer and a tiny Llama, both trained on models/demo-text.txt.

    python scripts/make_demo_model.py [--output DIR]

The same machine and library versions give the same bytes. The model knows its text almost by heart on
purpose: a row of the embedding matrix that lands in the wrong place shows at once in the loss.
"""

import argparse
import math
import os
import re
import shutil
import tempfile
from pathlib import Path

# Before torch and tokenizers are loaded, which read these when they start.
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

ROOT = Path(__file__).resolve().parents[1]
TEXT = ROOT / "models" / "demo-text.txt"

END = "<|endoftext|>"
VOCAB_SIZE = 1024
CONTEXT = 256
SEED = 20240229
STEPS = 420
WARMUP = 30
BATCH = 8
LEARNING_RATE = 3e-3
# About half of the weights, so that the input and the output embeddings lie in different shards.
SHARD_SIZE = "1100KB"
FILES = frozenset(
    {
        "config.json",
        "generation_config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
)


def train_tokenizer(documents: list[str]) -> PreTrainedTokenizerFast:
    """Learn the merges: one special token, 256 bytes, and as many merges as fill the vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    if tokenizer.get_vocab_size() != VOCAB_SIZE:
        raise RuntimeError(f"the text gives {tokenizer.get_vocab_size()} tokens, not {VOCAB_SIZE}")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        model_max_length=CONTEXT,
        # Decoding gives back the text as it was, without "tidied" spaces before punctuation.
        clean_up_tokenization_spaces=False,
    )


def new_model(end_id: int) -> LlamaForCausalLM:
    """A Llama with random weights, its head not tied to its embeddings."""
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=end_id,
        eos_token_id=end_id,
        pad_token_id=None,
    )
    return LlamaForCausalLM(config)


def learning_rate_factor(step: int) -> float:
    """Linear warm-up, then a cosine down to a fiftieth."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    progress = (step - WARMUP) / (STEPS - WARMUP)
    return 0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * progress))


def train_model(model: LlamaForCausalLM, stream: torch.Tensor) -> None:
    """Train on windows that begin anywhere in the stream; the stream is read as a ring."""
    generator = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor)
    model.train()
    for step in range(STEPS):
        starts = torch.randint(len(stream), (BATCH, 1), generator=generator)
        batch = stream[(starts + torch.arange(CONTEXT)) % len(stream)]
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 60 == 0 or step == STEPS - 1:
            print(f"step {step + 1:4d}  loss {loss.item():.4f}", flush=True)


def mean_loss(model: LlamaForCausalLM, stream: torch.Tensor) -> float:
    """Nats per token over the whole stream, each token but the first predicted once."""
    model.eval()
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(stream) - 1, CONTEXT - 1):
            window = stream[start : start + CONTEXT].unsqueeze(0)
            total += model(input_ids=window, labels=window).loss.item() * (window.shape[1] - 1)
    return total / (len(stream) - 1)


def main() -> None:
    """Build everything in a temporary directory and copy it to its place when it is whole."""
    parser = argparse.ArgumentParser(description="Make the demo model from models/demo-text.txt.")
    parser.add_argument("--output", type=Path, default=ROOT / "models" / "demo", metavar="DIR")
    output: Path = parser.parse_args().output
    foreign = {p.name for p in output.iterdir()} - FILES if output.exists() else set()
    if foreign:
        parser.error(f"{output} holds files that this script did not write: {', '.join(sorted(foreign))}")

    disable_progress_bar()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    # Each heading begins a document, and the end token stands between documents.
    documents = re.split(r"\n\n(?=# )", TEXT.read_text(encoding="utf-8").rstrip("\n"))
    tokenizer = train_tokenizer(documents)
    end_id: int = tokenizer.eos_token_id
    # The backend encodes a whole document without a warning that it is longer than the context.
    encode = tokenizer.backend_tokenizer.encode
    stream = torch.tensor([i for text in documents for i in (end_id, *encode(text).ids)])
    print(f"{len(documents)} documents, {len(stream)} tokens")

    model = new_model(end_id)
    print(f"{sum(p.numel() for p in model.parameters())} parameters")
    train_model(model, stream)

    with tempfile.TemporaryDirectory() as directory:
        built = Path(directory)
        model.to(torch.bfloat16).save_pretrained(built, max_shard_size=SHARD_SIZE)
        tokenizer.save_pretrained(built)
        names = {p.name for p in built.iterdir()}
        if names != FILES:
            raise RuntimeError(f"unexpected set of files: {', '.join(sorted(names ^ FILES))}")
        # Measured on what was saved, so the figure includes the rounding to bfloat16.
        loss = mean_loss(LlamaForCausalLM.from_pretrained(built, dtype=torch.float32), stream)
        output.mkdir(parents=True, exist_ok=True)
        for name in sorted(names):
            shutil.copyfile(built / name, output / name)
            (output / name).chmod(0o644)
    print(f"loss {loss:.4f} nats per token, perplexity {math.exp(loss):.3f}")


if __name__ == "__main__":
    main()
