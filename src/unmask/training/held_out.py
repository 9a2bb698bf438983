"""What a model is worth on text that it does not learn from."""

from __future__ import annotations

from unmask.data.ragged import rank_parts
from unmask.data.stream import EvaluationBatches
from unmask.nn.sums import Sums
from unmask.training.corpora import metrics_by_corpus
from unmask.training.family import Pretraining
from unmask.training.ranks import ALONE, Ranks


def held_out_metrics(work: Pretraining, ranks: Ranks = ALONE) -> dict[str, float]:
    """A run's held-out metrics; each batch's texts are shared by the ranks."""

    def measured(batches: EvaluationBatches) -> Sums:
        parts = []
        for number, batch in enumerate(batches):
            ((own, counts),) = rank_parts(batch, ranks.number, ranks.count, 1)
            found = work.measure(own, number)
            parts.append(found if counts else found.of_nothing())
        return ranks.joined(parts)

    return metrics_by_corpus({name: [measured(batches)] for name, batches in work.held_out.items()})
