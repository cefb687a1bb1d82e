"""The rules, each with an example of wrong and right; a file holds those that are about the same thing."""
