"""Blocks that know no model: attention, norms, feed-forward, relative positions, losses, packed streams."""
