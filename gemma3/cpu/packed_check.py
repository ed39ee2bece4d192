"""The full check of a packed file, after the start: every byte against the SHA-256 of its header.

Owns what follows from damage: the file goes, so that the next load packs anew. A start checks
samples only, because hashing 270 MB takes 0.2 to 0.7 s. Runs on a thread of its own, beside the
model that reads the same bytes.
"""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from gemma3.errors import CheckpointError
from gemma3.files.held_file import HeldFile

log = logging.getLogger("gemma3")


@dataclass(frozen=True, slots=True)
class PackedCheck:
    """``file`` lies at ``path``; its data begins at byte ``data_start`` and was packed as ``sha256``."""

    file: HeldFile
    path: Path
    data_start: int
    sha256: str

    def run(self, delay_s: float) -> None:
        """After a while, take the file into memory and check it. Once; it takes seconds, since others compute.

        Raises:
            CheckpointError: it is damaged, and removed. What was computed with it may be wrong.
        """
        try:
            if self._taken_sha256(delay_s) == self.sha256:
                return
        except OSError as error:
            log.warning("%s cannot be taken into memory and is not checked (%s).", self.path, error.strerror)
            return
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise CheckpointError(f"{self.path} is damaged, and cannot be removed ({error.strerror}).") from error
        raise CheckpointError(f"{self.path} is damaged; it was removed, and the weights will be packed anew.")

    def _taken_sha256(self, delay_s: float) -> str | None:
        """``None``: it has become shorter. Raises ``OSError`` for what says nothing about the file."""
        digest, num_before_data = hashlib.sha256(), self.data_start
        try:
            for chunk in self.file.take(delay_s):
                digest.update(chunk[num_before_data:])
                num_before_data = max(0, num_before_data - len(chunk))
        except OSError as error:
            if error.errno:
                raise
            return None
        return digest.hexdigest()
