"""The last measurement of each model, kept for its report: what `evaluate --json` prints, and of which weights.

It lies in `.tokmigrate/evaluations`, behind its digest. It is no part of the ledger: who wants it again measures again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from blake3 import blake3

from tokmigrate.commands.plan import read_contents
from tokmigrate.files import read_if_present, storage_errors
from tokmigrate.formats import JSON_OUTPUT
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.settings import Workspace


def digest_contents(snapshot: Snapshot) -> str:
    """Return a digest of a model's files, of samples of its shards, and of its stamp."""
    return _digest(read_contents(snapshot))


def keep_evaluation(workspace: Workspace, model: str, contents: str, content: Mapping[str, Any]) -> None:
    """Keep a measurement of a model as it is, in place of the last one; raises StorageError where that cannot be.

    Args:
        contents: What `digest_contents` gave before it was measured.
    """
    head = {"schema_version": JSON_OUTPUT.version, "contents": contents, "measured": datetime.now(UTC).isoformat()}
    path = _path(workspace, model)
    with storage_errors("keep the measurement", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        found = json.loads(json.dumps({**head, **content}))
        text = json.dumps({"digest": _digest(found), "measurement": found}, indent=2, ensure_ascii=False)
        path.write_text(f"{text}\n", "utf-8")


def read_evaluation(workspace: Workspace, model: str, snapshot: Snapshot) -> dict[str, Any] | None:
    """Return the last measurement of a model, with `is_current`, whether it has not changed since; None without one."""
    data = read_if_present(_path(workspace, model))
    try:
        held = json.loads(data or b"{}")
        found: dict[str, Any] = held["measurement"]
        is_whole = held["digest"] == _digest(found)
    except (ValueError, LookupError, TypeError):
        is_whole = False
    # There is none, it was being written when the machine stopped, or somebody edited it.
    if not is_whole:
        return None
    if found.get("schema_version") != JSON_OUTPUT.version:
        return None
    return {**found, "is_current": found["contents"] == digest_contents(snapshot)}


def _digest(content: object) -> str:
    return blake3(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _path(workspace: Workspace, model: str) -> Path:
    return workspace.objects.parent / "evaluations" / f"{quote(model, safe='')}.json"
