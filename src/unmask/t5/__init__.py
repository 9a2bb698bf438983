"""T5: config, model, checkpoint map, tokenizer."""
