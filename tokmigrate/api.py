"""The Python API: a workspace, and what the command line does with it.

with tokmigrate.open("path/to/project") as ws:
    for plan in ws.plan():
        print(plan.model, [step.migration.message for step in plan.steps])
    ws.upgrade(model="demo")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from tokmigrate.commands import inspect
from tokmigrate.commands.check import Checked
from tokmigrate.commands.check import check as check_model
from tokmigrate.commands.current import current as found_at
from tokmigrate.commands.downgrade import Downgraded, accept_downgrade
from tokmigrate.commands.downgrade import downgrade as downgrade_model
from tokmigrate.commands.inspect import ModelStatus
from tokmigrate.commands.library_check import Accepted, Verifications
from tokmigrate.commands.plan import plan as plan_model
from tokmigrate.commands.preparation import prepare_downgrade, prepare_upgrade
from tokmigrate.commands.upgrade import Upgraded, accept_upgrade
from tokmigrate.commands.upgrade import upgrade as upgrade_model
from tokmigrate.errors import UsageError
from tokmigrate.events import OnProgress, no_progress
from tokmigrate.memo import forget_all
from tokmigrate.model.worker.worker import stop_server
from tokmigrate.plan.plan import Plan
from tokmigrate.settings import ModelEntry, Workspace, find_workspace, read_workspace
from tokmigrate.training.evaluate import check_predictions

T = TypeVar("T")


def open(directory: str | Path | None = None) -> OpenWorkspace:  # noqa: A001
    """Open the workspace that a directory is in; raises UsageError where there is none.

    Args:
        directory: Any directory of it, by default the current one.
    """
    return OpenWorkspace(read_workspace(find_workspace(Path(directory) if directory is not None else Path.cwd())))


@dataclass(eq=False)
class OpenWorkspace:
    """A workspace whose settings are read; nothing is held between two calls, and each takes the model's lock itself.

    Behind the `with`, or `close`, every method raises UsageError.

    Every method takes `model`, a name or a directory, by default all models, and returns a result for each. The first
    error ends it. Models that are to be changed are all planned and verified with the libraries first, so that only an
    error such as a lack of space is one on the way, where models before that one are done. Errors are
    `TokmigrateError`, with `hint`, `exit_code` and `topic`.
    """

    workspace: Workspace = field(repr=False)
    directory: Path = field(init=False)
    closed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.directory = self.workspace.root

    def __enter__(self) -> OpenWorkspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it, end the process that holds the libraries, and forget what calls had in common."""
        self.closed = True
        stop_server()
        forget_all()

    def current(self, model: str | None = None) -> dict[str, str | None]:
        """Return the revision of each model by its name, None at `base`."""
        return {entry.name: found_at(entry) for entry in self._models(model)}

    def plan(self, to: str = "head", model: str | None = None) -> tuple[Plan, ...]:
        """Return what `upgrade` would do; nothing is written."""
        return tuple(plan_model(self.workspace, entry, to) for entry in self._models(model))

    def upgrade(
        self,
        to: str = "head",
        model: str | None = None,
        on_progress: OnProgress = no_progress,
        lock_timeout_s: float = 0.0,
        *,
        keep_owner: bool = True,
    ) -> tuple[Upgraded, ...]:
        """Bring models up to a revision, tokenizer and embedding matrix together, or not at all.

        Args:
            to: A revision by any of its names.
            lock_timeout_s: How many seconds to wait for another process.
            keep_owner: Whether it is refused where owner, mode or attributes of files cannot be kept.
        """
        entries = self._models(model)
        prepare_upgrade(self.workspace, entries)
        return self._change(
            entries,
            partial(
                accept_upgrade,
                self.workspace,
                to=to,
                on_progress=on_progress,
                keep_owner=keep_owner,
                check_predictions=check_predictions,
            ),
            lambda entry, accepted: upgrade_model(
                self.workspace,
                entry,
                to,
                lock_timeout_s,
                on_progress,
                keep_owner=keep_owner,
                accepted=accepted,
                check_predictions=check_predictions,
            ),
        )

    def downgrade(
        self,
        to: str,
        model: str | None = None,
        on_progress: OnProgress = no_progress,
        lock_timeout_s: float = 0.0,
        *,
        keep_owner: bool = True,
    ) -> tuple[Downgraded, ...]:
        """Take migrations back, as `upgrade` brings them; `to` has no default."""
        entries = self._models(model)
        prepare_downgrade(self.workspace)
        return self._change(
            entries,
            partial(accept_downgrade, self.workspace, to=to, on_progress=on_progress, keep_owner=keep_owner),
            lambda entry, accepted: downgrade_model(
                self.workspace, entry, to, lock_timeout_s, on_progress, keep_owner=keep_owner, accepted=accepted
            ),
        )

    def status(self, model: str | None = None) -> tuple[ModelStatus, ...]:
        """Return where models stand, and which of their tokens were never trained."""
        return tuple(inspect.status(self.workspace, entry) for entry in self._models(model))

    def check(self, model: str | None = None) -> tuple[Checked, ...]:
        """Return whether models are what their migrations say, and whether they were trained."""
        return tuple(check_model(self.workspace, entry) for entry in self._models(model))

    def _change(
        self,
        entries: Sequence[ModelEntry],
        accept: Callable[..., Accepted | None],
        act: Callable[[ModelEntry, Accepted | None], T],
    ) -> tuple[T, ...]:
        """Change models, after all of several were accepted."""
        verifications = Verifications(len(entries))
        accepted = [accept(entry, verifications=verifications) if len(entries) > 1 else None for entry in entries]
        return tuple(map(act, entries, accepted))

    def _models(self, model: str | None) -> tuple[ModelEntry, ...]:
        if self.closed:
            raise UsageError(
                "the workspace is closed", where=str(self.directory), hint="call it inside `with`, or open it again"
            )
        entries = self.workspace.select([model] if model is not None else [])
        if not entries:
            raise UsageError("the workspace has no models", hint="list them under `models:` in tokmigrate.yaml")
        return entries
