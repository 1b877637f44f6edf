"""A disk that is soon full, for the benchmarks and tests of what happens then."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a disk of its own in a container, where nothing can be mounted
SMALL_BYTES = 256 << 20
PIECE = bytes(1 << 14)


@dataclass(frozen=True)
class SmallDisk:
    """A folder on a disk of its own."""

    folder: Path

    @property
    def free_bytes(self) -> int:
        """Bytes that are left on it."""
        status = os.statvfs(self.folder)
        return status.f_bavail * status.f_frsize

    def fill(self, but_bytes: int = 0) -> None:
        """Take all of it, but so many bytes."""
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while self.free_bytes > but_bytes:
                file.write(PIECE[: max(1, min(len(PIECE), self.free_bytes - but_bytes))])

    def free(self) -> None:
        """Give back what was taken."""
        self._filler.unlink(missing_ok=True)

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"


@contextlib.contextmanager
def small_disk(megabytes: int) -> Iterator[SmallDisk]:
    """A disk of some megabytes: a mounted one, or the shared memory of a container where that may
    not be done.

    Raises:
        RuntimeError: if there is neither.
    """
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "tmpfs", folder]
        privileged = [] if os.geteuid() == 0 else ["sudo", "-n"]
        if _succeeds([*privileged, *mount]):
            try:
                yield SmallDisk(Path(folder))
            finally:
                subprocess.run([*privileged, "umount", "--lazy", folder], check=True)
            return
    status = os.statvfs(SHARED_MEMORY)
    if status.f_blocks * status.f_frsize > SMALL_BYTES:
        raise RuntimeError(
            "a small disk is needed: mounting a tmpfs is not permitted, and /dev/shm is no small "
            "one"
        )
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as folder:
        yield SmallDisk(Path(folder))


def _succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
