"""From the text of migration files to a history.

`contents` and `python_file` read one file each, `migration` is what they give, `history` is how migrations
follow each other, `naming` finds one by name, `new_file` writes one.
"""
