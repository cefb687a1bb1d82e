"""Schema migrations for tokenizers and their embedding matrices."""

__version__ = "0.1.0"
