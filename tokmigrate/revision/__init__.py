"""From the text of migration files to a history.

`contents` and `python_file` read one file each, `migration` is what they give, `history` is how migrations
follow each other, `naming` finds one by name, `new_file` writes one.
"""

from tokmigrate.revision.history import History
from tokmigrate.revision.migration import Migration
from tokmigrate.revision.naming import new_revision_id
from tokmigrate.revision.planned import PlannedOperation

__all__ = ["History", "Migration", "PlannedOperation", "new_revision_id"]
