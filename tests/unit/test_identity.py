"""Who calls, by what a request and its connection show."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import pytest

from druncd import tokens
from druncd.errors import NotAuthenticated
from druncd.rpc.failures import Context
from druncd.rpc.identity import ByCertificate, ByToken, NoAuthentication
from druncd.tokens import Tokens
from druncschema.token_pb2 import Token


class Connection:
    """What gRPC tells of a connection whose client's certificate it has verified."""

    def __init__(self, **properties: Sequence[str]) -> None:
        self._properties = properties

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return {name: [text.encode() for text in found] for name, found in self._properties.items()}


def user(sources: Sequence[str], name: str = "", **properties: Sequence[str]) -> str | None:
    context = cast("Context", Connection(**properties))
    return ByCertificate(sources).user(Token(user_name=name), context)


def test_the_first_source_that_matches_decides() -> None:
    sources = ["email:(.*)@cern\\.ch", "uri:spiffe://daq/(.*)", "cn:(.*)"]
    assert user(sources, peer_email=["ada@cern.ch"], x509_common_name=["ben"]) == "ada"
    assert user(sources, peer_email=["ada@cern.ch.x"], x509_common_name=["ben"]) == "ben"
    assert user(sources, peer_uri=["spiffe://daq/eve"], x509_common_name=["ben"]) == "eve"
    assert user(sources, name="ben", x509_common_name=["ben"]) == "ben"


@pytest.mark.parametrize(
    ("sources", "name", "properties", "words"),
    [
        (["cn:(.*)"], "", {}, "names no user"),
        (["cn:(.*)"], "", {"x509_common_name": [""]}, "names no user"),
        (["dns:(.*)\\.daq"], "", {"peer_dns": ["ada.daq", "ben.daq"]}, "several users"),
        (["cn:(.*)"], "ben", {"x509_common_name": ["ada"]}, "the certificate is of 'ada'"),
        (["cn:(.*)"], "", {"x509_common_name": ["@daq"]}, "can't be the name of a user"),
        (["cn:(.*)"], "", {"x509_common_name": ["*"]}, "can't be the name of a user"),
        (["cn:(.*)"], "", {"x509_common_name": ["a\nb"]}, "names no user"),
        (["cn:([^ ]*)"], "", {"x509_common_name": ["a\x00b"]}, "can't be the name of a user"),
    ],
)
def test_a_certificate_that_does_not_say_clearly_who_it_is_is_refused(
    sources: Sequence[str], name: str, properties: Mapping[str, Sequence[str]], words: str
) -> None:
    with pytest.raises(NotAuthenticated, match=words):
        user(sources, name, **properties)


def test_a_token_is_of_the_user_whom_it_names(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    _, secret = tokens.add(file, "ada")
    known = ByToken(Tokens(file))
    context = cast("Context", Connection())
    assert known.user(Token(user_name="ada", token=secret), context) == "ada"
    for given in (Token(), Token(user_name="ada"), Token(token=secret)):
        with pytest.raises(NotAuthenticated, match="needs both"):
            known.user(given, context)
    with pytest.raises(NotAuthenticated, match="'ben' has no such token"):
        known.user(Token(user_name="ben", token=secret), context)
    assert NoAuthentication().user(Token(user_name="ada", token=secret), context) is None
