"""stub"""
def train_unigram(*a, **k): raise NotImplementedError
