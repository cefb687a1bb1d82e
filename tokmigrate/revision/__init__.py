"""From the text of migration files to a history: `yaml_file` and `python_file` read one, `history` orders them."""
