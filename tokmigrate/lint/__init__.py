"""Rules that read migrations as a careful reviewer would.

A rule is a pure function with a code, and an example of wrong and right. `file` and `model` are what rules see; `rules`
holds them, by what they are about; `registry` knows them all, and `checking` runs them.
"""
