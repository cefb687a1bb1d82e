"""Questions to the real libraries, answered by child processes.

A tokenizer file can make `tokenizers` panic, a model can crash `torch`, and both take seconds and hundreds
of megabytes to import. So the caller never imports them: it asks (`ask.py`), a child imports, answers in JSON
and ends. A question is one module here, named as it is asked.
"""
