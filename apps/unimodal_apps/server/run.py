"""Runs the application: for `unimodal serve` until a signal comes, for tests and load tests in a thread."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from unimodal import Pipeline
from unimodal_apps.server.app import create_app
from unimodal_apps.server.options import ServerOptions


def serve(pipe: Pipeline, options: ServerOptions, host: str, port: int, *, log_level: str = "info") -> None:
    """Serves until the process is told to end (SIGINT, SIGTERM); what runs and what waits is finished first."""
    _server(pipe, options, host, port, log_level).run()


@contextmanager
def running(pipe: Pipeline, options: ServerOptions, host: str = "127.0.0.1") -> Iterator[str]:
    """A server in a thread of its own, on a free port; yields its address and ends it gracefully."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        server = _server(pipe, options, host, listener.getsockname()[1], "warning")
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="unimodal-server")
        thread.start()
        try:
            while not server.started:
                if not thread.is_alive():
                    raise RuntimeError("the server did not start; its log says why")
                thread.join(0.01)
            yield f"http://{host}:{server.config.port}"
        finally:
            server.should_exit = True
            thread.join()


def _server(pipe: Pipeline, options: ServerOptions, host: str, port: int, log_level: str) -> uvicorn.Server:
    config = uvicorn.Config(
        create_app(pipe, options),
        host=host,
        port=port,
        log_level=log_level,
        timeout_graceful_shutdown=max(1, round(options.shutdown_timeout)),
        timeout_keep_alive=15,
        server_header=False,
        # A client with many open connections must not take all of them.
        limit_concurrency=None,
    )
    return uvicorn.Server(config)
