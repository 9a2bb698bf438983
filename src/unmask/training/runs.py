"""The directory of a run: whose it is, and whether it is finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from unmask import hub
from unmask.errors import UserError
from unmask.locks import occupied
from unmask.training.ranks import ALONE, Ranks
from unmask.training.recipe import RUN

#: Where a run writes its finished model.
MODEL = "model"


def check_place(directory: Path) -> None:
    """Raises:
    UserError: no directory can be there, as a file is.
    """
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory} is a file: give a directory with --out")


@contextmanager
def only_run(directory: Path, ranks: Ranks = ALONE) -> Iterator[None]:
    """Be the only run that works in a directory; of several ranks the first sees to it.

    Raises:
        UserError: another process is at work there, or no directory can be there.
    """
    with ExitStack() as held:
        with ranks.together():
            check_place(directory)
            if ranks.is_first:
                held.enter_context(occupied(directory))
        yield


def claim_run(directory: Path, settings: dict[str, Any], file: str = RUN) -> None:
    """Mark a directory as the run of these settings.

    Args:
        file: where the claim is kept; a run that is prepared in stages makes one for each.

    Raises:
        UserError: it is the run of others, says which differ; or no directory can be there.
    """
    check_place(directory)
    path = directory / file
    # As they will be read: a tuple is a list then.
    settings = json.loads(json.dumps(settings)) | {"fingerprint": _fingerprint(settings)}
    if not path.is_file():
        hub.write_json(path, settings)
        return
    before = hub.read_json(path)
    if before.get("fingerprint") == settings["fingerprint"]:
        return
    differing = hub.differences(before, settings)
    raise UserError(
        f"{directory} holds a run with other settings ({differing}): give another --out, or delete it"
    )


def _fingerprint(settings: Mapping[str, Any]) -> str:
    """A hash of everything that a run's result depends on."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
