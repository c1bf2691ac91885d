"""nbdkit at a socket, as a channel of a device VM: it can be killed, and its content stays."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

MIB = 2**20


class NbdServer:
    """One peer after the other, as a channel has them."""

    def __init__(self, folder: Path, size: int = 8 * MIB) -> None:
        self.socket, self.image = folder / "channel", folder / "image"
        if not self.image.exists():
            self.image.write_bytes(bytes(size))
        self.process = subprocess.Popen(
            ["nbdkit", "--foreground", "--unix", str(self.socket), "file", str(self.image)], stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while not self.socket.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def kill(self) -> None:
        """It is gone from one moment to the next."""
        self.process.kill()
        self.process.wait()
        self.socket.unlink()
