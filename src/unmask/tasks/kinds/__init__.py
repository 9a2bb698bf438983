"""The kinds of task there are; a new one is a file here and its line in the table."""

from __future__ import annotations

from unmask.tasks.kinds.classification import Classification, PairClassification
from unmask.tasks.kinds.kind import Kind, Prediction, Row
from unmask.tasks.kinds.minimal_pairs import MinimalPairs
from unmask.tasks.kinds.multiple_choice import MultipleChoice
from unmask.tasks.kinds.question_answering import QuestionAnswering
from unmask.tasks.kinds.regression import Regression
from unmask.tasks.kinds.tagging import Tagging
from unmask.tasks.kinds.text_to_text import TextToText

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        TextToText(),
        Classification(),
        PairClassification(),
        Regression(),
        Tagging(),
        QuestionAnswering(),
        MultipleChoice(),
        MinimalPairs(),
    )
}

__all__ = ["KINDS", "Kind", "Prediction", "Row"]
