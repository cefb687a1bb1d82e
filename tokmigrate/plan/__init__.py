"""Revisions and a snapshot make a plan: everything that will happen, before anything does."""
