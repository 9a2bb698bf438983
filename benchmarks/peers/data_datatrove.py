"""datatrove alone, with its own filters and C4's settings: the steps of unmask's C4 preset in their order.

Where it has no step of its own, a function of few lines stands in, as its users write them: the page's length, and
the language by `langdetect` (its own language filter downloads a model). Its filter for bad words downloads C4's
list; here it is given the benchmark's.
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from data_texts import BAD_WORDS, TEXTS, Run, text_bytes
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import (
    ExactDedupFilter,
    ExactDedupSignature,
    ExactFindDedups,
    SentenceDedupFilter,
    SentenceDedupSignature,
    SentenceFindDedups,
)
from datatrove.pipeline.dedup.exact_dedup import ExactDedupConfig
from datatrove.pipeline.dedup.sentence_dedup import SentDedupConfig
from datatrove.pipeline.filters import C4BadWordsFilter, C4QualityFilter, LambdaFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.text import TextNormConfig
from langdetect import DetectorFactory, detect_langs
from langdetect.lang_detect_exception import LangDetectException
from loguru import logger
from xxhash import xxh64_intdigest

PAGE_LENGTH = 190_000
#: Lines are compared lower-cased.
LINES = SentDedupConfig(
    n_sentences=1,
    split_sentences=False,
    min_doc_words=0,
    min_num_sentences=3,
    norm_config=TextNormConfig(
        lowercase=True,
        norm_whitespace=False,
        remove_punctuation=False,
        norm_unicode_diacritics=False,
        norm_numbers=False,
        norm_weekdays=False,
        norm_monthnames=False,
    ),
)


def _url(document: Document) -> bytes:
    return document.metadata["url"].encode()


def _hash(text: str) -> int:
    return xxh64_intdigest(text.encode())


URLS = ExactDedupConfig(content_getter=_url)


def _is_english(document: Document) -> bool:
    try:
        best = detect_langs(document.text)[0]
    except LangDetectException:
        return False
    return best.lang == "en" and best.prob >= 0.99


def _is_short(document: Document) -> bool:
    return len(document.text) <= PAGE_LENGTH


def load(folder: Path, work: str, threads: int) -> Run:
    logger.remove()
    DetectorFactory.seed = 0

    def run(repeats: int) -> list[float]:
        with TemporaryDirectory(dir=folder) as out:
            return [text_bytes(folder), _clean(folder, Path(out))]

    return run


def _clean(folder: Path, work: Path) -> int:
    """One task of one worker, in this process; how many documents are left."""
    words = (folder / BAD_WORDS).read_text().split()
    signature = SentenceDedupSignature(str(work / "line-keys"), config=LINES)
    # Its own hands a string to a version of xxhash that takes bytes alone.
    signature.hash_fc = _hash
    bad_words = C4BadWordsFilter()
    bad_words._badwords_regex["en"] = re.compile(rf"(?:\W|^)({'|'.join(map(re.escape, words))})(?:\W|$)")
    _execute(
        [
            JsonlReader(str(folder), glob_pattern=TEXTS),
            LambdaFilter(_is_short),
            _writer(work / "before-urls"),
            ExactDedupSignature(str(work / "url-keys"), URLS),
        ]
    )
    _execute([ExactFindDedups(str(work / "url-keys"), str(work / "urls"), URLS)])
    _execute(
        [
            _reader(work / "before-urls"),
            ExactDedupFilter(str(work / "urls"), URLS),
            # With the numbers of C4's code.
            C4QualityFilter(min_num_sentences=3, min_words_per_line=5),
            _writer(work / "before-lines"),
            signature,
        ]
    )
    _execute([SentenceFindDedups(str(work / "line-keys"), str(work / "lines"), config=LINES)])
    _execute(
        [
            _reader(work / "before-lines"),
            SentenceDedupFilter(str(work / "lines"), config=LINES),
            LambdaFilter(_is_english),
            bad_words,
            _writer(work / "clean"),
        ]
    )
    return sum(len(gzip.decompress(file.read_bytes()).splitlines()) for file in (work / "clean").iterdir())


def _reader(folder: Path) -> JsonlReader:
    return JsonlReader(str(folder))


def _writer(folder: Path) -> JsonlWriter:
    return JsonlWriter(str(folder))


def _execute(steps: list[PipelineStep]) -> None:
    with TemporaryDirectory() as log:
        LocalPipelineExecutor(steps, tasks=1, workers=1, logging_dir=log).run()
