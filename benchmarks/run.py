"""Compare tokmigrate with the usual script, with a copy, and with itself on other work; write tables.

    python benchmarks/run.py DIRECTORY [PART …] [--size NAME …] [--rounds N] [--xfs] [--other CHECKOUT]
        [--mergekit PYTHON] [--skeletoken PYTHON]

DIRECTORY is on the filesystem to measure, with free space of four times the largest model; models are made there
once and kept. The parts are `script`, `growth`, `start` and `fleet`; all without a name. Runs of one table are
interleaved, ratios are medians of pairs of one round. Results go to `DIRECTORY/results`: Markdown and JSON.
With `--xfs` all is done on an XFS image in DIRECTORY, which only root can mount; the image is removed afterwards.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from measure import Cost, middle, ratio, run
from tokmigrate_runs import TOKMIGRATE, make_workspace

from models import SIZES

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent / "models" / "demo"
TWO = '  - add_tokens: {tokens: [{content: "<|planner|>", special: true}, {content: "<|critic|>", special: true}]}\n'


@dataclass(frozen=True)
class Run:
    """One line of a table: a command in a directory, and what must be undone before the next round.

    Args:
        name: What the table calls it.
        words: The command.
        directory: Where it runs.
        environment: Variables that it gets beside those of this process.
        leaves: A path that the run makes, which is removed again.
    """

    name: str
    words: Sequence[str]
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    leaves: Path | None = None


@dataclass(frozen=True)
class Table:
    """The costs of runs that took turns; the first is what the others are compared with."""

    title: str
    costs: Mapping[str, Sequence[Cost]]

    def markdown(self) -> str:
        """Return the table with the median of each figure."""
        first = next(iter(self.costs.values()))
        lines = [
            f"### {self.title}\n",
            "| run | wall s | CPU s | memory MB | read MB | written MB | allocated MB | wall ÷ first |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name, costs in self.costs.items():
            cost = middle(costs)
            figures = f"{cost.seconds:.2f} | {cost.cpu:.2f} | {cost.memory:.0f} | {cost.read:.0f} | {cost.written:.0f}"
            lines.append(f"| {name} | {figures} | {cost.allocated:.0f} | {ratio(costs, first):.2f} |")
        return "\n".join(lines) + "\n"


def take_turns(title: str, runs: Sequence[Run], rounds: int) -> Table:
    """Run each command once a round, in order."""
    costs: dict[str, list[Cost]] = {one.name: [] for one in runs}
    for number in range(rounds):
        for one in runs:
            costs[one.name].append(run(one.words, one.directory, one.environment))
            if one.leaves is not None:
                shutil.rmtree(one.leaves) if one.leaves.is_dir() else one.leaves.unlink()
        print(f"{title}: round {number + 1} of {rounds}", file=sys.stderr)
    return Table(title, costs)


def upgrade_and_back(name: str, workspace: Path, environment: Mapping[str, str] | None = None) -> list[Run]:
    """Return the two runs that change the models of a workspace and give the bytes back."""
    return [
        Run(f"{name}: upgrade", (*TOKMIGRATE, "upgrade"), workspace, environment or {}),
        Run(f"{name}: downgrade", (*TOKMIGRATE, "downgrade", "base"), workspace, environment or {}),
    ]


def upgrade_again(name: str, root: Path, model: Path, settings: str = "") -> list[Run]:
    """Return the two runs that apply and undo a second migration on a copy of a model; the first is not measured."""
    copy = root / name.replace(" ", "-").replace(":", "") / "model"
    shutil.rmtree(copy.parent, ignore_errors=True)
    copy.parent.mkdir()
    subprocess.run(("/bin/cp", "-r", "--reflink=auto", model, copy), check=True)
    second = TWO.replace("planner", "tool").replace("critic", "result")
    migrations = [f"init: {{strategy: mean}}\noperations:\n{operation}" for operation in (TWO, second)]
    workspace = make_workspace(copy.parent / "workspace", {"big": copy}, migrations, settings)
    subprocess.run((*TOKMIGRATE, "upgrade", "+1"), cwd=workspace, check=True, capture_output=True)
    return [
        Run(f"{name}: second upgrade", (*TOKMIGRATE, "upgrade"), workspace),
        Run(f"{name}: second downgrade", (*TOKMIGRATE, "downgrade", "-1"), workspace),
    ]


def find_model(root: Path, name: str) -> Path:
    """Return the model of a size, which is made where it is missing."""
    model = root / "models" / name.replace(" ", "")
    if not model.exists():
        unfinished = model.with_name(model.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        # In a process of its own: memory that this one holds would count as memory of those that it starts.
        subprocess.run([sys.executable, str(HERE / "models.py"), str(unfinished), name], check=True)
        unfinished.rename(model)
    return model


def compare_with_script(options: argparse.Namespace) -> list[Table]:
    """Two tokens: a copy of the touched shards, the usual script, other tools, tokmigrate."""
    return [_compare_size(options, name) for name in options.size]


def _compare_size(options: argparse.Namespace, name: str) -> Table:
    root: Path = options.directory
    model = find_model(root, name)
    out = root / "out"
    shutil.rmtree(out, ignore_errors=True)
    floor = 'mkdir out && cp --reflink=never "$@" out && sync out/*'
    touched = [str(path) for path in sorted(model.glob("*.safetensors")) if _holds_vocabulary(path)]
    script = (sys.executable, str(HERE / "usual_script.py"), str(model), str(out))
    runs = [
        Run("cp + fsync of the touched shards", ("sh", "-c", floor, "sh", *touched), root, leaves=out),
        Run("usual script, mean_resizing=False", script, root, leaves=out),
        Run("usual script", (*script, "--mean"), root, leaves=out),
    ]
    if options.mergekit:
        runs.append(_mergekit(options.mergekit, model, root, out))
    if options.skeletoken:
        script = (options.skeletoken, str(HERE / "skeletoken_script.py"), str(model), str(out))
        runs.append(Run("skeletoken", script, root, leaves=out))
    mean = f"init: {{strategy: mean}}\noperations:\n{TWO}"
    runs += upgrade_and_back("tokmigrate", make_workspace(root / "mean", {"big": model}, [mean]))
    covariance = mean.replace("mean}", "mean_cov}")
    runs += upgrade_and_back("tokmigrate mean_cov", make_workspace(root / "cov", {"big": model}, [covariance]))
    runs += upgrade_again("tokmigrate", root, model)
    runs += upgrade_again("isolate_vocab", root, model, "weights: {isolate_vocab: true}\n")
    if options.other:
        environment = {"PYTHONPATH": str(options.other)}
        workspace = make_workspace(root / "other", {"big": model}, [mean])
        runs += upgrade_and_back("other tokmigrate", workspace, environment)
    return take_turns(f"Two tokens, {name}", runs, options.rounds)


def _holds_vocabulary(path: Path) -> bool:
    with path.open("rb") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))
    return b'"model.embed_tokens.weight"' in header or b'"lm_head.weight"' in header


def _mergekit(python: str, model: Path, root: Path, out: Path) -> Run:
    """Return the run of mergekit's `tokens:`: the larger tokenizer is prepared, which is not measured."""
    larger = root / "larger"
    shutil.rmtree(larger, ignore_errors=True)
    shutil.copytree(model, larger, ignore=shutil.ignore_patterns("*.safetensors", "*.index.json"))
    adding = (
        "import sys; from transformers import AutoTokenizer as T; t = T.from_pretrained(sys.argv[1]);"
        "t.add_special_tokens({'additional_special_tokens': ['<|planner|>', '<|critic|>']});"
        "t.save_pretrained(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", adding, str(larger)], check=True, capture_output=True)
    source = {"source": {"kind": "zero"}}
    recipe = {
        "models": [{"model": str(model)}],
        "merge_method": "passthrough",
        "dtype": "bfloat16",
        "tokenizer": {"source": str(larger), "tokens": {"<|planner|>": source, "<|critic|>": source}},
    }
    (root / "mergekit.yml").write_text(json.dumps(recipe))
    words = (python, "-m", "mergekit.scripts.run_yaml", str(root / "mergekit.yml"), str(out), "--lazy-unpickle")
    return Run("mergekit tokens:", words, root, leaves=out)


def follow_growth(options: argparse.Namespace) -> list[Table]:
    """How the cost of an upgrade grows with pending migrations, new and removed tokens, and the vocabulary."""
    root: Path = options.directory
    model = find_model(root, "0.4 GB")

    def table(title: str, works: Mapping[str, tuple[Path, Sequence[str]]]) -> Table:
        runs: list[Run] = []
        for name, (place, migrations) in works.items():
            workspace = make_workspace(root / "growth" / name.replace(" ", "-"), {"model": place}, migrations)
            runs += upgrade_and_back(name, workspace)
        return take_turns(title, runs, options.rounds)

    pending = {
        f"{count} migrations": (
            model,
            [f'operations:\n  - add_tokens: {{tokens: ["<|{n}|>"]}}\n' for n in range(count)],
        )
        for count in (1, 10, 50)
    }
    added = {f"{count} new tokens": (model, [_add(count)]) for count in (2, 300, 3000, 30_000)}
    names = list(json.loads((model / "tokenizer.json").read_text("utf-8"))["model"]["vocab"])
    removed = {f"{count} removed tokens": (model, [_remove(names, count)]) for count in (2, 3000, 30_000)}
    compact = "operations:\n  - remove_tokens: {tokens: [qzx], ids: compact, acknowledge: breaking}\n"
    sizes = {name: (find_model(root, name), [compact]) for name in SIZES if name.startswith("vocabulary")}
    return [
        table("Pending migrations, 0.4 GB", pending),
        table("New tokens, 0.4 GB", added),
        table("Removed tokens, 0.4 GB", removed),
        table("A token removed, all but 257 ids move", sizes),
    ]


def _add(count: int) -> str:
    return "operations:\n  - add_tokens:\n      tokens:\n" + "".join(
        f'        - {{content: "word {number}", single_word: true}}\n' for number in range(count)
    )


def _remove(names: Sequence[str], count: int) -> str:
    # The last tokens: no merge needs them that stays.
    listed = "".join(f"        - {json.dumps(name)}\n" for name in names[-count:])
    return f"operations:\n  - remove_tokens:\n      ids: compact\n      acknowledge: breaking\n      tokens:\n{listed}"


def measure_start(options: argparse.Namespace) -> list[Table]:
    """What commands cost that do next to nothing, beside the imports that they cannot do without."""
    root: Path = options.directory
    many = {f"m{number}": root / "start" / "models" / f"m{number}" for number in range(50)}
    adding = [f'operations:\n  - add_tokens: {{tokens: ["<|{number}|>"]}}\n' for number in range(1000)]
    large = make_workspace(root / "start", many, adding)
    for place in many.values():
        shutil.copytree(DEMO, place)
    runs = [Run("python -c 'import typer, sqlalchemy'", (sys.executable, "-c", "import typer, sqlalchemy"), root)]
    runs += [Run(f"{word}: 1000 revisions, 50 models", (*TOKMIGRATE, word), large) for word in ("current", "heads")]
    for verify in ("full", "fast"):
        demo = root / f"demo-{verify}"
        model = demo.with_name(demo.name + "-model")
        shutil.rmtree(model, ignore_errors=True)
        shutil.copytree(DEMO, model)
        make_workspace(demo, {"demo": model}, [f"operations:\n{TWO}"], f"verify: {verify}\n")
        if verify == "full":
            runs += [Run(f"{word} of the demo", (*TOKMIGRATE, word), demo) for word in ("status", "plan", "test")]
        runs += upgrade_and_back(f"demo, verify: {verify}", demo)
    return [take_turns("Start", runs, options.rounds)]


def measure_fleet(options: argparse.Namespace) -> list[Table]:
    """Eight models of 100 MB: a command for each, one command that changes one after the other, and two at a time."""
    root: Path = options.directory
    model = find_model(root, "0.1 GB")
    fleet = {f"m{number}": root / "fleet" / "models" / f"m{number}" for number in range(8)}
    workspace = make_workspace(root / "fleet", fleet, [f"operations:\n{TWO}"])
    for place in fleet.values():
        shutil.copytree(model, place)
    each = f'for name in {" ".join(fleet)}; do {" ".join(TOKMIGRATE)} "$@" --model $name || exit; done'
    runs = [
        Run(f"a command for each: {words[0]}", ("sh", "-c", each, "sh", *words), workspace)
        for words in (("upgrade",), ("downgrade", "base"))
    ]
    for count in ("1", "2"):
        up, down = upgrade_and_back(f"-j {count}", workspace)
        runs += [Run(one.name, (*one.words, "-j", count), workspace) for one in (up, down)]
    return [take_turns("Eight models of 0.1 GB", runs, options.rounds)]


PARTS: Mapping[str, Callable[[argparse.Namespace], list[Table]]] = {
    "script": compare_with_script,
    "growth": follow_growth,
    "start": measure_start,
    "fleet": measure_fleet,
}


def describe_machine(directory: Path) -> str:
    """Return the processor, memory, filesystem and versions in one line."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ": unknown")
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1e6
    words = ("/usr/bin/stat", "-f", "-c", "%T", directory)
    kind = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    cores = len([line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("processor")])
    return (
        f"{cores} cores ({model.split(':')[1].strip()}), {memory:.0f} GB of memory, {kind.strip()}, "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )


# Direct I/O, so that the page cache does not hold each block twice.
XFS = """
place=$1; shift
truncate -s 60G "$place/image" && mkfs.xfs -q -f -m reflink=1 "$place/image" && mkdir -p "$place/mounted" &&
loop=$(losetup --find --show --direct-io=on "$place/image") && mount -o discard "$loop" "$place/mounted" || exit 1
"$@"; code=$?
cp -r "$place/mounted/results" "$place"
umount "$place/mounted" && losetup -d "$loop" && rm -r "$place/image" "$place/mounted"
exit $code
"""


def run_on_xfs(options: argparse.Namespace) -> int:
    """Do what the command line says on a filesystem of its own, which is mounted for this process alone."""
    directory: Path = options.directory
    directory.mkdir(parents=True, exist_ok=True)
    given = [word for word in sys.argv[1:] if word != "--xfs"]
    words = [str(directory / "mounted") if Path(word).resolve() == directory else word for word in given]
    own = (sys.executable, Path(__file__).resolve(), *words)
    return subprocess.run(("/usr/bin/unshare", "-m", "sh", "-c", XFS, "sh", directory, *own), check=False).returncode


def main() -> None:
    """Run the parts that are named, and write what they measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=lambda text: Path(text).resolve())
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--size", action="append", choices=SIZES, help="of part script; 0.4, 1.6 and 6 GB if not given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--xfs", action="store_true", help="measure on an XFS image in DIRECTORY, mounted by root")
    parser.add_argument("--other", type=Path, help="another checkout of tokmigrate, measured beside this one")
    parser.add_argument("--mergekit", help="the Python of an environment that has mergekit")
    parser.add_argument("--skeletoken", help="the Python of an environment that has skeletoken, torch and transformers")
    options = parser.parse_args()
    if options.xfs:
        sys.exit(run_on_xfs(options))
    options.size = options.size or ["0.4 GB", "1.6 GB", "6 GB"]
    results = options.directory / "results"
    results.mkdir(parents=True, exist_ok=True)
    tables = [table for part in options.parts or PARTS for table in PARTS[part](options)]
    machine = describe_machine(options.directory)
    text = f"{machine}; medians of {options.rounds} interleaved rounds\n\n" + "\n".join(map(Table.markdown, tables))
    (results / "results.md").write_text(text)
    figures = {table.title: {name: list(map(asdict, costs)) for name, costs in table.costs.items()} for table in tables}
    (results / "results.json").write_text(json.dumps({"machine": machine, "tables": figures}, indent=1))
    print(text)


if __name__ == "__main__":
    main()
