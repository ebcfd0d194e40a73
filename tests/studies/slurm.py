"""A stand-in for Slurm on one machine: sbatch, srun, scontrol and sacct as far as submitit calls them, in real processes.

Like Slurm it gives a job array its environment, kills what is left of a job once its command has ended, and begins a job again
that `scontrol requeue` asked for. Nodes, queues, limits and accounting there are none.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

ARRAY = 100  # number of the only job array
PLACE = "SLURM_STAND_IN"


def install(place: Path) -> dict[str, str]:
    """Writes the four programs; gives the environment in which they are found."""
    programs = place / "bin"
    programs.mkdir(parents=True)
    for name in ("sbatch", "srun", "scontrol", "sacct"):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" {name} "$@"\n')
        (programs / name).chmod(0o755)
    return {"PATH": f"{programs}:{os.environ['PATH']}", PLACE: str(place)}


def tell(place: Path, task: int, number: signal.Signals) -> None:
    """Sends a signal as Slurm does: to every process of the job but its batch shell."""
    leader = int((place / f"{ARRAY}_{task}.process").read_text())
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
            if session == leader and int(entry.name) != leader:
                os.kill(int(entry.name), number)
        except OSError:  # ended meanwhile
            continue


def sbatch(place: Path, script: str) -> None:
    found = re.search(r"--array=0-(\d+)", Path(script).read_text())
    for task in range(int(found[1]) + 1 if found else 1):
        with (place / "slurmd.txt").open("ab") as log:
            command = [sys.executable, __file__, "slurmd", script, str(task)]
            subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    print(f"Submitted batch job {ARRAY}")


def slurmd(place: Path, script: str, number: str) -> None:
    """Runs one job of the array to its end, as often as it is queued again."""
    task = int(number)
    identity = {"SLURM_JOB_ID": str(ARRAY + 1 + task), "SLURM_ARRAY_JOB_ID": str(ARRAY), "SLURM_ARRAY_TASK_ID": number}
    again = place / f"{ARRAY}_{task}.requeue"
    while True:
        job = subprocess.Popen(["bash", script], env=os.environ | identity, start_new_session=True)
        (place / f"{ARRAY}_{task}.process").write_text(str(job.pid))
        job.wait(300)
        try:
            os.killpg(job.pid, signal.SIGKILL)
        except ProcessLookupError:
            print("nothing was left of the job", flush=True)
        if not again.exists():
            (place / f"{ARRAY}_{task}.ended").touch()
            return
        again.unlink()


def srun(_: Path, *words: str) -> None:
    """Runs the command in this process, with what it says in the files that are asked for."""
    options, command = dict(zip(words[1:5:2], words[2:5:2], strict=True)), words[5:]
    assert words[0] == "--unbuffered"
    assert list(options) == ["--output", "--error"]
    name = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    for number, path in enumerate(options.values(), start=1):
        full = Path(path.replace("%A_%a", name).replace("%j", name).replace("%t", "0"))
        full.parent.mkdir(parents=True, exist_ok=True)
        os.dup2(os.open(full, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.execvp(command[0], command)


def scontrol(place: Path, action: str, job: str) -> None:
    assert action == "requeue"
    (place / f"{job}.requeue").touch()


def sacct(place: Path, *_: str) -> None:
    print("JobID|State|NodeList")
    for file in place.glob("*.process"):
        print(f"{file.stem}|{'COMPLETED' if file.with_suffix('.ended').exists() else 'RUNNING'}|here")


if __name__ == "__main__":
    programs = {"sbatch": sbatch, "slurmd": slurmd, "srun": srun, "scontrol": scontrol, "sacct": sacct}
    programs[sys.argv[1]](Path(os.environ[PLACE]), *sys.argv[2:])
