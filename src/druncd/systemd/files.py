"""Files of a node: those of its kernel and of its systemd, which there is no D-Bus for.

Every node has them, and what is done with them is the same for all; `Files` is how they are
reached. What is gone is no error, since control groups and processes come and go.
"""

import contextlib
import errno
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable


class Files(ABC):
    """The files of one node."""

    @abstractmethod
    async def read(self, path: str) -> str:
        """A file's text without blanks around it, empty where it is gone.

        Raises:
            OSError: it can't be read.
        """

    @abstractmethod
    async def read_again(self, paths: Iterable[str]) -> list[str]:
        """The texts of files that are read over and over, as `read` has them."""

    @abstractmethod
    async def names(self, directory: str) -> list[str]:
        """What is in a directory, nothing where it is gone."""

    @abstractmethod
    async def directories(self, directory: str) -> list[str]:
        """Those of its names that are directories."""

    @abstractmethod
    async def is_directory(self, path: str) -> bool:
        """Whether there is a directory of that name."""

    @abstractmethod
    async def is_program(self, path: str) -> bool:
        """Whether there is a file of that name that can be executed."""

    @abstractmethod
    async def write(self, directory: str, name: str, text: str) -> None:
        """Make a file in a directory that is made with it.

        Raises:
            OSError: it can't be made.
        """

    @abstractmethod
    async def remove(self, paths: Iterable[str]) -> None:
        """Remove files; those that are not there are removed already.

        Raises:
            OSError: one can't be removed; the others are.
        """

    @abstractmethod
    async def remove_directory(self, path: str) -> None:
        """Remove a directory with all in it, where there is one.

        Raises:
            OSError: it can't be removed.
        """

    @abstractmethod
    async def free_bytes(self, directory: str) -> int:
        """How much room there is where a directory is.

        Raises:
            OSError: that can't be found out.
        """


class OwnFiles(Files):
    """Those of the node that druncd runs on. Nothing of it takes long."""

    async def read(self, path: str) -> str:
        """A file's text without blanks around it."""
        try:
            with open(path, "rb", buffering=0) as opened:
                return opened.read().decode(errors="replace").strip()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        except OSError as error:
            # The group went away after its file was opened, see cgroups(7).
            if error.errno == errno.ENODEV:
                return ""
            raise

    async def read_again(self, paths: Iterable[str]) -> list[str]:
        """The texts of files."""
        return [await self.read(path) for path in paths]

    async def names(self, directory: str) -> list[str]:
        """What is in a directory."""
        try:
            return os.listdir(directory)
        except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
            return []

    async def directories(self, directory: str) -> list[str]:
        """Those of its names that are directories."""
        try:
            with os.scandir(directory) as entries:
                return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []

    async def is_directory(self, path: str) -> bool:
        """Whether there is a directory of that name."""
        return os.path.isdir(path)

    async def is_program(self, path: str) -> bool:
        """Whether there is a file of that name that can be executed."""
        return os.access(path, os.X_OK)

    async def write(self, directory: str, name: str, text: str) -> None:
        """Make a file in a directory that is made with it."""
        os.makedirs(directory)
        with open(f"{directory}/{name}", "w") as opened:
            opened.write(text)

    async def remove(self, paths: Iterable[str]) -> None:
        """Remove files."""
        failed = None
        for path in paths:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                failed = error
        if failed is not None:
            raise failed

    async def remove_directory(self, path: str) -> None:
        """Remove a directory with all in it."""
        # Mostly there is none, and rmtree takes long to find that out.
        if os.path.lexists(path):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(path)

    async def free_bytes(self, directory: str) -> int:
        """How much room there is where a directory is."""
        found = os.statvfs(directory)
        return found.f_bavail * found.f_frsize
