"""Decoding over anything that can encode and step; refinement over anything that can propose and judge."""
