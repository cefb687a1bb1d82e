"""How results look: as text for people (`text`), as one JSON document for programs (`machine`)."""
