"""The certificates of a listener: read, checked, and read again when the files change."""

import logging
from collections.abc import Iterator
from pathlib import Path

import grpc

from druncd import files

log = logging.getLogger(__name__)


class CertificateError(OSError):
    """The files can't be used; the text says why."""


class Certificates:
    """A listener's certificate with its key, and the authority of its clients' certificates.

    What the files hold is checked before it is used. Where they can't be used when they
    have changed, which they can't between the writing of one and of the other, those
    that were read before stay in force.

    gRPC could be asked to fetch certificates at each handshake. It crashes if they change
    while others shake hands, since it reads what it replaces without its lock (1.85).

    Args:
        certificate: the certificate, with those between it and the authority's, in PEM.
        key: its private key, in PEM, not encrypted.
        client_ca: certificates of authorities, in PEM, of which clients need one signed;
            or None if clients need none.

    Raises:
        CertificateError: the files can't be used.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._seen = self._signature()
        self._contents = self._read()
        self._new = False
        self._told = ""

    def credentials(self) -> grpc.ServerCredentials:
        """What gRPC takes for a server."""
        certificate, key, *authorities = self._contents
        return grpc.ssl_server_credentials(
            [(key, certificate)],
            authorities[0] if authorities else None,
            require_client_auth=bool(authorities),
        )

    def reload(self) -> bool:
        """Read the files again if they have changed; whether something new is not in force."""
        seen = self._signature()
        if seen != self._seen:
            try:
                contents = self._read()
            except CertificateError as error:
                # Tried again each time, since it may be no fault of the files'.
                if self._told != str(error):
                    self._told = str(error)
                    log.error("the certificates that were read before stay in force: %s", error)
            else:
                self._new = self._new or contents != self._contents
                self._contents, self._seen, self._told = contents, seen, ""
        return self._new

    def in_force(self) -> None:
        """Take note that what was read last is used."""
        self._new = False

    def _files(self) -> Iterator[Path]:
        yield self._certificate
        yield self._key
        if self._client_ca is not None:
            yield self._client_ca

    def _signature(self) -> list[tuple[int, ...]]:
        """What changes when one of the files does."""
        return [files.signature(file) for file in self._files()]

    def _read(self) -> list[bytes]:
        """The contents of the files.

        Raises:
            CertificateError: they can't be used.
        """
        try:
            contents = [file.read_bytes() for file in self._files()]
        except OSError as error:
            raise CertificateError(f"{error.filename}: {error.strerror}") from error
        self._check()
        return contents

    def _check(self) -> None:
        """Make sure that the files are what they should be; gRPC would refuse every client."""
        try:
            files.check_certificate(self._certificate, self._key)
        except files.PemError as error:
            raise CertificateError(
                f"{self._certificate} and {self._key} are no certificate and its key in PEM:"
                f" {error}"
            ) from error
        if self._client_ca is None:
            return
        try:
            files.check_authority(self._client_ca)
        except files.PemError as error:
            raise CertificateError(
                f"{self._client_ca} holds no certificate in PEM: {error}"
            ) from error
