"""Models for other engines, and in low precision: each written with what its user needs to trust it."""
