"""Pure functions from token ids and a counter to (inputs, targets)."""
