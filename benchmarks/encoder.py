"""How near an encoder's sentence embeddings stay to those before, in sentences whose words become tokens."""

from __future__ import annotations

import ast
import json
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from new_rows import NewTokens
from transformers import AutoModel

from tokmigrate.model.tokenizer.library import open_tokenizer
from tokmigrate.model.tokenizer.tokenizer_json import FILE


def read_sentences() -> list[str]:
    """Return sentences of the docstrings of the standard library."""
    found: dict[str, None] = {}
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                text = " ".join((ast.get_docstring(node) or "").split())
                found |= dict.fromkeys(each for each in re.split(r"(?<=\.) ", text) if 60 <= len(each) <= 200)
    return [*found]


def choose_words(source: Path, sentences: list[str], count: int) -> list[str]:
    """Return the most frequent words of at least three pieces."""
    tokenizer = open_tokenizer(source / FILE)
    words = Counter(word for sentence in sentences for word in set(re.findall(r"\b[a-z]{5,}\b", sentence)))
    long = (word for word, _ in words.most_common() if len(tokenizer.encode(word, add_special_tokens=False).ids) >= 3)
    return [word for word, _ in zip(long, range(count), strict=False)]


@torch.no_grad()
def embed(model: Any, directory: Path, sentences: list[str]) -> torch.Tensor:
    """Return the embeddings of sentences, the mean over their tokens, `(sentences, hidden)` of norm 1."""
    tokenizer = open_tokenizer(directory / FILE)
    found = [model(input_ids=torch.tensor([tokenizer.encode(each).ids])).last_hidden_state[0] for each in sentences]
    return torch.nn.functional.normalize(torch.stack([states.mean(0) for states in found]), dim=1)


def measure_encoder(root: Path, name: str, source: Path, count: int, resized: Mapping[str, bool]) -> Iterator[str]:
    """Yield a table of the cosines of an encoder's sentence embeddings to those before, in sentences with new words.

    Args:
        count: How many words become tokens.
        resized: Names of what `resize_token_embeddings` makes with and without `mean_resizing`.
    """
    sentences = read_sentences()
    words = choose_words(source, sentences, count)
    with_new = [each for each in sentences if set(re.findall(r"\b[a-z]{5,}\b", each)) & {*words}]
    with_new = with_new[:: max(1, len(with_new) // 60)][:60]
    model = AutoModel.from_pretrained(source, dtype=torch.float32).eval()
    before = embed(model, source, with_new)
    operation = f"add_words: {{words: {json.dumps(words)}, init: INIT}}"
    tokens = replace(NewTokens.open(root, source), operation=operation)
    made = {each: tokens.make_rows(init) for each, init in tokens.list_inits(tied=True).items()}
    new = tokens.write_tokenizer()
    size = len(model.get_input_embeddings().weight)
    for each, mean_resizing in resized.items():
        torch.manual_seed(0)
        model.resize_token_embeddings(size + len(new), mean_resizing=mean_resizing)
        made[each] = {"input": model.get_input_embeddings().weight[size:].detach().clone()}
        model.resize_token_embeddings(size)
    model.resize_token_embeddings(size + len(new))
    yield f"**{name}**: {len(new)} new words in {len(with_new)} sentences\n"
    yield "| rows | cosine, mean | least |\n|---|---|---|"
    for each, rows in made.items():
        weight = model.get_input_embeddings().weight
        weight.data[new] = rows["input"].to(weight.device)
        cosines = (embed(model, root, with_new) * before).sum(1)
        yield f"| {each} | {cosines.mean():.3f} | {cosines.min():.3f} |"
