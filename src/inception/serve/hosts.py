"""Which Host headers are answered: a page of another site must not read this server under a name of its own.

Such a page lets its name point to the server's address once it is loaded (DNS rebinding); the browser then
takes the server for the page's own, but still sends the page's name.
"""

import ipaddress
import re

from inception.serve.settings import Settings

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{0,5})?")
_MAX_REMEMBERED = 1000
ANY = "*"


class Hosts:
    """The names under which a server answers."""

    def __init__(self, settings: Settings) -> None:
        self._names = {name.lower().rstrip(".") for name in settings.allow_hosts}
        if not _is_address(settings.host):
            self._names.add(settings.host.lower())
        self._local = settings.is_local
        self._known: dict[str, bool] = {}

    def accepts(self, header: str | None) -> bool:
        """Whether a request with this Host header is answered; None: it has none, as HTTP/1.0 allows."""
        if header is None or ANY in self._names:
            return True
        if (known := self._known.get(header)) is not None:
            return known
        accepted = self._accepts(header)
        if len(self._known) < _MAX_REMEMBERED and len(header) < 256:
            self._known[header] = accepted
        return accepted

    def _accepts(self, header: str) -> bool:
        found = _HOST.fullmatch(header.strip())
        if found is None:
            return False
        name = (found[1] or found[2]).lower().rstrip(".")
        if name in self._names or name == "localhost" or name.endswith(".localhost"):
            return True
        return _is_loopback(name) if self._local else _is_address(name)

    def refusal(self) -> str:
        """What a refused request is told."""
        what = "localhost" if self._local else "its address"
        return (
            f"this server answers under {what} and the names of --allow-host alone: "
            "ask there, or start it with --allow-host and the name in your URL"
        )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return _is_address(name) and ipaddress.ip_address(name).is_loopback
