"""What each way to initialise new rows does to old text, and how good the rows are after so many steps of training.

    python benchmarks/initialisation.py DIRECTORY --model NAME=MODEL=TEXT … [--encoder NAME=MODEL] [--tokens 64]
        [--steps 0 20 100] [--train ROWS …] [--distil 20 100] [--seeds 1] [--learn-rate 0.02] [--mergekit PYTHON]

A decoder learns merges from TEXT with `learn extend`, an encoder gets words of docstrings with `add_words`; tokmigrate
makes the rows of each strategy. Of a decoder the table has the KL divergence on text without new tokens beside the
bound of `mean`, and nats per byte of held-out text before and after so many steps that train the new rows alone; of an
encoder the cosine of sentence embeddings to those before. MODEL is a directory or a GGUF file, TEXT a file or a folder
with Python sources. What is in DIRECTORY already is not measured again. Models run on a GPU where there is one; the
last line says where, how long and in how much memory.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from encoder import measure_encoder
from new_rows import INITS, NewTokens, Rows, distil_rows, run_mergekit
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy, softplus
from transformers import AutoModelForCausalLM, AutoTokenizer
from transplant import encode, read_text

from tokmigrate.model.tokenizer.library import open_tokenizer
from tokmigrate.model.tokenizer.tokenizer_json import FILE

CONTEXT = 64
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
OLD_TEXT = Path(__file__).parents[1] / "docs"
RESIZED = {"transformers, mean_resizing": True, "transformers, mean_resizing=False": False}
"""The ways in the picture."""


@dataclass(frozen=True)
class Texts:
    """What tokens and rows are learned from, what they are measured on, and text of another kind."""

    learnt: list[str]
    held: list[str]
    old: list[str]


def read_texts(source: Path, size: int) -> Texts:
    """Return texts of a folder with Python sources, or of a file, whose every eighth paragraph is held out.

    Of what is held out there are `size` letters at most.
    """
    old = [path.read_text("utf-8")[:3000] for path in sorted(OLD_TEXT.glob("*.md"))]
    if source.is_dir():
        learnt, held = read_text(source, 2 << 20)
        return Texts(learnt, ["\n".join(held)[:size]], old)
    paragraphs = source.read_text("utf-8").split("\n\n")
    held = [paragraph for place, paragraph in enumerate(paragraphs) if place % 8 == 7]
    return Texts([each for place, each in enumerate(paragraphs) if place % 8 != 7], ["\n\n".join(held)[:size]], old)


def convert_gguf(file: Path, directory: Path) -> None:
    """Write the model of a GGUF file as transformers has it, in float32."""
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(directory)


class Decoder:
    """A language model whose body and old rows are frozen, with new rows beside."""

    def __init__(self, directory: Path, new: Sequence[int]) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        self.model.requires_grad_(False)
        self.input = self.model.get_input_embeddings().weight
        self.output = self.model.get_output_embeddings().weight
        self.tied = self.output is self.input
        self.size = len(self.input)
        # New tokens may have ids of spare rows.
        self.places = {number: self.size + place for place, number in enumerate(new)}
        self.is_large = self.model.config.hidden_size >= 512

    def encode(self, directory: Path, texts: list[str]) -> torch.Tensor:
        """Return the ids of texts as windows, `(windows, CONTEXT)`; new tokens come behind all rows."""
        ids = torch.tensor([self.places.get(number, number) for number in encode(directory, texts).tolist()])
        return ids[: len(ids) // CONTEXT * CONTEXT].reshape(-1, CONTEXT)

    def hidden(self, ids: torch.Tensor, rows: Rows) -> torch.Tensor:
        place = (ids - self.size).clamp(min=0)
        embeds = self.input[ids.clamp(max=self.size - 1)]
        embeds = torch.where((ids >= self.size)[..., None], rows["input"][place], embeds)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.is_large):
            return self.model.model(inputs_embeds=embeds).last_hidden_state

    def loss(self, ids: torch.Tensor, rows: Rows) -> torch.Tensor:
        """Return the mean loss in nats per token."""
        hidden = self.hidden(ids, rows)[:, :-1].flatten(0, 1)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.is_large):
            logits = torch.cat([hidden @ self.output.T, hidden @ rows.get("output", rows["input"]).T], 1)
        return cross_entropy(logits.float(), ids[:, 1:].flatten())

    @torch.no_grad()
    def nats_per_byte(self, windows: torch.Tensor, size: int, rows: Rows) -> float:
        return sum(self.loss(ids, rows).item() * ids.numel() for ids in windows.split(8)) / size

    @torch.no_grad()
    def read_old(self, windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return hidden states of text without new tokens, and the logarithm of the old partition function of each."""
        none = {"input": self.input[:1]}
        hidden = torch.cat([self.hidden(ids, none).float().flatten(0, 1) for ids in windows.split(8)])
        return hidden, torch.cat([torch.logsumexp(part @ self.output.T, 1) for part in hidden.split(256)])

    @torch.no_grad()
    def divergence(self, old: tuple[torch.Tensor, torch.Tensor], rows: Rows) -> float:
        """Return the mean KL divergence in nats: new rows only add to the partition function."""
        added = torch.logsumexp(old[0] @ rows.get("output", rows["input"]).T, 1)
        return softplus(added - old[1]).double().mean().item()

    def resize(self, directory: Path, count: int, mean_resizing: bool, seed: int) -> Rows:
        """Return the rows that `resize_token_embeddings` makes."""
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        model.resize_token_embeddings(self.size + count, mean_resizing=mean_resizing)
        layers = {"input": model.get_input_embeddings(), "output": model.get_output_embeddings()}
        return {side: layers[side].weight[self.size :].detach() for side in (["input"] if self.tied else layers)}


def train_rows(
    model: Decoder, rows: Rows, windows: torch.Tensor, steps: Sequence[int], rate: float, batch: int, seed: int
) -> Iterator[Rows]:
    """Train new rows by the loss of the next token, and yield them after so many steps each."""
    rows = {side: values.clone().requires_grad_() for side, values in rows.items()}
    # A step of Adam moves each number by about the learning rate.
    rates = {"input": model.input, "output": model.output}
    groups = [{"params": [rows[side]], "lr": rate * rates[side].square().mean().sqrt().item()} for side in rows]
    optimizer = torch.optim.Adam(groups)
    # The same windows on every device.
    shuffled = torch.Generator("cpu").manual_seed(seed)
    with_new = windows[(windows >= model.size).any(1)]
    for step in range(max(steps) + 1):
        if step in steps:
            yield {side: values.detach().clone() for side, values in rows.items()}
        if step < max(steps):
            chosen = torch.randint(len(with_new), (batch,), generator=shuffled, device="cpu")
            loss = model.loss(with_new[chosen.to(DEVICE)], rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def measure_decoder(directory: Path, name: str, source: Path, text: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Measure all ways of one decoder, those that were measured before left out, and return all figures."""
    file = directory / f"{name}.json"
    figures: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    texts = read_texts(text, given.held)
    root = directory / name
    if not (root / "rows.json").exists():
        tokens = NewTokens.open(root, source).learn_merges(texts.learnt, given.tokens)
        tied = bool(json.loads((source / "config.json").read_text("utf-8")).get("tie_word_embeddings"))
        made = {each: tokens.make_rows(init) for each, init in tokens.list_inits(tied).items()}
        new = tokens.write_tokenizer()
        if given.mergekit:
            made |= run_mergekit(given.mergekit, tokens, made["mean"])
        for steps in given.distil:
            start = "subtokens, first_piece"
            made[f"distil, {steps} steps"] = distil_rows(tokens, INITS[start], made[start], texts.learnt, steps)
        for place, rows in enumerate(made.values()):
            save_file({side: values.contiguous() for side, values in rows.items()}, root / f"{place}.safetensors")
        (root / "rows.json").write_text(json.dumps({"new": new, "names": [*made]}), "utf-8")
    listed = json.loads((root / "rows.json").read_text("utf-8"))
    made = {each: load_file(root / f"{place}.safetensors", str(DEVICE)) for place, each in enumerate(listed["names"])}
    model = Decoder(source, listed["new"])
    size = sum(len(each.encode()) for each in texts.held)
    windows, held = model.encode(root, texts.learnt), model.encode(root, texts.held)
    old = model.read_old(model.encode(source, texts.old)[:32])
    none = {"input": model.input[:1], "output": model.output[:0]}
    tokens, total = open_tokenizer(source / FILE).get_vocab_size(), len(listed["new"])
    figures |= {
        "before": model.nats_per_byte(model.encode(source, texts.held), size, none),
        "bound": math.log1p(total / tokens),
        "new": total,
        "tokens": tokens,
        "shorter": len(encode(root, texts.held)) / len(encode(source, texts.held)) - 1,
    }
    runs: dict[str, Any] = figures.setdefault("runs", {})
    rate = given.learn_rate
    for seed in range(given.seeds):
        for each in (*made, *RESIZED):
            key = f"{each}|{seed}"
            steps = given.steps if each in (given.train or (each,)) else given.steps[:1]
            if {*map(str, steps)} <= {*runs.get(key, ())}:
                continue
            rows = made.get(each) or model.resize(source, total, RESIZED[each], seed)
            runs[key] = {}
            for step, trained in zip(
                steps, train_rows(model, rows, windows, steps, rate, given.batch, seed), strict=True
            ):
                runs[key][str(step)] = model.nats_per_byte(held, size, trained), model.divergence(old, trained)
            file.write_text(json.dumps(figures, indent=1), "utf-8")
            print(key, runs[key], file=sys.stderr, flush=True)
    return figures


def averages(figures: Mapping[str, Any]) -> dict[str, dict[int, tuple[float, float]]]:
    """Return for each way, by the steps, nats per byte and the divergence, as means over the seeds."""
    by_way: dict[str, list[dict[str, tuple[float, float]]]] = {}
    for key, found in figures["runs"].items():
        by_way.setdefault(key.split("|")[0], []).append(found)
    return {
        way: {int(step): (mean(f[step][0] for f in found), mean(f[step][1] for f in found)) for step in found[0]}
        for way, found in by_way.items()
    }


def table(name: str, figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of one decoder in Markdown."""
    ways = averages(figures)
    steps = sorted({step for found in ways.values() for step in found})
    yield f"**{name}**: {figures['new']} new tokens beside {figures['tokens']:,}, {figures['shorter']:+.1%} tokens;"
    yield f"nats per byte before {figures['before']:.4f}; the bound of `mean` is {figures['bound']:.5f} nats.\n"
    titles = [f"nats per byte, {step} steps" if step == steps[0] else f"{step}" for step in steps]
    yield f"| rows | KL on old text | after {steps[-1]} steps | {' | '.join(titles)} |\n|{'---|' * (3 + len(steps))}"
    for way, found in ways.items():
        cells = [f"{found[step][1]:.5f}" if step in found else "" for step in (steps[0], steps[-1])]
        cells += [f"{found[step][0]:.4f}" if step in found else "" for step in steps]
        yield f"| {way} | {' | '.join(cells)} |"


def main() -> None:
    """Measure what was not measured yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--model", nargs="*", default=[], metavar="NAME=MODEL=TEXT")
    parser.add_argument("--encoder", nargs="*", default=[], metavar="NAME=MODEL")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--steps", type=int, nargs="*", default=[0, 20, 100])
    parser.add_argument("--train", nargs="*", metavar="ROWS", help="train these alone")
    parser.add_argument("--distil", type=int, nargs="*", default=[], help="distil for so many steps, from pieces")
    parser.add_argument("--held", type=int, default=40_000, help="the letters that are measured")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--learn-rate", type=float, default=0.02, help="as a share of the size of the old numbers")
    parser.add_argument("--batch", type=int, default=4, help="windows of 64 tokens in a step")
    parser.add_argument("--mergekit", help="a Python that has mergekit")
    given = parser.parse_args()
    given.directory.mkdir(parents=True, exist_ok=True)
    torch.set_default_device(DEVICE)
    start = time.monotonic()
    figures: dict[str, Any] = {}
    for words in given.model:
        name, source, text = re.split("=", words, maxsplit=2)
        source = Path(source)
        if source.suffix == ".gguf":
            converted = given.directory / f"{name}-model"
            if not converted.exists():
                convert_gguf(source, converted)
            source = converted
        figures[name] = measure_decoder(given.directory, name, source, Path(text), given)
        print("\n".join(table(name, figures[name])), end="\n\n", flush=True)
    for words in given.encoder:
        name, _, source = words.partition("=")
        for line in measure_encoder(given.directory / name, name, Path(source), given.tokens, RESIZED):
            print(line, flush=True)
    on_gpu = DEVICE.type == "cuda"
    name = torch.cuda.get_device_name() if on_gpu else "cpu"
    taken = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(f"on {name}: {time.monotonic() - start:.0f} s, {taken / 2**30:.1f} GiB of memory at most")


if __name__ == "__main__":
    main()
