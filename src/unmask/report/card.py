"""A model card: the `README.md` that lies with a model and says what its run knows of it, as the Hub shows it.

(Mitchell et al. 2019, "Model Cards for Model Reporting".) What is not known is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from unmask.hub import write_atomically

#: The card of a model directory.
CARD = "README.md"

Facts = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a card says.

    Attributes:
        title: its heading.
        summary: what the model is, in a sentence or two.
        tags: words that the Hub finds it by.
        base_model: the Hub's name of the model that it was made from.
        sections: tables of facts (name, value), by heading; empty ones are not shown.
        library: that runs it, as the Hub calls it.
        license: as the Hub calls it.
        use: what runs it, in use_language.
        limits: what a user should know before relying on it, a sentence each.
        origin: Markdown on what it was made from, which stands below.
    """

    title: str
    summary: str
    tags: Sequence[str]
    base_model: str | None = None
    library: str = "unmask"
    license: str | None = None
    sections: Mapping[str, Facts]
    use: str = ""
    use_language: str = "bash"
    limits: Sequence[str] = ()
    origin: str = ""


def is_elsewhere(model: str) -> bool:
    """Whether a model is the Hub's, not a directory here."""
    return not Path(model).expanduser().exists()


def called(model: str) -> str:
    """What a card calls the model of a directory or Hub name: a path says nothing to others, and the run's directory
    is often called "model"."""
    return model if is_elsewhere(model) else "/".join(Path(model).expanduser().absolute().parts[-2:])


def settings_as_facts(settings: Mapping[str, object], without: Collection[str]) -> Facts:
    """What was chosen, by its name in words.

    Args:
        without: names of settings that say nothing about the model.
    """
    return [
        (name.replace("_", " "), str(value))
        for name, value in settings.items()
        if value is not None and name not in without
    ]


def write_card(path: Path, card: ModelCard) -> None:
    """Write a card, beside and then renamed. The same facts give the same bytes."""
    write_atomically(path, render_card(card))


def render_card(card: ModelCard) -> str:
    """The card as Markdown, the Hub's metadata before it."""
    from huggingface_hub import ModelCardData
    from jinja2 import Environment, StrictUndefined

    data = ModelCardData(
        library_name=card.library, tags=list(card.tags), base_model=card.base_model, license=card.license
    )
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters["cell"] = _cell
    source = files("unmask.report").joinpath("card.md.j2").read_text(encoding="utf-8")
    text = environment.from_string(source).render(
        title=card.title,
        summary=card.summary,
        sections=list(card.sections.items()),
        use=card.use,
        use_language=card.use_language,
        limits=card.limits,
        origin=card.origin,
    )
    return f"---\n{data.to_yaml()}\n---\n\n{text.strip()}\n"


def _cell(text: str) -> str:
    """Text as a table's cell holds it."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
