"""What other programs read of a model directory, by the rules of their source, and what differs from transformers."""
