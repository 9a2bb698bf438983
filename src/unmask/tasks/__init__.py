"""What a fine-tuning task is; evaluation and prediction."""
