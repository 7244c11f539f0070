"""A class on one machine: JupyterHub with docs/jupyterhub_config.py, and students who run one lesson at the same time.

Needs jupyterhub, requests and websocket-client (requirements-teaching.txt), and configurable-http-proxy on the PATH
(npm install -g configurable-http-proxy). ``HUB_STUDENTS="1 2 4"``, ``HUB_LESSON=clip`` and ``PFMCOURSE_PRESET`` choose
what is tried. Each student logs in, has a server started, opens the lesson with its solutions and runs every cell.
What was measured goes to docs/hub.json, of which `pfmcourse ledger --write` makes the table of the teacher's guide.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import nbformat
import psutil
import pytest

from pfmcourse import catalogue
from pfmcourse.base import repository

STUDENTS = [int(count) for count in os.environ.get("HUB_STUDENTS", "1 2 4").split()]
LESSON = os.environ.get("HUB_LESSON", "clip")
PASSWORD = "a password of the class"
RECORD = repository() / "docs" / "hub.json"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def hub(folder, environment):
    """A running hub; gives its address and its process."""
    import requests

    address = f"http://127.0.0.1:{free_port()}"
    settings = os.environ | {
        "PFMCOURSE_CLASS": str(folder),
        "PFMCOURSE_CLASS_PASSWORD": PASSWORD,
        "PFMCOURSE_CLASS_LESSONS": LESSON,
        "PFMCOURSE_CLASS_URL": address,
        **environment,
    }
    command = [sys.executable, "-m", "jupyterhub", "--config", str(repository() / "docs" / "jupyterhub_config.py")]
    for name in ("JupyterHub.hub_port", "ConfigurableHTTPProxy.api_url"):
        port = free_port()
        command.append(f"--{name}={port if name.endswith('port') else f'http://127.0.0.1:{port}'}")
    log = (folder / "hub.log").open("w")
    process = subprocess.Popen(command, env=settings, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"{address}/hub/login").ok:
                    break
            assert process.poll() is None, (folder / "hub.log").read_text()[-2000:]
            time.sleep(0.2)
        yield address, process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        log.close()


class Student:
    """Logs in with a browser's requests, and runs a notebook over the kernel's websocket."""

    def __init__(self, address, name):
        import requests

        self.address, self.name, self.web = address, name, requests.Session()

    def token(self):
        return {"X-XSRFToken": self.web.cookies.get("_xsrf", path=f"/user/{self.name}/", default="")}

    def log_in(self):
        self.web.get(f"{self.address}/hub/login")
        form = {"username": self.name, "password": PASSWORD, "_xsrf": self.web.cookies.get("_xsrf", path="/hub/")}
        self.web.post(f"{self.address}/hub/login", data=form).raise_for_status()
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            answer = self.web.get(f"{self.address}/user/{self.name}/api/status")
            if answer.ok and "json" in answer.headers.get("content-type", ""):
                return
            if "spawn-pending" not in answer.url:
                self.web.get(f"{self.address}/hub/spawn/{self.name}")
            time.sleep(0.5)
        raise TimeoutError(f"no server for {self.name}: {answer.status_code} {answer.url}")

    def run(self, notebook):
        """Run every code cell; returns the errors."""
        import websocket

        body = {"name": "lesson", "path": "lessons/lesson.ipynb", "type": "notebook", "kernel": {"name": "python3"}}
        base = f"{self.address}/user/{self.name}"
        answer = self.web.post(f"{base}/api/sessions", json=body, headers=self.token())
        answer.raise_for_status()
        kernel, session = answer.json()["kernel"]["id"], uuid.uuid4().hex
        cookies = "; ".join(
            f"{one.name}={one.value}" for one in self.web.cookies if one.path in ("/", f"/user/{self.name}/")
        )
        channel = websocket.create_connection(
            f"{base.replace('http', 'ws', 1)}/api/kernels/{kernel}/channels?session_id={session}",
            cookie=cookies,
            origin=self.address,
            timeout=900,
        )
        errors = []
        for cell in notebook.cells:
            if cell.cell_type != "code":
                continue
            message = uuid.uuid4().hex
            header = {"msg_id": message, "msg_type": "execute_request", "username": self.name, "session": session}
            content = {"code": cell.source, "silent": False, "store_history": True, "allow_stdin": False}
            header |= {"version": "5.3", "date": ""}
            request = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
            channel.send(json.dumps(request))
            while True:
                reply = json.loads(channel.recv())
                if reply["parent_header"].get("msg_id") != message or reply["msg_type"] != "execute_reply":
                    continue
                if reply["content"]["status"] != "ok":
                    errors.append(f"{reply['content'].get('ename')}: {reply['content'].get('evalue')}"[:300])
                break
            if errors:
                break
        channel.close()
        return errors


class Memory(threading.Thread):
    """The most memory (in MB, shared pages counted once) of the hub's processes, in all and of each kind."""

    def __init__(self, process):
        super().__init__(daemon=True)
        self.process, self.most, self.kernel, self.server, self.stop = process, 0.0, 0.0, 0.0, threading.Event()

    def run(self):
        while not self.stop.wait(1.0):
            total, processes = 0.0, []
            with contextlib.suppress(psutil.Error):
                processes = [self.process, *self.process.children(recursive=True)]
            for one in processes:
                with contextlib.suppress(psutil.Error):
                    size, line = one.memory_full_info().pss / 1e6, " ".join(one.cmdline())
                    total += size
                    self.kernel = max(self.kernel, size if "ipykernel" in line else 0.0)
                    self.server = max(self.server, size if "jupyterhub.singleuser" in line else 0.0)
            self.most = max(self.most, total)


@pytest.mark.parametrize("count", STUDENTS)
@pytest.mark.timeout(1800)
def test_a_class(count, tmp_path, report):
    pytest.importorskip("jupyterhub")
    if not shutil.which("configurable-http-proxy"):
        pytest.skip("configurable-http-proxy is not on the PATH")
    card = catalogue.card(LESSON)
    notebook = nbformat.read(card.notebook, as_version=4)
    preset = os.environ.get("PFMCOURSE_PRESET", "laptop")
    threads = str(max(1, (os.cpu_count() or 1) // count))
    with hub(tmp_path, {"PFMCOURSE_PRESET": preset, "PFMCOURSE_CLASS_THREADS": threads}) as (address, process):
        memory = Memory(psutil.Process(process.pid))
        memory.start()
        students = [Student(address, f"student{number}") for number in range(count)]

        def lesson(student):
            began = time.monotonic()
            student.log_in()
            ready = time.monotonic()
            errors = student.run(notebook)
            return ready - began, time.monotonic() - ready, errors

        with ThreadPoolExecutor(count) as pool:
            done = list(pool.map(lesson, students))
        memory.stop.set()
        assert [errors for _, _, errors in done] == [[]] * count
        for student in students:
            assert (tmp_path / student.name / "results.json").is_file()
    figures = {
        "cores": os.cpu_count() or 1,
        "threads": int(threads),
        "seconds_to_a_server": round(max(wait for wait, _, _ in done), 1),
        "seconds_of_the_slowest": round(max(seconds for _, seconds, _ in done), 1),
        "hub_and_all_mb": round(memory.most),
        "largest_kernel_mb": round(memory.kernel),
        "largest_server_mb": round(memory.server),
    }
    report(f"a class of {count}: {card.name}, {preset}", **figures)
    row = {"lesson": card.id, "preset": preset, "students": count, **figures}
    rows = [one for one in json.loads(RECORD.read_text()) if one["students"] != count] if RECORD.is_file() else []
    kept = sorted((one for one in (*rows, row) if one["lesson"] == card.id), key=lambda one: one["students"])
    RECORD.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
