"""Generation with one quantized base model and many adapters: pure Python over torch, transformers and peft's files."""
