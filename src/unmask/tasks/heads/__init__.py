"""ELECTRA's heads, one file each: how a kind of task is encoded for it, learnt and decoded."""
