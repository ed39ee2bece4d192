"""Bounded readers of the two file formats, GGUF and safetensors; no torch."""
