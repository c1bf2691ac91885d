"""Whether the agent takes a program for one that hangs: its own C, on processes of this machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

AGENT = Path(__file__).parents[2] / "plugin/guest/agent"
ASKED = """
#define _GNU_SOURCE
#include "agent.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs a program in a session of its own, and tells whether it hangs each time that it is asked. */
int main(int argc, char **argv)
{
	pid_t pid = fork();

	if (pid == 0) {
		int ends[2];
		setsid();
		/* What it reads never comes. */
		if (argc < 2 || pipe(ends) < 0 || dup2(ends[0], 0) < 0)
			_exit(126);
		execvp(argv[1], argv + 1);
		_exit(127);
	}
	while (getsid(pid) != pid)
		usleep(1000);
	while (getchar() != EOF) {
		puts(session_hangs(pid) ? "hangs" : "goes on");
		fflush(stdout);
	}
	kill(-pid, SIGKILL);
	return waitpid(pid, NULL, 0) != pid;
}
"""
PYTHON = (sys.executable, "-I", "-S", "-c")
LOCK = "import _thread; lock = _thread.allocate_lock(); lock.acquire(); lock.acquire({})"
WORKER = "import _thread, time; _thread.start_new_thread(time.sleep, (100,)); " + LOCK.format("")


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed")
    folder = tmp_path_factory.mktemp("hangs")
    (folder / "main.c").write_text(ASKED)
    command = ["gcc", "-I", str(AGENT), "-o", str(folder / "asked"), str(folder / "main.c"), str(AGENT / "waiting.c")]
    subprocess.run(command, check=True, timeout=60)
    return folder / "asked"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("sh", "-c", "kill -STOP $$"), "hangs"),
        (("sh", "-c", "sh -c 'kill -STOP $$'; true"), "hangs"),
        ((*PYTHON, LOCK.format("")), "hangs"),
        (("sleep", "100"), "goes on"),
        (("sh", "-c", "sleep 100; true"), "goes on"),
        (("sh", "-c", "sh -c 'kill -STOP $$' & exec sleep 100"), "goes on"),
        (("cat",), "goes on"),
        (("sh", "-c", "while :; do :; done"), "goes on"),
        ((*PYTHON, LOCK.format("timeout=100")), "goes on"),
        ((*PYTHON, WORKER), "goes on"),
    ],
    ids=["stopped", "child", "lock", "sleeps", "waits", "one-of-two", "reads", "busy", "timed", "worker"],
)
def test_who_is_stopped_or_waits_for_itself_hangs_and_nobody_else(
    asked: Path, command: tuple[str, ...], expected: str
) -> None:
    with subprocess.Popen([asked, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout

        def answer() -> str:
            assert process.stdin and process.stdout
            process.stdin.write("\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        # It takes a program some time to come to its end, and one that has just begun another may seem to wait for
        # nobody: the agent looks for half a minute.
        end, alike = time.monotonic() + 20, 0
        while alike < 10:
            assert time.monotonic() < end, expected
            time.sleep(0.05)
            alike = alike + 1 if answer() == expected else 0
        process.stdin.close()
        assert process.wait(10) == 0
