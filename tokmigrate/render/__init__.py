"""How results look: text for a terminal, content for JSON, and the HTML page."""
