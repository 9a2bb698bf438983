"""Jobs over many texts: what is held, what is saved, what is done again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.errors import UserError
from unmask.tasks.bulk import Bulk
from unmask.tasks.texts import GivenTexts, TextFile, survey
from unmask.tasks.windows import windows


class Killed(Exception):
    """Stands for a kill: nothing of ours is prepared for it."""


def shouted(texts: Sequence[str], first: int) -> list[str]:
    """Two lines for each text."""
    return [line for number, text in enumerate(texts, first) for line in (f"{number}", text.upper())]


def job(answer: object = shouted, **options: object) -> Bulk:
    return Bulk(**{"answer": answer, "settings": {"model": "a"}, "lines_each": 2, "window": 4} | options)


@given(st.lists(st.text(max_size=9)), st.integers(1, 7), st.integers(1, 20))
def test_windows_are_the_stream_in_pieces(texts: list[str], size: int, characters: int) -> None:
    found = list(windows(texts, size, characters))
    assert [text for _, window in found for text in window] == texts
    assert all(texts[first : first + len(window)] == window for first, window in found)
    for _, window in found[:-1]:
        assert len(window) == size or sum(map(len, window)) >= characters
        assert len(window) <= size and sum(map(len, window[:-1])) < characters


@dataclass
class Watched:
    """Texts that know how many of them were read, and how many were answered."""

    count: int
    read: int = 0
    answered: int = 0
    most_ahead: int = 0
    name: str = "watched"
    again: bool = True

    def __iter__(self) -> Iterator[str]:
        self.read = 0
        for number in range(self.count):
            self.read += 1
            yield f"text {number}"

    def answer(self, texts: Sequence[str], first: int) -> list[str]:
        self.most_ahead = max(self.most_ahead, self.read - self.answered)
        self.answered += len(texts)
        return shouted(texts, first)


def test_the_reader_is_never_more_than_a_window_ahead(tmp_path: Path) -> None:
    for count in (100, 1000):
        texts = Watched(count)
        job(texts.answer, window=25).to_file(texts, tmp_path / f"{count}.txt")
        assert texts.most_ahead == 25
        assert texts.answered == count
    streamed = Watched(100)
    for number, _ in enumerate(job(streamed.answer, window=25).lines(streamed)):
        assert streamed.read <= number // 2 + 25
    assert streamed.answered == 100


@given(
    count=st.integers(1, 30),
    stops=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 40)), max_size=4),
    window=st.integers(1, 9),
)
@settings(max_examples=60, deadline=None)
def test_killed_anywhere_it_ends_with_the_same_bytes(
    count: int, stops: list[tuple[int, int]], window: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Killed in front of a window, or in the middle of writing one, after so many bytes."""
    out = tmp_path_factory.mktemp("job") / "out.txt"
    texts = GivenTexts([f"text {number}" for number in range(count)])
    done: set[int] = set()
    for windows_until, torn in stops:
        calls: list[int] = []

        def answer(
            texts: Sequence[str], first: int, left: int = windows_until, calls: list[int] = calls
        ) -> list[str]:
            if len(calls) == left:
                raise Killed
            calls.append(first)
            return shouted(texts, first)

        results = out.with_name("out.txt.partial") / "results"
        before = results.read_bytes() if results.exists() else b""
        try:
            job(answer, window=window).to_file(texts, out)
        except Killed:
            written = results.read_bytes()
            # What had been written whole before stays; the last write may be torn.
            kept = max(len(before) if not calls else 0, len(written) - torn)
            results.write_bytes(written[:kept])
            assert not out.exists()
        else:
            break
        done.update(calls)
    if not out.exists():
        job(window=window).to_file(texts, out)
    assert out.read_text().splitlines() == shouted(texts.texts, 0)
    assert [path.name for path in out.parent.iterdir()] == ["out.txt"]


def test_a_kill_between_the_last_two_steps(tmp_path: Path) -> None:
    """The results have their name, what was beside them is still there."""
    out, texts = tmp_path / "out.txt", GivenTexts(["a", "b"])
    partial = tmp_path / "out.txt.partial"
    with pytest.raises(Killed):
        job(lambda texts, first: (_ for _ in ()).throw(Killed)).to_file(texts, out)
    (partial / "results").rename(out)
    out.write_text("whole\n")
    job().to_file(texts, out)
    assert out.read_text() == "whole\n" and not partial.exists()
    # And a job that was killed before it had promised anything.
    partial.mkdir()
    (partial / "results").write_text("of whom?\n" * 9)
    job().to_file(texts, out)
    assert out.read_text().splitlines() == ["0", "A", "1", "B"]


def test_a_new_job_replaces_old_results_at_its_end_alone(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    out.write_text("old\n")

    def answer(texts: Sequence[str], first: int) -> list[str]:
        assert out.read_text() == "old\n"
        return shouted(texts, first)

    job(answer).to_file(GivenTexts(["a"] * 9), out)
    assert out.read_text().splitlines() == shouted(["a"] * 9, 0)


def test_a_second_process_does_not_write_into_the_same_file(tmp_path: Path) -> None:
    out, texts = tmp_path / "out.txt", GivenTexts(["a"] * 9)
    first = True

    def meanwhile(some: Sequence[str], number: int) -> list[str]:
        nonlocal first
        if first:
            first = False
            with pytest.raises(UserError, match=r"another process is at work on .*out\.txt"):
                job().to_file(texts, out)
        return shouted(some, number)

    job(meanwhile).to_file(texts, out)
    assert not first
    assert out.read_text().splitlines() == shouted(texts.texts, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


def test_standard_input_is_read_once_and_begun_anew(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"

    def stop(texts: Sequence[str], first: int) -> list[str]:
        if first:
            raise KeyboardInterrupt
        return shouted(texts, first)

    with pytest.raises(KeyboardInterrupt, match=r"stopped after 4$"):
        job(stop).to_file(GivenTexts(["a"] * 9, again=False), out)
    job().to_file(GivenTexts(["b"] * 9, again=False), out)
    assert out.read_text().splitlines() == shouted(["b"] * 9, 0)


def test_an_interruption_says_how_far_it_came(tmp_path: Path) -> None:
    def stop(texts: Sequence[str], first: int) -> list[str]:
        if first >= 4:
            raise KeyboardInterrupt
        return shouted(texts, first)

    message = "words: stopped after 4 of 9, saved: the same command continues from here"
    with pytest.raises(KeyboardInterrupt, match=message):
        job(stop, label="words").to_file(GivenTexts(["a"] * 9), tmp_path / "out.txt")


def test_a_survey_tells_texts_apart(tmp_path: Path) -> None:
    assert survey(GivenTexts(["a", "b"])).count == 2
    digests = {survey(GivenTexts(texts)).digest for texts in (["a", "b"], ["ab"], ["b", "a"], ["a", "b", ""])}
    assert len(digests) == 4
    with pytest.raises(UserError, match="the texts given is empty"):
        survey(GivenTexts([]))


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes("\ufeffa\r\n\nb\u2028c\x0cd\x85e\rf".encode())
    assert list(TextFile(path)) == ["a", "", "b\u2028c\x0cd\x85e\rf"]


def test_texts_longer_than_a_block_in_a_table(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    long = "line\n" * 60_000
    path.write_text(f'n,text\n1,"{long}"\n\n2,"b ""c"", d"\n')
    assert list(TextFile(path)) == [long, 'b "c", d']
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"text": ["a", long], "n": [1, 2]}), tmp_path / "in.parquet")
    assert list(TextFile(tmp_path / "in.parquet")) == ["a", long]
