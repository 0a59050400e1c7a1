"""Files that others write while they are in use: what changes with them, and what PEM they hold."""

import contextlib
import os
import ssl
from pathlib import Path


class PemError(Exception):
    """A file in PEM can't be used; the text says why, without its name."""


def signature(file: Path) -> tuple[int, ...]:
    """What changes when a file does; empty where there is none."""
    with contextlib.suppress(OSError):
        now = os.stat(file)
        return now.st_mtime_ns, now.st_ctime_ns, now.st_ino, now.st_size
    return ()


def check_certificate(certificate: Path, key: Path) -> None:
    """Make sure that files hold a certificate and its key; gRPC would only fail to connect.

    Raises:
        PemError: they don't, or the key is encrypted.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise PemError(_reason(error)) from error


def check_authority(file: Path) -> None:
    """Make sure that a file holds certificates.

    Raises:
        PemError: it doesn't.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(file)
    except (ssl.SSLError, OSError) as error:
        raise PemError(_reason(error)) from error


def _no_password() -> str:
    raise ValueError("the key is encrypted, and there is nobody to ask for its password")


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
