"""The doctor finds what is wrong, says what to do, and works where packages are missing."""

import importlib
import subprocess
import sys

import pytest

from pfmcourse.base import CourseError
from pfmcourse.course import doctor
from pfmcourse.data import source


def levels(findings):
    return {finding.what: finding.level for finding in findings}


def test_this_machine_is_fine():
    findings = [finding for check in (doctor.check_python, doctor.check_packages) for finding in check()]
    assert doctor.healthy(findings), findings
    assert levels(findings)["packages"] == doctor.OK


def test_packages(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text(
        "# Direct\n-e .\nnumpy>=1  # fine\nrich==0.0.1  # another version\nno-such-package==1.0  # missing\n"
        'dgl==9; python_version < "3"  # no wheel\n# Tests\nno-such-tester==2  # missing, lessons run\n',
        encoding="utf-8",
    )
    findings = {finding.what: finding for finding in doctor.check_packages(path)}
    assert findings["no-such-package"].level == doctor.PROBLEM
    assert findings["no-such-package"].do == "python -m pip install 'no-such-package==1.0'"
    assert findings["rich"].level == doctor.ADVICE and "not ==0.0.1" in findings["rich"].found
    assert findings["no-such-tester"].level == doctor.ADVICE
    assert findings["dgl"].level == doctor.ADVICE and "has no wheel" in findings["dgl"].found
    assert findings["packages"].found.startswith("1 installed")


def test_an_old_python(monkeypatch):
    monkeypatch.setattr(doctor, "PYTHON", (3, 99))
    (finding,) = doctor.check_python()
    assert finding.level == doctor.PROBLEM and "3.99" in finding.do


def test_a_preset_that_does_not_exist(monkeypatch):
    monkeypatch.setenv("PFMCOURSE_PRESET", "smok")
    (finding,) = doctor.check_settings()
    assert finding.level == doctor.PROBLEM and "'smoke'" in finding.found


@pytest.mark.parametrize(
    ("broken", "error", "what"),
    [
        ("torch", ImportError("no torch"), "torch"),
        ("torchvision", RuntimeError("operator torchvision::nms does not exist"), "torchvision"),
    ],
)
def test_torch_that_does_not_load(monkeypatch, broken, error, what):
    real = importlib.import_module

    def import_module(name, *arguments):
        if name == broken:
            raise error
        return real(name, *arguments)

    monkeypatch.setattr(importlib, "import_module", import_module)
    found = {finding.what: finding for finding in doctor.check_torch()}
    assert found[what].level == doctor.PROBLEM
    assert str(error) in found[what].found
    assert "pip install" in found[what].do


def test_little_memory_and_disk(monkeypatch, tmp_path):
    assert doctor.PROBLEM not in levels(doctor.check_machine(tmp_path)).values()
    monkeypatch.setattr(doctor, "MEMORY_WANTED", 1e18)
    monkeypatch.setattr(doctor, "DISK_WANTED", 1e18)
    found = levels(doctor.check_machine(tmp_path))
    assert found["memory"] == found["disk"] == doctor.ADVICE
    monkeypatch.setattr(doctor, "MEMORY_NEEDED", 1e17)
    monkeypatch.setattr(doctor, "DISK_NEEDED", 1e17)
    found = levels(doctor.check_machine(tmp_path))
    assert found["memory"] == found["disk"] == doctor.PROBLEM


def test_altered_data(monkeypatch):
    def verified(name):
        if name == "digits":
            raise CourseError("expected SHA-256 a, found b. Reinstall it with: pip ...")

    monkeypatch.setattr(source, "verified", verified)
    found = levels(doctor.check_data())
    assert found["data: digits"] == doctor.PROBLEM
    assert found["data: shakespeare"] == doctor.OK


def test_a_check_that_breaks_is_a_finding(monkeypatch):
    def check_weather():
        raise ZeroDivisionError("rain")
        yield

    monkeypatch.setattr(doctor, "CHECKS", (check_weather,))
    findings = doctor.examine()
    assert levels(findings) == {"weather": doctor.PROBLEM, "network": doctor.OK}
    said = []
    doctor.show(findings, said.append)
    assert any("ZeroDivisionError: rain" in line for line in said)
    assert said[-1] == "1 problem to solve."


def test_it_works_where_almost_nothing_is_installed():
    program = """
import runpy, sys
for name in ("torch", "typer", "rich", "packaging", "psutil", "yaml", "filelock"):
    sys.modules[name] = None  # an import of it fails
sys.argv = ["pfmcourse", *sys.argv[1:]]
runpy.run_module("pfmcourse", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", program, "doctor"], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 1, done.stderr
    assert "cannot be imported" in done.stdout and doctor.INSTALL in done.stdout
    assert "to solve." in done.stdout.splitlines()[-1]
    assert done.stderr == ""
    done = subprocess.run([sys.executable, "-c", program, "list"], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 1
    assert "python -m pfmcourse doctor" in done.stderr and "Traceback" not in done.stderr
