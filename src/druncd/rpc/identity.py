"""Who calls: what each way of authentication makes of a request's token and its connection."""

import dataclasses
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence

from druncd import tokens
from druncd.errors import NotAuthenticated, shown
from druncd.permission import Caller, Policy, Rights
from druncd.rpc.failures import Context
from druncd.tokens import Tokens
from druncschema.token_pb2 import Token

# Where gRPC has the parts of a client's certificate that it has verified.
_PROPERTIES = {
    "cn": "x509_common_name",
    "email": "peer_email",
    "dns": "peer_dns",
    "uri": "peer_uri",
}


class Authentication(ABC):
    """How a listener's clients show who they are."""

    @abstractmethod
    def user(self, token: Token, context: Context) -> str | None:
        """Who calls, None where nobody has to show that.

        Raises:
            NotAuthenticated: that was not shown.
        """


class Gate:
    """Tells, of each call at a listener, who asks and what that caller may do.

    Args:
        listener: its address.
        authentication: how its clients show who they are.
        policy: the rules.
        administrators: whether all who reach it are.
    """

    def __init__(
        self,
        listener: str,
        authentication: Authentication,
        policy: Policy,
        *,
        administrators: bool,
    ) -> None:
        self.listener = listener
        self._authentication = authentication
        self._policy = policy
        self._administrators = administrators

    @property
    def authenticates(self) -> bool:
        """Whether clients have to show who they are."""
        return not isinstance(self._authentication, NoAuthentication)

    async def rights(self, token: Token, caller: Caller, context: Context) -> Rights:
        """What a caller may do, of whom nothing is known yet but what it says.

        Raises:
            NotAuthenticated: it has not shown who it is, and has to.
        """
        caller = dataclasses.replace(
            caller,
            user=self._authentication.user(token, context),
            administrator=self._administrators,
        )
        return await self._policy.rights(caller)


class NoAuthentication(Authentication):
    """Nobody shows anything; what a request's token says is a label."""

    def user(self, token: Token, context: Context) -> str | None:
        """Nobody."""
        return None


class ByToken(Authentication):
    """A request's token is a secret of the user that it names."""

    def __init__(self, known: Tokens) -> None:
        self._known = known

    def user(self, token: Token, context: Context) -> str | None:
        """Who has the request's token.

        Raises:
            NotAuthenticated: the user has no such token, or there is no such user.
        """
        if not token.user_name or not token.token:
            raise NotAuthenticated(
                "the request's token has no user_name or no token, and this listener needs both:"
                " an administrator of the node makes a token by: druncctl token add USER"
            )
        if not self._known.right(token.user_name, token.token):
            raise NotAuthenticated(
                f"{shown(token.user_name)} has no such token, or it has expired: an"
                " administrator of the node makes a token by: druncctl token add USER"
            )
        return token.user_name


class ByCertificate(Authentication):
    """The user's name is in the certificate, which gRPC has verified.

    Args:
        sources: where it is: "cn", "email", "dns" or "uri", a colon, and a regular
            expression for the whole of that, whose only group is the name. The first
            that matches decides.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self._sources = [
            (source, re.compile(pattern))
            for source, _, pattern in (text.partition(":") for text in sources)
        ]

    def user(self, token: Token, context: Context) -> str | None:
        """Whose certificate it is.

        Raises:
            NotAuthenticated: the certificate names nobody, or several, or another than
                the request does.
        """
        properties = context.auth_context()
        for source, pattern in self._sources:
            texts = [
                text.decode(errors="replace") for text in properties.get(_PROPERTIES[source], ())
            ]
            users = {match[1] for text in texts if (match := pattern.fullmatch(text)) and match[1]}
            if len(users) > 1:
                raise NotAuthenticated(f"the certificate is of several users: {sorted(users)}")
            for user in users:
                if token.user_name not in ("", user):
                    raise NotAuthenticated(
                        f"the certificate is of {shown(user)}, and the request's user_name is"
                        f" {shown(token.user_name)}: make it the same, or leave it empty"
                    )
                if not tokens.is_user(user):
                    raise NotAuthenticated(
                        f"the certificate is of {shown(user)}, which can't be the name of a user"
                    )
                return user
        wanted = ", ".join(f"{source}:{pattern.pattern}" for source, pattern in self._sources)
        raise NotAuthenticated(f"the certificate names no user: [[listen]] identity wants {wanted}")
