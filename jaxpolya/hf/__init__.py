"""Checkpoints, tokenizers and chat templates: in from Hugging Face and GGUF, out to Hugging Face."""
