"""ELECTRA: config, model, checkpoint map, tokenizer."""
