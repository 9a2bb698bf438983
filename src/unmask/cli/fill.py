"""`unmask fill`."""

from __future__ import annotations

from unmask.cli.machine import Machine
from unmask.errors import UserError


def fill(
    model: str,
    text: str,
    /,
    *,
    at_least: int = 1,
    at_most: int = 8,
    proposals: int = 5,
    machine: Machine = Machine(),  # noqa: B008 (frozen)
) -> None:
    """Show what a model puts into the gaps of a text; mark each gap with ___ (three underscores).

    T5 writes any number of words into a gap. ELECTRA's generator writes as many tokens as read best, and its
    discriminator then says of every token how much it suspects it; without a gap it judges the text as it is.

    Args:
        model: a model directory or Hub name; for ELECTRA a pair directory, or a generator's alone.
        text: the text.
        at_least: (ELECTRA) tokens that a gap has at least.
        at_most: (ELECTRA) tokens that a gap has at most; 1 names proposals for each.
        proposals: (ELECTRA) how many tokens to name for each gap of one token.
    """
    from rich.console import Console

    from unmask import hub
    from unmask.report import print_table
    from unmask.tasks.models import family_of
    from unmask.tasks.presentation import proposal_table, suspicion_table

    device = machine.prepare()
    directory = hub.find_model(model)
    console = Console()
    family = family_of(directory)
    if family == "encoder-decoder":
        raise UserError(f"{directory} is an encoder–decoder, which fills no gaps: give a T5 or an ELECTRA")
    if family == "t5":
        from unmask.t5.byte_tokenizer import load_tokenizer
        from unmask.t5.filling import fill_gaps
        from unmask.t5.model import T5ForConditionalGeneration
        from unmask.text.gaps import GAP

        t5 = T5ForConditionalGeneration.from_pretrained(directory, device=device)
        for gap in fill_gaps(t5, load_tokenizer(directory), text):
            text = text.replace(GAP, f"[{gap}]", 1)
        console.print(text, markup=False, highlight=False)
        return
    from unmask.electra.filling import read_filled, read_text
    from unmask.electra.writer import ElectraForConditionalGeneration
    from unmask.text.gaps import GAP

    electra = ElectraForConditionalGeneration.from_pretrained(directory, device=device)
    if GAP in text and (at_least, at_most) != (1, 1):
        reading, written = read_filled(electra, text, at_least=at_least, at_most=at_most)
        for words in written:
            text = text.replace(GAP, f"[{words}]", 1)
        console.print(text, markup=False, highlight=False)
    else:
        reading = read_text(electra, electra.tokenizer, text, proposals=proposals)
    if reading.proposals:
        print_table(proposal_table(reading), console)
    if reading.suspicion is not None:
        print_table(suspicion_table(reading), console)
