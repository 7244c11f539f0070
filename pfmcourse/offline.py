"""The promise "no network at run time", made checkable.

With ``PFMCOURSE_OFFLINE=1`` an audit hook refuses every look-up of, and connection to, another machine. Loopback and
Unix sockets stay open, because Jupyter kernels and data-parallel training talk through them.
"""

import os
import platform
import sys

LOCAL = ("127.", "localhost", "::1", "0.0.0.0", "::")
WATCHED = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname"}
_installed = False


class NetworkForbidden(RuntimeError):
    """Raised when code tries to leave the machine while ``PFMCOURSE_OFFLINE=1``."""


def active() -> bool:
    """Whether this process has promised to stay off the network."""
    return os.environ.get("PFMCOURSE_OFFLINE", "") not in ("", "0")


def _host(event: str, arguments: tuple) -> str | None:
    """The host that a socket audit event names, or None where it is not an internet address (a Unix socket, say)."""
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None
    return host.decode(errors="replace") if isinstance(host, bytes) else host


def _hook(event: str, arguments: tuple) -> None:
    if event not in WATCHED or not active():
        return
    host = _host(event, arguments)
    if host and not host.startswith(LOCAL) and host != platform.node():
        raise NetworkForbidden(
            f"something tried to reach {host!r}, but PFMCOURSE_OFFLINE=1 promises that nothing leaves this machine. "
            "Every lesson runs from installed packages; unset PFMCOURSE_OFFLINE if you want the network here."
        )


def guard() -> None:
    """Install the hook once per process. It costs nothing while ``PFMCOURSE_OFFLINE`` is unset."""
    global _installed
    if active():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        if not _installed:
            sys.addaudithook(_hook)
            _installed = True
