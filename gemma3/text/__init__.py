"""Text to token ids and back: tokenizer, chat prompts, detokenizer; no torch."""
