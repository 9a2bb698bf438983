"""The model card of an export: how it was made and checked, and what the model's own card says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unmask.electra.pair import GENERATOR
from unmask.report.card import CARD, Facts, ModelCard, called, is_elsewhere, write_card


def write_export_card(
    place: Path,
    model: str | os.PathLike[str],
    directory: Path,
    *,
    form: str,
    library: str,
    facts: Facts,
    checks: Facts = (),
    use: str,
    limits: Sequence[str] = (),
) -> None:
    """Write the card of an export; the card of the model that it was made from, if there is one, stands below.

    Args:
        place: the export's directory.
        model: as the caller named it; directory: where it was found.
        form: what was made: "ONNX graphs".
        library: that runs it, as the Hub calls it.
        facts, checks: how it was made, what was found.
        use: Python.
    """
    known, text = _origin(directory)
    name = called(str(model))
    card = ModelCard(
        title=f"{name} as {form}",
        summary=f"`{name}`, written as {form} by `unmask export`.",
        tags=list(dict.fromkeys([*_texts(known.get("tags")), "unmask", library])),
        base_model=str(model) if is_elsewhere(str(model)) else _text(known.get("base_model")),
        library=library,
        license=_text(known.get("license")),
        sections={"Export": facts, "Checked": checks},
        use=use,
        use_language="python",
        limits=limits,
        origin=_demoted(text),
    )
    write_card(place / CARD, card)


def _origin(directory: Path) -> tuple[dict[str, Any], str]:
    """What a model's card says, to machines and to people; nothing where there is none."""
    import yaml
    from huggingface_hub import ModelCard as HubCard

    # The card of a pair's half lies with the pair.
    places = [directory, *([directory.parent] if (directory.parent / GENERATOR).is_dir() else [])]
    path = next((place / CARD for place in places if (place / CARD).is_file()), None)
    if path is None:
        return {}, ""
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        card = HubCard(text)
    except (ValueError, TypeError, yaml.YAMLError):
        # Somebody's own, with a head that is none.
        return {}, text
    return card.data.to_dict(), card.text


def _demoted(text: str) -> str:
    """Markdown with headings one level lower."""
    lines, code = [], False
    for line in text.strip().splitlines():
        code ^= line.startswith("```")
        lines.append(f"#{line}" if line.startswith("#") and not code else line)
    return "\n".join(lines)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
