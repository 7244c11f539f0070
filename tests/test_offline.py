"""With PFMCOURSE_OFFLINE=1 nothing leaves the machine. Each case is a process of its own, as a notebook's kernel is.

The addresses are those that RFC 5737 and RFC 2606 keep for examples: even a broken guard would reach nobody.
"""

import os
import socket
import subprocess
import sys
import textwrap

import pytest

from pfmcourse import offline

OUTSIDE = [
    "socket.create_connection(('192.0.2.1', 80), timeout=2)",
    "socket.create_connection(('example.invalid', 80), timeout=2)",
    "socket.socket().connect(('192.0.2.1', 80))",
    "socket.socket().connect_ex(('192.0.2.1', 80))",
    "socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))",
    "socket.socket(socket.AF_INET6).connect(('::ffff:192.0.2.1', 80))",
    "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
    "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', 0, ('192.0.2.1', 53))",
    "socket.getaddrinfo('example.invalid', 443)",
    "socket.getaddrinfo(b'example.invalid', 443)",
    "socket.gethostbyname('example.invalid')",
    "socket.gethostbyname_ex('example.invalid')",
    "socket.gethostbyaddr('192.0.2.1')",
    "socket.getnameinfo(('192.0.2.1', 80), 0)",
    "urllib.request.urlopen('http://example.invalid', timeout=2)",
    "asyncio.run(asyncio.open_connection('192.0.2.1', 80))",
]
INSIDE = """
    server = socket.create_server(("127.0.0.1", 0))
    address = server.getsockname()
    client = socket.create_connection(address, timeout=5)
    peer, _ = server.accept()
    peer.sendall(b"hello")
    assert client.recv(5) == b"hello"
    socket.create_connection(("localhost", address[1]), timeout=5).close()
    socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", address)
    socket.getaddrinfo("localhost", 80)
    socket.getaddrinfo(None, 0)
    socket.getaddrinfo("::1", 80, family=socket.AF_INET6, flags=socket.AI_NUMERICHOST)
    socket.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    if hasattr(socket, "AF_UNIX"):
        one, other = socket.socketpair()
        one.sendall(b"hello")
        assert other.recv(5) == b"hello"
        with tempfile.TemporaryDirectory() as folder:
            path = folder + "/s"
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            listener.listen()
            socket.socket(socket.AF_UNIX).connect(path)
    if hasattr(socket, "AF_NETLINK"):  # its addresses are numbers, and lead to the kernel
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).connect((0, 0))
"""


def run(body, offline="1"):
    program = "import asyncio, os, socket, tempfile, urllib.request\nimport pfmcourse\n" + textwrap.dedent(body)
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"PFMCOURSE_OFFLINE": offline, "HF_HUB_OFFLINE": ""}
    if offline is None:
        del environment["PFMCOURSE_OFFLINE"]
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)


def test_nothing_leads_outside():
    attempts = "\n".join(
        f"""
try:
    {attempt}
    print("no error")
except BaseException as error:
    print(type(error).__name__, str(error).partition(" but ")[0])
"""
        for attempt in OUTSIDE
    )
    done = run("socket.setdefaulttimeout(2)\n" + attempts)
    answers = done.stdout.splitlines()
    assert len(answers) == len(OUTSIDE), done.stderr
    wrong = {
        attempt: answer
        for attempt, answer in zip(OUTSIDE, answers, strict=True)
        if not answer.startswith("NetworkForbidden something tried to reach ")
    }
    assert wrong == {}


def test_the_error_ends_the_cell_and_says_what_to_do():
    done = run("urllib.request.urlopen('http://example.invalid')")
    assert done.returncode != 0
    assert "NetworkForbidden: something tried to reach 'example.invalid', but PFMCOURSE_OFFLINE=1" in done.stderr
    assert "unset PFMCOURSE_OFFLINE" in done.stderr


def test_this_machine_stays_open():
    done = run(INSIDE)
    assert done.returncode == 0, done.stderr


def test_sockets_of_other_families_pass():
    # Numbers instead of host names: a process id, a context id of a virtual machine.
    for address in ((4711, 0), (2, 1024), "/tmp/socket", b"\0abstract", None):
        offline._hook("socket.connect", (None, address))


@pytest.mark.parametrize("host", ["127.example.invalid", "localhost.example.invalid", b"example.invalid"])
def test_a_name_that_a_socket_itself_looked_up_is_refused(host):
    with pytest.raises(offline.NetworkForbidden, match=r"tried to reach '\w*\.?example\.invalid'"):
        offline._hook("socket.connect", (None, (host, 80)))


@pytest.mark.parametrize("value", [None, "", "0"])
def test_without_the_promise_nothing_is_refused(value):
    body = f"""
        from pfmcourse import offline
        assert not offline.active() and not offline._installed
        socket.getaddrinfo("192.0.2.1", 80, flags=socket.AI_NUMERICHOST)
        os.environ["PFMCOURSE_OFFLINE"] = "1"
        offline.guard()
        try:
            socket.getaddrinfo("192.0.2.1", 80, flags=socket.AI_NUMERICHOST)
        except offline.NetworkForbidden:
            os.environ["PFMCOURSE_OFFLINE"] = {value or ""!r}
            socket.getaddrinfo("192.0.2.1", 80, flags=socket.AI_NUMERICHOST)
            print("as promised")
    """
    done = run(body, value)
    assert done.stdout == "as promised\n", done.stderr


def test_the_hub_is_told_too():
    assert run("print(os.environ['HF_HUB_OFFLINE'])").stdout == "\n"  # what is set already, even to nothing, stays
    body = "del os.environ['HF_HUB_OFFLINE']; pfmcourse.offline.guard(); print(os.environ['HF_HUB_OFFLINE'])"
    assert run(body).stdout == "1\n"


@pytest.mark.parametrize(
    ("host", "local"),
    [
        *((host, True) for host in ("127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1")),
        *((host, True) for host in ("localhost", "LOCALHOST", socket.gethostname())),
        *((host, False) for host in ("192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "224.0.0.1", "10.0.0.1")),
        *((host, False) for host in ("localhost.example.org", "127.example.org", "example.org", "<broadcast>")),
    ],
)
def test_what_is_local(host, local):
    assert offline._is_local(host) is local
