"""Questions to the real libraries, answered by worker processes.

A tokenizer file can make `tokenizers` panic, a model can crash `torch`, and both take seconds and hundreds
of megabytes to import. So the caller never imports them: it calls a worker (`worker.py`), which answers in JSON and
ends. A server imports the libraries once for a command, and forks the workers. A question is one module here, named as
it is asked.
"""
