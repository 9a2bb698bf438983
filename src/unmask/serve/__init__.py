"""The HTTP service: models behind an OpenAI-compatible interface, and routes for what only these models do."""
