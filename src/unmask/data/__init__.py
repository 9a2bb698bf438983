"""Token shards and the stream of batches."""
