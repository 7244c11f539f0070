"""The promise "no network at run time", made checkable.

With ``PFMCOURSE_OFFLINE=1`` an audit hook refuses every look-up of, and connection to, another machine. Loopback and
Unix sockets stay open, because Jupyter kernels and data-parallel training talk through them. Two things it cannot see:
sockets that are not Python's, and the look-up of a name that is handed to ``socket.connect`` itself (the connection
after it is refused).
"""

import ipaddress
import os
import platform
import sys

LOCAL = {"localhost", "localhost.localdomain", "ip6-localhost"}
LOOK_UPS = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
WATCHED = LOOK_UPS | {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getnameinfo"}
_installed = False


class NetworkForbidden(RuntimeError):
    """Raised when code tries to leave the machine while ``PFMCOURSE_OFFLINE=1``."""


def active() -> bool:
    """Whether this process has promised to stay off the network."""
    return os.environ.get("PFMCOURSE_OFFLINE", "") not in ("", "0")


def _host(event: str, arguments: tuple) -> str | None:
    """The host that a socket audit event names, or None where it is not an internet address (a Unix socket, say)."""
    if event in LOOK_UPS:
        host = arguments[0]
    else:
        address = arguments[0] if event == "socket.getnameinfo" else arguments[1]
        host = address[0] if isinstance(address, tuple) else None
    if isinstance(host, bytes | bytearray):
        return host.decode(errors="replace")
    return host if isinstance(host, str) else None


def _is_local(host: str) -> bool:
    """Whether a name or address is this machine. A look-alike such as ``localhost.example.org`` is not."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() in LOCAL | {platform.node().lower()}
    address = getattr(address, "ipv4_mapped", None) or address  # ::ffff:8.8.8.8 is 8.8.8.8
    return address.is_loopback or address.is_unspecified


def _hook(event: str, arguments: tuple) -> None:
    if event not in WATCHED or not active():
        return
    host = _host(event, arguments)
    if host and not _is_local(host):
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
