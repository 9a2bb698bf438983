"""Tokenizers: train, load with their special ids, save."""
