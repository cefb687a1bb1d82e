"""Rules that read migrations as a careful reviewer would.

A rule is a pure function with a code, and an example of wrong and right. `file` and `model` are what rules see;
`applying`, `tokens`, `token_texts`, `ids`, `templates` and `reproducibility` hold them, by the groups of their codes;
`registry` knows them all, and `checking` runs them.
"""
