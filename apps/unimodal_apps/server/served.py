"""Drawn pictures that wait for a while under an address of the server."""

import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

from unimodal_apps.server.options import ServerOptions
from unimodal_apps.server.pictures import OutputFormat


@dataclass(frozen=True)
class Kept:
    content: bytes
    output_format: OutputFormat
    until: float


class ServedPictures:
    """Keeps the newest pictures in memory, under names that cannot be guessed."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, content: bytes, output_format: OutputFormat) -> str:
        """The name under which `find` gives the picture."""
        name = f"{secrets.token_urlsafe(18)}.{output_format}"
        with self._lock:
            self._forget()
            self._kept[name] = Kept(content, output_format, time.monotonic() + self._options.kept_seconds)
            while len(self._kept) > self._options.kept_pictures:
                self._kept.popitem(last=False)
        return name

    def find(self, name: str) -> Kept | None:
        with self._lock:
            self._forget()
            return self._kept.get(name)

    def _forget(self) -> None:
        now = time.monotonic()
        while self._kept and next(iter(self._kept.values())).until < now:
            self._kept.popitem(last=False)
