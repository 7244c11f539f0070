"""JupyterHub for a class on one machine: every student gets a server of their own, and a copy of the lessons.

Start it in the folder of the clone, with the course's environment active:

    PFMCOURSE_CLASS_PASSWORD=... jupyterhub --config docs/jupyterhub_config.py

All servers run as the user who started the hub (the simple local spawner), so students are separated from each other's
mistakes, not from each other's curiosity: use it in a room you trust. Everyone picks a name and gives the one password.
"""

import os
import subprocess
import sys
from pathlib import Path

CLONE = Path(__file__).resolve().parent.parent
HOMES = Path(os.environ.get("PFMCOURSE_CLASS", CLONE / "runs" / "class"))  # one folder a student
LESSONS = os.environ.get("PFMCOURSE_CLASS_LESSONS", "").split()  # empty: all of them
PASSWORD = os.environ.get("PFMCOURSE_CLASS_PASSWORD", "")
if len(PASSWORD) < 8:
    raise SystemExit("Set PFMCOURSE_CLASS_PASSWORD to the password of the class, eight characters or more.")

c = get_config()  # noqa: F821 (JupyterHub defines it)

c.JupyterHub.bind_url = os.environ.get("PFMCOURSE_CLASS_URL", "http://:8000")
c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = PASSWORD
c.Authenticator.allow_all = True

c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = str(HOMES / "{username}")
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.default_url = "/lab"
c.Spawner.start_timeout = 120  # thirty servers that start at once take their time

# Threads: thirty lessons with every core each would spend their time waiting for each other.
THREADS = os.environ.get("PFMCOURSE_CLASS_THREADS", "1")
c.Spawner.environment = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), THREADS),
    "PFMCOURSE_OFFLINE": "1",
    "PFMCOURSE_PRESET": os.environ.get("PFMCOURSE_PRESET", "laptop"),
}
# A kernel that nobody uses gives its memory back after half an hour, a server that nobody uses after an hour.
c.Spawner.args = [
    "--MappingKernelManager.cull_idle_timeout=1800",
    "--MappingKernelManager.cull_interval=120",
    "--MappingKernelManager.cull_connected=True",
    "--ServerApp.shutdown_no_activity_timeout=3600",
    "--LabApp.extension_manager=readonly",
]
if hasattr(os, "geteuid") and os.geteuid() == 0:  # in a container, say
    c.Spawner.args.append("--allow-root")

c.JupyterHub.db_url = f"sqlite:///{HOMES}/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = str(HOMES / "cookie_secret")
c.ConfigurableHTTPProxy.pid_file = str(HOMES / "proxy.pid")
HOMES.mkdir(parents=True, exist_ok=True, mode=0o700)


def give_lessons(spawner):
    """Put the student copies into a new student's folder; work that is there is never touched."""
    home = HOMES / spawner.user.name
    ledger = {"PFMCOURSE_LEDGER": str(home / "results.json")}  # everyone keeps their own
    spawner.environment = {**spawner.environment, **ledger}
    if not (home / "lessons").exists():
        chosen = [word for lesson in LESSONS for word in ("--lesson", lesson)]
        command = [sys.executable, "-m", "pfmcourse", "student", str(home / "lessons"), *chosen]
        subprocess.run(command, check=True, cwd=CLONE)


c.Spawner.pre_spawn_hook = give_lessons
