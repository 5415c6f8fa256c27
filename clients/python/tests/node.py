"""A real daemon for the tests, on a state directory of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Callable, List, Optional, TypeVar

T = TypeVar("T")

BINS = os.environ.get("GAFFER_TEST_BINS", "")


def wait_for(what: str, answer: Callable[[], Optional[T]], within: float = 60.0) -> T:
    """Asks until there is an answer."""
    deadline = time.monotonic() + within
    while True:
        found = answer()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {within} s in vain: {what}")
        time.sleep(0.01)


class Node:
    """Starts with its construction; `close` ends it with all jobs."""

    def __init__(self, *arguments: str) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="gaffer-py-"))
        self.socket = self.root / "gaffer.sock"
        self.log = self.root / "log"
        self.words: List[str] = [
            os.path.join(BINS, "gafferd"),
            "--socket", str(self.socket),
            "--state-dir", str(self.root / "state"),
            *(arguments or ("--bind", "none")),
        ]
        self._start()

    def _start(self) -> None:
        env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(self.root)}
        with open(self.log, "wb") as log:
            self.daemon = subprocess.Popen(
                self.words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, env=env
            )
        try:
            self.ready = wait_for("gafferd ready", self._ready)
        except BaseException:
            self.close()
            raise

    def _ready(self) -> Optional[str]:
        text = self.log.read_text(errors="replace")
        if self.daemon.poll() is not None:
            raise AssertionError(f"gafferd ended: {text}")
        lines = [line for line in text.splitlines(True) if "gafferd ready" in line and line.endswith("\n")]
        return lines[0] if lines else None

    def restart(self) -> None:
        """Another daemon in the place of this one."""
        self.daemon.kill()
        self.daemon.wait()
        self._start()

    @property
    def url(self) -> str:
        """Over TCP, if it listens there."""
        return "http://" + self.ready.split("listen=")[1].split()[0].split(",")[0]

    @property
    def endpoint(self) -> str:
        return f"unix:{self.socket}"

    def close(self) -> None:
        if self.daemon.poll() is None:
            self.daemon.terminate()
            try:
                self.daemon.wait(60)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
        shutil.rmtree(self.root, ignore_errors=True)
