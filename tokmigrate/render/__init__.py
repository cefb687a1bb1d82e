"""How results look: text for people (`text`), one JSON document for programs (`json`), the HTML page (`page`)."""
