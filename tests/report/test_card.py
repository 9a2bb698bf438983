from pathlib import Path

from huggingface_hub import ModelCard as HubCard

from unmask.report.card import CARD, ModelCard, render_card, write_card


def test_the_hub_reads_it_and_tables_hold_any_text(tmp_path: Path) -> None:
    card = ModelCard(
        title="A writer",
        summary="What it is.",
        tags=["unmask", "t5"],
        base_model="google/t5-small",
        sections={"Data": [("prefix", "a | b\nc\\")], "Scores": []},
        use="unmask fill MODEL",
        limits=["None <known> & *said*."],
    )
    write_card(tmp_path / CARD, card)
    read = HubCard.load(tmp_path / CARD)
    assert read.data.to_dict() == {
        "base_model": "google/t5-small",
        "library_name": "unmask",
        "tags": ["unmask", "t5"],
    }
    assert read.text.strip().splitlines() == [
        "# A writer",
        "",
        "What it is.",
        "",
        "## Data",
        "",
        "| | |",
        "|---|---|",
        r"| prefix | a \| b c\\ |",
        "",
        "## Use",
        "",
        "```bash",
        "unmask fill MODEL",
        "```",
        "",
        "## Limits",
        "",
        "- None <known> & *said*.",
    ]


def test_what_is_not_known_is_left_out() -> None:
    text = render_card(ModelCard(title="A", summary="B", tags=["t5"], sections={"Scores": []}))
    assert text == "---\nlibrary_name: unmask\ntags:\n- t5\n---\n\n# A\n\nB\n"
