"""`unmask serve`."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from unmask.cli.machine import Machine
from unmask.errors import MissingExtraError, UserError
from unmask.serve.limits import Limits
from unmask.training.runs import MODEL

LIMITS = Limits()


def serve(
    models: list[str],
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    task: Annotated[list[str] | None, Parameter(negative="", show_default=False)] = None,
    api_keys: Path | None = None,
    allow_origin: Annotated[list[str] | None, Parameter(negative="", show_default=False)] = None,
    queue: int = LIMITS.queue,
    requests: int = LIMITS.requests,
    rows: int = LIMITS.rows,
    batch_tokens: int = LIMITS.batch_tokens,
    piece_tokens: int = LIMITS.piece_tokens,
    body_bytes: int = LIMITS.body_bytes,
    body_seconds: float = LIMITS.body_seconds,
    characters: int = LIMITS.characters,
    source_tokens: int = LIMITS.source_tokens,
    new_tokens: int = LIMITS.new_tokens,
    inputs: int = LIMITS.inputs,
    seconds: float = LIMITS.seconds,
    machine: Machine = Machine(),  # noqa: B008 (frozen)
) -> None:
    """Serve models over HTTP, OpenAI-compatible, T5 and ELECTRA side by side.

    SIGTERM and Ctrl-C finish the requests that were accepted.

    Args:
        models: model directories or Hub names; NAME=DIRECTORY gives a name.
        host: address to listen at.
        port: port to listen at.
        task: NAME=TASK: what the model NAME has learnt, a task's TOML file or a built-in name.
        api_keys: a file with a key in each line; also UNMASK_API_KEYS, separated by commas.
        allow_origin: a site whose pages may call the service (CORS).
        queue: texts and results of a model that may wait; requests that would make it more get 503.
        requests: that are read or answered at the same time, of all models; more get 503.
        rows: results that are written side by side.
        batch_tokens: tokens of the running batch, read and to be written; its memory is in proportion to it.
        piece_tokens: tokens that are read between two steps of writing.
        body_bytes: largest body of a request.
        body_seconds: in which a body must have come.
        characters: of all texts of a request.
        source_tokens: tokens of a text.
        new_tokens: tokens of a result.
        inputs: texts or results of a request.
        seconds: longest time of a request, waiting included.
    """
    try:
        import uvicorn

        from unmask.serve.app import make_app
    except ImportError:
        raise MissingExtraError("unmask serve", "serve") from None
    from unmask.serve.logs import log_to_stderr
    from unmask.serve.models import load

    limits = Limits(
        queue=queue,
        requests=requests,
        rows=rows,
        batch_tokens=batch_tokens,
        piece_tokens=piece_tokens,
        body_bytes=body_bytes,
        body_seconds=body_seconds,
        characters=characters,
        source_tokens=source_tokens,
        new_tokens=new_tokens,
        inputs=inputs,
        seconds=seconds,
    )
    listener = _listener(host, port)
    keys = _keys(api_keys)
    places = _named(models)
    tasks = _tasks(task or [], places)
    device = machine.prepare()
    loaded = [load(name, place, tasks.get(name), device) for name, place in places.items()]
    app = make_app(loaded, limits, keys=keys, origins=allow_origin or [])
    log_to_stderr()
    # Accepted requests end within their own time.
    config = uvicorn.Config(
        app, log_config=None, access_log=False, timeout_graceful_shutdown=int(seconds) + 1
    )
    logger = logging.getLogger("unmask.serve")
    logger.info("serving", extra={"fields": {"host": host, "port": port, "models": list(places)}})
    with listener:
        uvicorn.Server(config).run([listener])


def _listener(host: str, port: int) -> socket.socket:
    """The place to listen at, taken before models are loaded.

    Raises:
        UserError: it is taken, or there is no such place.
    """
    if not 0 < port < 65536:
        raise UserError(f"--port {port}: it must be 1 to 65535")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        # Bound now, listening when the models are there.
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise UserError(f"cannot listen at {host}:{port} ({reason}): give another --host or --port") from None
    return listener


def _named(models: list[str]) -> dict[str, str]:
    """Name → place of each model."""
    places: dict[str, str] = {}
    for model in models:
        name, _, place = model.rpartition("=") if not Path(model).exists() else ("", "", model)
        path = Path(place)
        # A run keeps its model in RUN/model: all are called that.
        name = name or (path.absolute().parent.name if path.name == MODEL else path.name) or place
        if name in places:
            raise UserError(f"two models are called {name}: give one another name, NAME={place}")
        places[name] = place
    return places


def _tasks(given: list[str], places: dict[str, str]) -> dict[str, str]:
    tasks = {}
    for one in given:
        name, found, task = one.partition("=")
        if not found or name not in places:
            raise UserError(f"--task {one}: give NAME=TASK with the name of a model: {', '.join(places)}")
        tasks[name] = task
    return tasks


def _keys(file: Path | None) -> list[str]:
    lines = os.environ.get("UNMASK_API_KEYS", "").split(",")
    if file is not None:
        lines += file.read_text(encoding="utf-8").splitlines()
    keys = [line.strip() for line in lines if line.strip()]
    if file is not None and not keys:
        raise UserError(f"--api-keys {file}: no key in there; put one in each line")
    return keys
