"""What another program would read of a model."""

from __future__ import annotations

from dataclasses import dataclass

from tokmigrate.audit.run_status import guard_reading
from tokmigrate.commands.models import adapters_of
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.model.worker.worker import call_worker
from tokmigrate.servers.finding import Finding, Loaded, Reading, Subject, Target
from tokmigrate.servers.pre_tokenizers import CHECK_TEXT
from tokmigrate.servers.registry import TARGETS, Name
from tokmigrate.settings import ModelEntry


@dataclass(frozen=True)
class CheckedTarget:
    """What a program would read of a model."""

    model: str
    target: Target
    reading: Reading

    @property
    def findings(self) -> list[Finding]:
        """What its rules find, errors first."""
        return sorted(self.reading.findings, key=lambda each: each.severity)

    @property
    def errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.reading.findings)


def check_target(entry: ModelEntry, name: Name) -> CheckedTarget:
    """Return what a program would read of a model and its adapters; nothing is written.

    Raises:
        VerificationError: transformers cannot load the tokenizer, and the rules of the program need that.
        RecoveryNeededError: A change of the model was interrupted.
    """
    with guard_reading(entry):
        snapshot = take_snapshot(entry)
        adapters = tuple(adapters_of(entry, snapshot))
    target = TARGETS[name]
    loaded = load_for_rules(entry, snapshot) if target.needs_loading else Loaded()
    return CheckedTarget(entry.name, target, target.read(Subject(snapshot, adapters, loaded)))


def load_for_rules(entry: ModelEntry, snapshot: Snapshot) -> Loaded:
    """Return what transformers makes of a model's tokenizer; raises VerificationError where it cannot load it."""
    added = [*snapshot.state.tokenizer.added]
    request = {"directory": str(snapshot.directory), "text": CHECK_TEXT, "added": added}
    answer = call_worker("converter", request, entry.worker)
    return Loaded(tuple(answer["ids"]), dict(zip(added, answer["decoded"], strict=True)), frozenset(answer["specials"]))
