"""Why a model says what it says: attributions, attention, heads, layers, positions, suspicion.

Small functions over a model and token ids that return arrays, and the page that shows them.
"""
