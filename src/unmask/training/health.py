"""What a replaced-token detection run says about itself when it goes wrong in one of the known ways.

The rules, on means over the newest `WINDOW` training lines of the metrics log, all of them written after the
grace period (`grace_steps`):

- the discriminator has *collapsed* where it finds less than 1 % of the replaced tokens. Its accuracy hides it:
  calling every token original is right for 85 % or more of them.
- the generator has *run away* where less than 20 % of the drawn tokens end up replaced: it is so good that the
  discriminator has hardly anything to find (google-research/electra, issue 37).
- the generator has *diverged* where its loss is above that of guessing, ln(vocabulary).

Each is said once when it begins and once when it is over. A diagnosis is a function of the log's lines alone, so a
run that is stopped and continued says the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

#: Training lines of the log that a judgement looks at.
WINDOW = 10
COLLAPSED_RECALL = 0.01
RUNAWAY_REPLACED = 0.2

Line = Mapping[str, Any]


def grace_steps(steps: int, warmup_steps: int) -> int:
    """Until when a run is too young to judge: its warm-up, and a fifth of its steps or 10,000 of them."""
    return max(warmup_steps, min(steps // 5, 10_000))


@dataclass(frozen=True)
class Health:
    """The rules for one run.

    Args:
        grace: steps that are not judged.
        vocab_size: tokens that the generator chooses from.
    """

    grace: int
    vocab_size: int

    def diagnose(self, lines: Sequence[Line]) -> list[str]:
        """What the newest training line of a log has changed: messages, mostly none.

        Args:
            lines: the whole log in the order of steps; other kinds of lines are passed over.
        """
        newest = list(islice((line for line in reversed(lines) if line["kind"] == "training"), WINDOW + 1))
        now, before = newest[:WINDOW], newest[1:]
        found, known = self._ailments(now), self._ailments(before)
        begun = [text for name, text in found.items() if name not in known]
        over = [f"{name}: no longer so" for name in known if name not in found]
        return begun + over

    def _ailments(self, window: Sequence[Line]) -> dict[str, str]:
        """Name → message of what ails a run over a window, newest line first."""
        if len(window) < WINDOW or window[-1]["step"] <= self.grace:
            return {}
        where = f"(mean of steps {window[-1]['step']} to {window[0]['step']})"
        found = {}
        recall = _mean(window, "discriminator_recall")
        if recall < COLLAPSED_RECALL:
            accuracy = _mean(window, "discriminator_accuracy")
            found["collapsed discriminator"] = (
                f"the discriminator has collapsed: it finds {recall:.1%} of the replaced tokens {where}; its "
                f"accuracy of {accuracy:.1%} is that of calling every token original. Try a lower learning_rate, "
                "a longer warm-up, a smaller generator_share, and look at what the tokenizer makes of the text"
            )
        replaced = _mean(window, "replaced_of_drawn")
        if replaced < RUNAWAY_REPLACED:
            found["runaway generator"] = (
                f"the generator has run away: only {replaced:.1%} of the drawn tokens end up replaced {where}, "
                "the rest are sampled as they were. Try a smaller generator_share, a higher temperature or a "
                "higher mask_rate"
            )
        loss, guessing = _mean(window, "generator_loss"), math.log(self.vocab_size)
        if loss > guessing:
            found["diverged generator"] = (
                f"the generator has diverged: its loss of {loss:.2f} nats is above the {guessing:.2f} of "
                f"guessing {where}. Try a lower learning_rate or a longer warm-up"
            )
        return found


def _mean(lines: Sequence[Line], name: str) -> float:
    """Over the lines that have a finite value; nan, which no rule holds for, where none has."""
    values = [line[name] for line in lines if math.isfinite(line.get(name, math.nan))]
    return sum(values) / len(values) if values else math.nan


Diagnose = Callable[[Sequence[Line]], list[str]]
