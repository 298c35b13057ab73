"""A program that does as nvidia-cuda-mps-control does, as far as raykd asks it to."""

from pathlib import Path

import psutil

from raykd.driver import mps

PID = "nvidia-cuda-mps-control.pid"
# By -d it serves, from a process of its own that writes its id, until it reads "quit" in another call.
PROGRAM = f"""#!/bin/sh
folder=$CUDA_MPS_PIPE_DIRECTORY
if [ "$1" = -d ]; then
    sleep 1000 <&- & echo $! > "$folder/{PID}"; touch "$folder/control"
elif [ "$(cat)" = quit ]; then
    kill "$(cat "$folder/{PID}")"
fi
"""


def write_control(folder: Path) -> Path:
    """Writes the program into a new folder, which it returns: to be put on PATH."""
    folder.mkdir()
    (folder / mps.CONTROL).write_text(PROGRAM)
    (folder / mps.CONTROL).chmod(0o755)
    return folder


def find_daemon(folder: Path) -> psutil.Process:
    """Returns the daemon that serves from a folder."""
    return psutil.Process(int((folder / PID).read_text()))
