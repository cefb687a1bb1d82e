"""YAML in which every scalar stays the text that it looks like, and every fault has its place."""
