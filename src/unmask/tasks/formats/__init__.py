"""Published file formats that are no plain table: each a function from a file to its columns."""

from __future__ import annotations

from collections.abc import Mapping

from unmask.tasks.formats.conll import read_conll
from unmask.tasks.formats.continuation import read_continuation
from unmask.tasks.formats.dialogue import read_dialogue
from unmask.tasks.formats.directory import read_directory
from unmask.tasks.formats.files import Format
from unmask.tasks.formats.multirc import read_multirc
from unmask.tasks.formats.parallel import read_parallel
from unmask.tasks.formats.plain_tsv import read_headless_tsv, read_plain_tsv
from unmask.tasks.formats.record import read_record
from unmask.tasks.formats.squad import read_squad
from unmask.tasks.formats.trec import read_trec

#: A new one is a file here and its line in the table.
FORMATS: Mapping[str, Format] = {
    "conll": read_conll,
    "continuation": read_continuation,
    "dialogue": read_dialogue,
    "directory": read_directory,
    "headless-tsv": read_headless_tsv,
    "multirc": read_multirc,
    "parallel": read_parallel,
    "plain-tsv": read_plain_tsv,
    "record": read_record,
    "squad": read_squad,
    "trec": read_trec,
}
