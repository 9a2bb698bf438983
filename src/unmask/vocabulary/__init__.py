"""Vocabularies, made from a corpus and fitted to one: training with its report, trimming, extending."""
