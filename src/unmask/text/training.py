"""stub"""


def train_unigram(*a, **k):
    raise NotImplementedError


def train_wordpiece(*a, **k):
    raise NotImplementedError
