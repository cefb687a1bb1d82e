"""Rows of new tokens, as each strategy of tokmigrate and mergekit make them; no model is written."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokmigrate_runs import FAST, copy_into_workspace, make_workspace, run_tokmigrate
from transformers import AutoModelForCausalLM

from tokmigrate.apply.new_rows import new_row_bytes, open_tensors
from tokmigrate.commands.plan import plan
from tokmigrate.commands.row_survey import embedding_matrices
from tokmigrate.model.formats.dtype import to_float64
from tokmigrate.model.tokenizer.library import open_tokenizer
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.plan.plan import Plan
from tokmigrate.settings import read_workspace

PHRASE = '{strategy: description, text: " a name in a program"'
INITS = {
    "mean": "{strategy: mean}",
    "mean_cov, scale 1e-9": "{strategy: mean_cov}",
    "mean_cov, scale 1": "{strategy: mean_cov, scale: 1}",
    "interpolate 0.25": "{strategy: interpolate, share: 0.25}",
    "interpolate 0.5": "{strategy: interpolate, share: 0.5}",
    "interpolate 0.75": "{strategy: interpolate, share: 0.75}",
    "subtokens": "{strategy: subtokens}",
    "subtokens, first_piece": "{strategy: subtokens, output: first_piece}",
    "subtokens, norm match": "{strategy: subtokens, norm: match}",
    "input subtokens, output mean": "{input: {strategy: subtokens}, output: {strategy: mean}}",
    "description, one phrase": f"{PHRASE}}}",
    "the same, noise 0.01": f"{PHRASE}, noise: 0.01}}",
    "copy of one token": "{strategy: copy, token: COPIED}",
    "normal": "{strategy: normal}",
    "zeros": "{strategy: zeros}",
}
KIT = {"mergekit, subword": "subword", "mergekit, john_hewitt": "john_hewitt"}

Rows = dict[str, torch.Tensor]
"""The new rows by side; of a model with tied embeddings the input side alone."""


@dataclass(frozen=True)
class NewTokens:
    """A workspace with a model and one operation that adds tokens, with INIT for how their rows begin."""

    root: Path
    source: Path
    operation: str

    @classmethod
    def open(cls, root: Path, source: Path) -> NewTokens:
        return cls(make_workspace(root, {"m": source}, [], FAST), source, "")

    def learn_merges(self, texts: list[str], tokens: int) -> NewTokens:
        """Return the same with merges that are learned from the texts."""
        (self.root / "learn.txt").write_text("\n".join(texts), "utf-8")
        told, _ = run_tokmigrate(
            self.root, "learn", "extend", "learn.txt", "--tokens", str(tokens), "-m", "m", "--json"
        )
        merges = Path(json.loads(told)["merges_file"]).name
        return replace(self, operation=f"extend_vocab: {{merges_file: {merges}, init: INIT}}")

    def plan(self, init: str) -> Plan:
        (self.root / "migrations" / "tokmigrate.lock").unlink(missing_ok=True)
        text = "format: 1\nrevision: '0123456789ab'\ndown_revision: null\nmessage: m\noperations:\n- "
        operation = self.operation.replace("INIT", init)
        (self.root / "migrations" / "0001_m.yaml").write_text(f"{text}{operation}\n", "utf-8")
        workspace = read_workspace(self.root / "tokmigrate.yaml")
        return plan(workspace, workspace.models["m"])

    def list_inits(self, tied: bool) -> dict[str, str]:
        """Return the strategies by the names that the table has."""
        known = self.plan(INITS["mean"]).snapshot.state.tokenizer.ids
        copied = json.dumps(next(token for token in ("Ġthe", "the", *known) if token in known))
        sides = {name for name, init in INITS.items() if init.startswith("{input")}
        return {name: init.replace("COPIED", copied) for name, init in INITS.items() if not (tied and name in sides)}

    def make_rows(self, init: str) -> Rows:
        """Return the rows that an upgrade would write, in the order of their ids; nothing is written."""
        planned = self.plan(init)
        matrices = {tensor.side: tensor for tensor in reversed(embedding_matrices(planned.snapshot))}
        with open_tensors(planned.snapshot) as tensors:
            made = new_row_bytes(planned, tensors, "", {}, {})
            recipes = [recipe for _, recipe in planned.edit.recipes()]
            return {
                side: torch.from_numpy(
                    np.stack([to_float64(made[tensor.name][recipe], tensor.dtype) for recipe in recipes])
                ).float()
                for side, tensor in matrices.items()
            }

    def write_tokenizer(self) -> list[int]:
        """Write the tokenizer with the new tokens into the workspace, and return their ids."""
        planned = self.plan(INITS["mean"])
        (self.root / "tokenizer.json").write_text(json.dumps(planned.final.documents["tokenizer.json"]), "utf-8")
        return sorted(number for number, _ in planned.edit.recipes())


def distil_rows(tokens: NewTokens, init: str, initial: Rows, texts: list[str], steps: int) -> Rows:
    """Return the rows after so many steps of `tokmigrate distil`, in a copy of the model; `init` makes those before."""
    tokens.plan(init)
    root = tokens.root.resolve() / "distil"
    model = copy_into_workspace(root, tokens.source)
    shutil.copytree(tokens.root / "migrations", root / "migrations", dirs_exist_ok=True)
    (root / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    run_tokmigrate(root, "upgrade")
    run_tokmigrate(root, "distil", "--corpus", "texts.jsonl", "--steps", str(steps), "-m", "Distil")
    known = open_tokenizer(model / FILE)
    ids = sorted({*known.get_vocab().values()} - {*open_tokenizer(tokens.source / FILE).get_vocab().values()})
    rows = {side: values.clone() for side, values in initial.items()}
    for side, values in rows.items():
        learned = load_file(root / "migrations" / f"0002_distil.{side}.safetensors")
        for place, number in enumerate(ids):
            # Tokens that do not occur keep their rows.
            values[place] = learned.get(known.id_to_token(number), values[place])
    shutil.rmtree(root)
    return rows


def run_mergekit(python: str, tokens: NewTokens, mean: Rows) -> dict[str, Rows]:
    """Return the rows that mergekit's tokensurgeon makes, which takes the new tokenizer from a model."""
    found: dict[str, Rows] = {}
    donor, out = tokens.root / "donor", tokens.root / "kit"
    shutil.rmtree(donor, ignore_errors=True)
    model = AutoModelForCausalLM.from_pretrained(tokens.source, dtype=torch.float32)
    size = model.config.vocab_size
    model.resize_token_embeddings(size + len(mean["input"]), mean_resizing=False)
    model.save_pretrained(donor)
    for file in ("tokenizer_config.json", "tokenizer.json"):
        shutil.copy((tokens.root if file == "tokenizer.json" else tokens.source) / file, donor)
    for name, method in KIT.items():
        words = [python, "-m", "mergekit.scripts.tokensurgeon", str(tokens.source), str(donor), str(out), "-a", method]
        subprocess.run(words, check=True, capture_output=True)
        made = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
        layers = {"input": made.get_input_embeddings(), "output": made.get_output_embeddings()}
        found[name] = {side: layers[side].weight[size : size + len(mean["input"])].detach() for side in mean}
    return found
