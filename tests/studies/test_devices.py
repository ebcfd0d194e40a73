"""GPUs are shared out among jobs: real processes, made-up devices."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from src.errors import UserError
from src.studies.devices import BusyError, list_devices, offer_devices, take_device

# Takes a device and starts a child, as a sweep does; the child says when it has it and when it lets go of it.
HOLDER = """
import subprocess, sys
from src.studies.devices import take_device
with take_device("auto") as options:
    subprocess.run([sys.executable, "-c", sys.argv[1]], check=True, **options)
"""
WORK = """
import os, time
def say(word):
    with open("log", "a") as file:
        file.write(f"{word} {os.environ['CUDA_VISIBLE_DEVICES']} {os.getpid()}\\n")
say("begin"); time.sleep(SECONDS); say("end")
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for name in ("CUDA_VISIBLE_DEVICES", "SUBMITIT_EXECUTOR", "TRAIN_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def install_driver(place: Path, count: int) -> None:
    (place / "bin").mkdir()
    listing = "".join(f"GPU {n}: NVIDIA Something (UUID: GPU-abc{n})\n" for n in range(count))
    program = place / "bin" / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '%s' '{listing}'\n")
    program.chmod(0o755)


def hold(place: Path, seconds: float, devices: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", HOLDER, WORK.replace("SECONDS", str(seconds))]
    return subprocess.Popen(command, cwd=place, env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": devices})


def read_log(place: Path) -> list[list[str]]:
    file = place / "log"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def wait_for_lines(place: Path, count: int) -> list[list[str]]:
    end = time.monotonic() + 60
    while len(lines := read_log(place)) < count:
        assert time.monotonic() < end
        time.sleep(0.05)
    return lines


def test_who_does_not_wait_is_told_that_every_gpu_is_busy(place: Path) -> None:
    holder = hold(place, 600, "0")
    ((_, _, child),) = wait_for_lines(place, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "0")
        with pytest.raises(BusyError, match=r"^every GPU is busy$"), take_device("auto", wait=False):
            pass
        patch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        with take_device("auto", wait=False) as options:
            assert options["env"]["CUDA_VISIBLE_DEVICES"] == "1"
    os.kill(int(child), signal.SIGKILL)
    holder.wait(30)


@pytest.mark.parametrize(("devices", "jobs"), [(4, 8), (8, 4)])
def test_no_two_jobs_are_on_one_device(place: Path, devices: int, jobs: int) -> None:
    names = ",".join(str(number) for number in range(devices))
    processes = [hold(place, 0.5, names) for _ in range(jobs)]
    assert [process.wait(120) for process in processes] == [0] * jobs
    busy: set[str] = set()
    used: set[str] = set()
    for word, device, _ in read_log(place):
        if word == "begin":
            assert device not in busy
            used.add(device)
            busy.add(device)
        else:
            busy.remove(device)
    assert len(read_log(place)) == 2 * jobs
    assert used <= set(names.split(","))
    assert len(used) == min(devices, jobs)
    assert not busy


def test_a_killed_holder_frees_its_device_once_its_child_has_ended(place: Path) -> None:
    first = hold(place, 2, "0")
    wait_for_lines(place, 1)
    second = hold(place, 0, "0")
    first.send_signal(signal.SIGKILL)
    assert first.wait(30) == -signal.SIGKILL
    time.sleep(0.3)
    assert len(read_log(place)) == 1  # the child works on
    assert second.wait(60) == 0
    assert [word for word, _, _ in read_log(place)] == ["begin", "end", "begin", "end"]


def test_a_killed_group_frees_its_device(place: Path) -> None:
    first = hold(place, 600, "0")
    ((_, _, child),) = wait_for_lines(place, 1)
    os.kill(int(child), signal.SIGKILL)
    first.kill()
    first.wait(30)
    second = hold(place, 0, "0")
    assert second.wait(60) == 0


def test_devices_are_those_that_cuda_may_see_else_those_of_the_driver(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(place / "bin"))  # no driver
    assert list_devices() == {}
    with take_device("auto") as options:
        assert options == {"env": dict(os.environ)}
    install_driver(place, 2)
    assert list_devices() == {"GPU-abc0": "GPU-abc0", "GPU-abc1": "GPU-abc1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert list_devices() == {"1": "GPU-abc1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,-1,0")
    assert list_devices() == {"1": "GPU-abc1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert list_devices() == {}


def test_submitit_hides_gpus_from_local_jobs_and_they_are_found_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_driver(place, 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    offer_devices()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    assert list(list_devices()) == ["2", "3"]
    monkeypatch.delenv("TRAIN_VISIBLE_DEVICES")
    assert len(list_devices()) == 4
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    assert list_devices() == {}


def test_a_job_takes_what_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    with take_device("cpu") as options:
        assert "pass_fds" not in options
    with take_device("cuda:1") as second, take_device("auto") as free:
        assert second["env"]["CUDA_VISIBLE_DEVICES"] == "4,5"  # where cuda:1 is 5
        assert free["env"]["CUDA_VISIBLE_DEVICES"] == "4"


def test_a_folder_that_others_can_write_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with take_device("auto"):
        pass
    (folder,) = place.glob("train_devices_*")
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    with pytest.raises(UserError, match="open to others"), take_device("auto"):
        pass
