"""Which writing a metric can read: some take words to stand between spaces, some know the letters a to z alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: Han, kana, Thai, Lao, Burmese, Khmer: scripts that put no spaces between words.
_WITHOUT_SPACES = re.compile(
    "[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\U00020000-\U0002fa1f\u3040-\u30ff"
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"
)
_NOT_LATIN = re.compile(r"[^\W\d_a-z]")
_LETTER = re.compile(r"[^\W\d_]")
#: The share of letters from which on a score is said to mean little.
MUCH = 0.3
#: Texts that are looked at, at equal distances.
SEEN = 1000
#: Metrics that split texts at spaces → those that do not.
_BY_SPACES = {
    "bleu": "bleu_zh or bleu_char",
    "squad_f1": "mlqa_zh_f1",
    "squad_exact_match": "mlqa_zh_exact_match",
}
_OF_LATIN = ("rouge1", "rouge2", "rouge_l")


def unread(metrics: Sequence[str], texts: Sequence[str]) -> list[str]:
    """A line for each metric that cannot read much of what it is to judge, with another that can.

    Args:
        texts: the references.
    """
    asked = [metric for metric in metrics if metric in _BY_SPACES or metric in _OF_LATIN]
    if not asked:
        return []
    whole = "".join(texts[:: len(texts) // SEEN + 1]).lower()
    letters = max(1, len(_LETTER.findall(whole)))
    spaceless, foreign = (len(kind.findall(whole)) / letters for kind in (_WITHOUT_SPACES, _NOT_LATIN))
    lines = []
    for metric in asked:
        if metric in _OF_LATIN and foreign >= MUCH:
            lines.append(
                f"{metric} reads the letters a to z alone, and {foreign:.0%} of the references' letters are others: "
                "name chrf as a metric"
            )
        elif metric in _BY_SPACES and spaceless >= MUCH:
            lines.append(
                f"{metric} takes words to stand between spaces, and {min(1.0, spaceless):.0%} of the references' "
                f"letters are of a script without them: name {_BY_SPACES[metric]} as a metric"
            )
    return lines
