"""Compare `learn prune`, `plan` and `upgrade` with trimbed on the same models, corpora and numbers of tokens.

    python benchmarks/prune.py DIRECTORY --trimbed PYTHON [--rounds N]

DIRECTORY holds for each case a folder with `model`, a model without a stamp, `corpus.txt` and `held_out.txt`; its name
ends in the number of tokens to keep, as in `t5-10000`. PYTHON is that of an environment with `trimbed[model]`, None of
its checks is switched off, and none of tokmigrate's. Runs are interleaved; the Markdown table has medians.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from measure import Cost, run
from tokmigrate_runs import TOKMIGRATE, make_workspace

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


@dataclass(frozen=True)
class Case:
    """A folder with a model and a corpus, and how many tokens are wanted."""

    folder: Path

    @property
    def tokens(self) -> int:
        return int(self.folder.name.rpartition("-")[2])

    @property
    def work(self) -> Path:
        """Where both work: on the filesystem of the model."""
        return self.folder / "work"


def run_tokmigrate(case: Case) -> dict[str, Cost]:
    """Copy the model, which is not measured, and choose, plan and apply."""
    make_workspace(case.work, {"m": case.work / "model"}, [])
    shutil.copytree(case.folder / "model", case.work / "model")
    corpus, wanted = str(case.folder / "corpus.txt"), str(case.tokens)
    steps = {
        "learn prune": ("learn", "prune", corpus, "--tokens", wanted, "-m", "Prune"),
        "plan": ("plan",),
        "upgrade": ("upgrade",),
    }
    return {name: run((*TOKMIGRATE, *words), case.work) for name, words in steps.items()}


def run_trimbed(case: Case, python: str) -> dict[str, Cost]:
    """Choose and write a second model."""
    shutil.rmtree(case.work, ignore_errors=True)
    case.work.mkdir()
    dataset = {"path": "text", "data_files": str(case.folder / "corpus.txt")}
    recipe = {
        "model": str(case.folder / "model"),
        "output_dir": str(case.work / "model"),
        "corpus": {"datasets": [dataset]},
        "selection": {"min_count": 1, "max_vocab_size": case.tokens},
    }
    (case.work / "trim.yaml").write_text(json.dumps(recipe))
    words = (python, "-m", "trimbed.cli", "trim", "--config", "trim.yaml")
    return {"trim": run(words, case.work, {**OFFLINE, "HF_HOME": str(case.work / "hf")})}


def count_tokens(case: Case) -> tuple[int, int]:
    """Return how many tokens the new tokenizer has, and how many the held-out text then has."""
    from tokmigrate.model.tokenizer.library import open_tokenizer  # noqa: PLC0415 - memory of what is started

    tokenizer = open_tokenizer(case.work / "model" / "tokenizer.json")
    lines = (case.folder / "held_out.txt").read_text("utf-8").splitlines()
    encodings = tokenizer.encode_batch_fast(lines, add_special_tokens=False)
    return tokenizer.get_vocab_size(), sum(map(len, encodings))


def add_up(steps: Mapping[str, Cost]) -> Mapping[str, Cost]:
    """Return the steps, behind them the sum of time and the peak of memory where there is more than one."""
    costs = [*steps.values()]
    if len(costs) == 1:
        return steps
    seconds, cpu = sum(cost.seconds for cost in costs), sum(cost.cpu for cost in costs)
    memory = max(cost.memory for cost in costs)
    return {**steps, "all": Cost(seconds, cpu, memory, 0, 0, 0)}


def compare(case: Case, python: str, rounds: int) -> list[str]:
    """Return the lines of a table for one model."""
    found: dict[str, list[Cost]] = {}
    made: dict[str, tuple[int, int]] = {}
    for _ in range(rounds):
        for tool in ("trimbed", "tokmigrate"):
            steps = run_trimbed(case, python) if tool == "trimbed" else run_tokmigrate(case)
            made[tool] = _apart(case)
            for name, cost in add_up(steps).items():
                found.setdefault(f"{tool}: {name}", []).append(cost)
    shutil.rmtree(case.work)
    shutil.copytree(case.folder / "model", case.work / "model")
    before = _apart(case)[1]
    lines = [f"| **{case.folder.name}** | | | | | {before:,} |"]
    for name, costs in found.items():
        figures = [median(getattr(cost, field) for cost in costs) for field in ("cpu", "seconds", "memory")]
        tokens, held_out = made[name.partition(":")[0]]
        growth = f"{tokens:,} | {held_out:,} ({held_out / before - 1:+.2%})" if name.endswith(("trim", "all")) else "|"
        lines.append(f"| {name} | {figures[0]:.1f} | {figures[1]:.1f} | {figures[2]:.0f} | {growth} |")
    return lines


def _apart(case: Case) -> tuple[int, int]:
    """Count in a process of its own, so that this one stays small."""
    words = [sys.executable, __file__, str(case.folder), "--count"]
    tokens, held_out = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
    return tokens, held_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=lambda text: Path(text).resolve())
    parser.add_argument("--trimbed", help="the Python of an environment that has trimbed[model]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.count:
        print(json.dumps(count_tokens(Case(options.directory))))
        return
    print("| run | CPU s | wall s | memory MB | tokens | tokens held out |\n|---|---|---|---|---|---|", flush=True)
    for folder in sorted(path.parent for path in options.directory.glob("*/model")):
        print("\n".join(compare(Case(folder), options.trimbed, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
