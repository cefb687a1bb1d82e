"""Is a directory a part of the Hugging Face cache, which is not to be changed in place?

The cache keeps each file once, under `blobs/`, and each revision of a repository as a directory of links:

    models--ORG--NAME/blobs/DIGEST
    models--ORG--NAME/snapshots/COMMIT/config.json -> ../../blobs/DIGEST

Source: "Understand caching", documentation of huggingface_hub.
"""

from __future__ import annotations

import os
from pathlib import Path

from tokmigrate.files import storage_errors


def is_cache_snapshot(directory: Path) -> bool:
    """Return whether `directory` is a snapshot in the cache, or has a file that is a link into one's blobs.

    Raises:
        StorageError: The directory cannot be listed.
    """
    resolved = directory.resolve()
    if resolved.parent.name == "snapshots" and _is_cached_repository(resolved.parent.parent):
        return True
    with storage_errors("list the directory", directory):
        return any(_leads_into_blobs(Path(entry)) for entry in _links(resolved))


def _links(directory: Path) -> list[str]:
    found: list[str] = []
    for place, directories, files in os.walk(directory):
        paths = (os.path.join(place, name) for name in (*directories, *files))  # noqa: PTH118
        found += [path for path in paths if os.path.islink(path)]  # noqa: PTH114
    return found


def _leads_into_blobs(link: Path) -> bool:
    target = Path(os.path.normpath(link.parent / link.readlink()))
    return target.parent.name == "blobs" and _is_cached_repository(target.parent.parent)


def _is_cached_repository(directory: Path) -> bool:
    return (directory / "blobs").is_dir() and (directory / "snapshots").is_dir()
