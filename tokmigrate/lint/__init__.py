"""Rules that read migrations as a careful reviewer does: `subjects` is what they see, `linter` runs them."""
