"""The loop, optimisers and schedules, checkpoints, the metrics log."""
