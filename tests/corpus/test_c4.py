"""C4's rules, a case that each drops beside the nearest one that it keeps, and their order."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

pytest.importorskip("datatrove", reason="needs the extra corpus: pip install 'unmask[corpus]'")

from datatrove.data import Document
from datatrove.pipeline.filters import c4_filters

from unmask.corpus.c4 import BadWords, C4Lines, PageLength, has_sentences, normalised_url, read_bad_words
from unmask.corpus.ledger import StepLedger
from unmask.errors import UserError

GOOD = ["The first line has enough words.", "Does the second line have them?", "So has the third one!"]


def cleaned(*lines: str) -> tuple[str | None, list[str], dict[str, int]]:
    """(rule that drops the page, lines left, dropped lines by rule) of a page."""
    document, step = Document("\n".join(lines), "page"), StepLedger()
    drop = C4Lines()(document, step)
    return (
        drop and drop.rule,
        document.text.split("\n"),
        {name: dropped.lines for name, dropped in step.rules.items()},
    )


def test_a_good_page_stays_as_it_is() -> None:
    assert cleaned(*GOOD) == (None, GOOD, {})


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (f"A word of {'x' * 1001} letters is too long.", "line: word too long"),
        (f"A word of {'x' * 1000} letters is not too long.", None),
        (f"Many short words {'and more ' * 300} are not a long word.", None),
        ("This line has no mark at its end", "line: no end mark"),
        ("This line ends in a comma,", "line: no end mark"),
        ("This line ends in an apostrophe'", "line: no end mark"),
        ("This line ends in an ellipsis...", "line: no end mark"),
        ("This line ends in another ellipsis…", "line: no end mark"),
        ('"This line ends in a quotation mark."', None),
        ("Has only four words.", "line: too few words"),
        ("Has exactly five words, yes.", None),
        ("You must enable JavaScript to go on.", "line: javascript"),
        ("You must enable Java to go on.", None),
        ("Please read our Privacy Policy before you go on.", "line: policy"),
        ("By going on you accept that this site uses cookies.", "line: policy"),
        ("Her policy was to keep privacy in mind.", None),
    ],
)
def test_rules_for_lines(line: str, rule: str | None) -> None:
    page, kept, dropped = cleaned(*GOOD, line)
    assert page is None
    assert kept == (GOOD if rule else [*GOOD, line])
    assert dropped == ({rule: 1} if rule else {})


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("The text was Lorem Ipsum all the way down.", "lorem ipsum"),
        ("The text was lorem and then ipsum all the way.", None),
        ("The function begins with { as all do.", "curly bracket"),
        ("The function begins with [ as few do.", None),
    ],
)
def test_rules_for_pages(line: str, rule: str | None) -> None:
    assert cleaned(*GOOD, line)[0] == rule


@pytest.mark.parametrize(
    "line", ["{ too short.", "a line with { but no end mark at all", "{ needs JavaScript, says this."]
)
def test_a_bracket_on_a_line_that_was_dropped_does_not_drop_the_page(line: str) -> None:
    assert cleaned(*GOOD, line)[:2] == (None, GOOD)


def test_lorem_ipsum_comes_before_javascript_and_the_bracket_after() -> None:
    assert cleaned(*GOOD, "This javascript line says lorem ipsum too.")[0] == "lorem ipsum"
    assert cleaned(*GOOD, "The { stands in a privacy policy here.")[0] == "curly bracket"


def test_a_page_that_is_dropped_shows_what_the_rule_met() -> None:
    lines = [*GOOD, f"{'So many words. ' * 50}Here is the {{ that it fell for."]
    drop = C4Lines()(Document("\n".join(lines), "page"), StepLedger())
    assert drop is not None
    assert drop.passage is not None
    assert drop.passage.startswith("…")
    assert drop.passage.endswith("Here is the { that it fell for.")
    assert len(drop.passage) < 150


def test_citations_are_deleted_and_words_counted_without_them() -> None:
    line = "The town[12] was founded[edit] in 1200[citation needed] by monks.[3]"
    assert cleaned(*GOOD, line)[1] == [*GOOD, "The town was founded in 1200 by monks."]
    assert cleaned(*GOOD, "One two [1] [2] three four.")[2] == {"line: too few words": 1}
    assert cleaned(*GOOD, "Ends in a citation without a mark[1]")[2] == {"line: no end mark": 1}


def test_blank_lines_are_lines_without_an_end_mark() -> None:
    assert cleaned(*GOOD[:2], "", GOOD[2]) == (None, GOOD, {"line: no end mark": 1})


def test_lines_are_stripped_and_cut_as_python_cuts_them() -> None:
    assert cleaned("  " + GOOD[0] + "\t", GOOD[1] + "\x0b" + GOOD[2])[1] == GOOD


def test_three_sentences() -> None:
    two = "Here is the first sentence of it. Here is the second of them."
    assert cleaned(GOOD[0], GOOD[1])[0] == "fewer than 3 sentences"
    assert cleaned(two)[0] == "fewer than 3 sentences"
    assert cleaned(GOOD[0], two)[0] is None
    assert cleaned("Nothing here ends in any mark")[0] == "fewer than 3 sentences"
    assert has_sentences(["Dr. Smith met Mr. Jones in the U.S. yesterday."], 2) is False


def test_agrees_with_datatrove_where_that_follows_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    # With C4's numbers and end marks, and without citations, after which datatrove counts words differently.
    monkeypatch.setattr(c4_filters, "END_PUNCTUATION", (".", "?", "!", '"'))
    theirs = c4_filters.C4QualityFilter(min_num_sentences=3, min_words_per_line=5)
    pieces = [
        *GOOD,
        "no mark",
        "Two words.",
        "See our privacy policy on the page.",
        "It says lorem ipsum to all.",
    ]
    pieces += [
        "Is it { or is it not?",
        "All of this is javascript code.",
        "And so on and on...",
        "",
        " {",
        "A. B. C. D. E.",
    ]
    draw = random.Random(0)
    outcomes = set()
    for _ in range(400):
        text = "\n".join(draw.choices(pieces, [6] * 3 + [1] * 10, k=draw.randint(1, 7)))
        document, reference = Document(text, "a"), Document(text, "a")
        result = theirs.filter(reference)
        drop = C4Lines()(document, StepLedger())
        rule = drop and drop.rule
        assert (rule is None) == (result is True), text
        assert rule is not None or document.text == reference.text
        outcomes.add(rule)
    assert outcomes == {None, "lorem ipsum", "curly bracket", "fewer than 3 sentences"}


def test_page_length_is_the_longest_that_stays() -> None:
    rule = PageLength(10)
    assert rule(Document("x" * 10, "a"), StepLedger()) is None
    assert rule(Document("x" * 11, "b"), StepLedger()) == ("more than 10 characters", None)


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("https://www.example.org/a/", "example.org/a"),
        ("http://example.org/a?utm_source=x", "example.org/a"),
        ("http://example.org/a?ref=3", "example.org/a"),
        ("http://example.org/a?feed=rss", "example.org/a"),
        ("http://example.org/a?page=2", "example.org/a?page=2"),
    ],
)
def test_addresses(url: str, same: str) -> None:
    assert normalised_url(url) == same


def test_bad_words_stand_alone_except_where_nothing_does(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("Damn\n\nhot (stuff)\n坏\n")
    words = read_bad_words(tmp_path / "words.txt")

    def drops(text: str, language: str = "en") -> bool:
        drop = BadWords(words, language)(Document(text, "a"), StepLedger())
        assert drop is None or drop == ("bad word", text.lower())
        return drop is not None

    assert drops("Oh, DAMN!")
    assert drops("damn")
    assert not drops("A damnable thing.")
    assert drops("Some hot (stuff) here.")
    assert not drops("Some hot stuff here.")
    assert drops("很坏的", "zh-cn")
    assert not drops("很坏的", "en")


def test_a_list_of_bad_words_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.txt cannot be read"):
        read_bad_words(tmp_path / "gone.txt")
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(UserError, match="is empty"):
        read_bad_words(tmp_path / "empty.txt")
