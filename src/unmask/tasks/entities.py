"""Tags of tokens as entities, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

OUTSIDE = "O"


@dataclass(frozen=True)
class Entity:
    """Tokens [start, stop) of a type."""

    type: str
    start: int
    stop: int


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of a tag sequence, as conlleval counts them: an I- that does not continue an entity of its type
    begins one (seqeval 1.2.2 `get_entities`, its default mode).

    Args:
        tags: B-TYPE, I-TYPE, and E-TYPE and S-TYPE of IOBES; anything without a hyphen is outside.
    """
    found: list[Entity] = []
    start, before, type_before = 0, OUTSIDE, ""
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, type_ = _parts(tag)
        if before != OUTSIDE and _ends(before, prefix, type_before, type_):
            found.append(Entity(type_before, start, place))
        if _begins(before, prefix, type_before, type_):
            start = place
        before, type_before = prefix, type_
    return found


def _parts(tag: str) -> tuple[str, str]:
    prefix, hyphen, type_ = tag.partition("-")
    return (prefix, type_ or "_") if hyphen and prefix in {"B", "I", "E", "S"} else (OUTSIDE, "")


def _ends(before: str, now: str, type_before: str, type_now: str) -> bool:
    return before in {"E", "S"} or now in {"B", "S", OUTSIDE} or type_before != type_now


def _begins(before: str, now: str, type_before: str, type_now: str) -> bool:
    return now != OUTSIDE and (now in {"B", "S"} or before in {OUTSIDE, "E", "S"} or type_before != type_now)


def marks_entities(tags: Iterable[str]) -> bool:
    """Whether tags are of entities, not of something that every token has, such as a part of speech."""
    return any(_parts(tag)[0] != OUTSIDE for tag in tags)


def as_iob2(tags: Sequence[str]) -> list[str]:
    """Tags of entities in IOB2; others as they are."""
    return tags_of(entities(tags), len(tags), tags) if marks_entities(tags) else list(tags)


def spans(tags: Sequence[str]) -> list[Entity]:
    """The entities; of tags that mark none, the runs of equal ones but O."""
    if marks_entities(tags):
        return entities(tags)
    found, place = [], 0
    for tag, run in groupby(tags):
        stop = place + len(list(run))
        if tag != OUTSIDE:
            found.append(Entity(tag, place, stop))
        place = stop
    return found


def tags_of(found: Iterable[Entity], tokens: int, labels: Iterable[str]) -> list[str]:
    """The tags of so many tokens, O outside of the spans; in IOB2 where the labels mark entities."""
    tags = [OUTSIDE] * tokens
    iob = marks_entities(labels)
    for entity in found:
        inside = f"I-{entity.type}" if iob else entity.type
        tags[entity.start : entity.stop] = [inside] * (entity.stop - entity.start)
        if iob:
            tags[entity.start] = f"B-{entity.type}"
    return tags


def types_of(labels: Iterable[str]) -> list[str]:
    """The types that labels speak of: of entities, or the labels themselves but O."""
    labels = list(labels)
    if not marks_entities(labels):
        return [label for label in labels if label != OUTSIDE]
    return list(dict.fromkeys(_parts(label)[1] for label in labels if _parts(label)[0] != OUTSIDE))
