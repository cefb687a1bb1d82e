"""What tokmigrate replaces: load the model, add two tokens, resize the embeddings, save everything.

    python benchmarks/usual_script.py MODEL OUTPUT [--mean]

`--mean` leaves `mean_resizing` on, which is the default of transformers.
"""

from __future__ import annotations

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

source, target = sys.argv[1:3]
tokenizer = AutoTokenizer.from_pretrained(source)
tokenizer.add_special_tokens({"additional_special_tokens": ["<|planner|>", "<|critic|>"]})
model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
model.resize_token_embeddings(len(tokenizer), mean_resizing="--mean" in sys.argv)
model.save_pretrained(target)
tokenizer.save_pretrained(target)
