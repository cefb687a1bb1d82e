"""What the usual script does, with skeletoken: add two tokens, reshape the embeddings, save everything.

python benchmarks/skeletoken_script.py MODEL OUTPUT
"""

from __future__ import annotations

import sys

import torch
from skeletoken import TokenizerModel
from skeletoken.external.transformers import reshape_embeddings
from transformers import AutoModelForCausalLM

source, target = sys.argv[1:3]
tokenizer = TokenizerModel.from_pretrained(source)
tokenizer = tokenizer.add_addedtokens(["<|planner|>", "<|critic|>"], is_special=True, single_word=False)
model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
model = reshape_embeddings(model, tokenizer)
model.save_pretrained(target)
tokenizer.to_transformers().save_pretrained(target)
