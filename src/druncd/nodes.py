"""The nodes that processes run on: this one, and those of the configuration."""

import asyncio
import dataclasses
import heapq
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from druncd import host
from druncd.errors import NodeAway, NotHere, Unavailable, listed, shown
from druncd.process import Description, Life, NodeState, Process, Usage
from druncd.systemd.node import Node

log = logging.getLogger(__name__)

# How long a start waits for nodes to be connected to, so that the first answers have all.
ARRIVAL_SECONDS = 3.0

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class View(Generic[R]):
    """What there is on all nodes; of those in trouble, by name, as it was last known."""

    items: list[R]
    troubles: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Site:
    """Another node, and what it is called beside its name."""

    node: Node
    aliases: tuple[str, ...] = ()

    def is_called(self, name: str) -> bool:
        """Whether a host's name means this node."""
        return any(host.is_called(name, each) for each in (self.node.hostname, *self.aliases))


class Nodes:
    """All nodes.

    Args:
        local: the one that druncd runs on.
        sites: the others.
    """

    def __init__(self, local: Node, sites: Sequence[Site] = ()) -> None:
        self.local = local
        self._sites = sites
        self._named = {each.hostname: each for each in (local, *(site.node for site in sites))}

    def __iter__(self) -> Iterator[Node]:
        return iter(self._named.values())

    @property
    def several(self) -> bool:
        """Whether there are others beside this one."""
        return bool(self._sites)

    async def open(self) -> None:
        """Connect to this node, and begin to connect to the others.

        Raises:
            Unavailable: this node's systemd can't be reached.
        """
        await self.local.open()
        others = [site.node for site in self._sites]
        for node in others:
            node.begin()
        if others:
            arrivals = [asyncio.create_task(node.wait_reachable()) for node in others]
            await asyncio.wait(arrivals, timeout=ARRIVAL_SECONDS)
            for arrival in arrivals:
                arrival.cancel()

    async def close(self) -> None:
        """Disconnect; no process notices."""
        await asyncio.gather(*(node.close() for node in self._named.values()))

    def of(self, process: Process) -> Node:
        """The node that a process is on."""
        return self._named[process.description.hostname]

    async def choose(self, description: Description) -> Node:
        """The node that a process is to run on: the first of its hosts that can be reached.

        Raises:
            NotHere: none of its hosts is a node that is known.
            NodeAway: those that are known can't be reached.
        """
        hosts = description.restriction.hosts
        if not hosts:
            return self.local
        here = self.local.hostname
        unknown = [each for each in hosts if self._find(each) is None]
        resolved = await host.resolved_here(unknown) if len(unknown) == len(hosts) else None
        reasons: dict[str, str] = {}
        for each in hosts:
            if each in reasons:
                continue
            node = self._find(each)
            if node is None and resolved is None:
                # It is not asked of a name server what will not matter.
                resolved = await host.resolved_here(unknown)
            if node is None and each in (resolved or ()):
                node = self.local
            if node is None:
                reasons[each] = f"{shown(each)} is not known"
            elif node.away:
                reasons[each] = f"{shown(each)} can't be reached: {node.trouble}"
            else:
                return node
        name = shown(description.name)
        if not self._sites:
            raise NotHere(
                f"{name} may run on {host.listed(hosts)} only, and this node is {here!r}: name it"
                " in allowed_hosts, or leave allowed_hosts empty"
            )
        text = f"{name} can't be started on any of its allowed_hosts: " + listed(
            list(reasons.values())
        )
        if any(self._find(each) is not None for each in reasons):
            raise NodeAway(text)
        names = ", ".join(map(repr, self._named))
        raise NotHere(
            f"{text}; the nodes are {names}, and [[node]] tables in druncd's configuration add more"
        )

    def name_of(self, alias: str) -> str:
        """The name of the node that is meant, or what is given if none is."""
        node = self._find(alias)
        return alias if node is None else node.hostname

    def _find(self, name: str) -> Node | None:
        """The node that a name, or an address, means by itself."""
        if host.is_here(name, self.local.hostname):
            return self.local
        return next((site.node for site in self._sites if site.is_called(name)), None)

    async def processes(self) -> View[Process]:
        """All processes, those booted first coming first: as of now, or as they were last known.

        Raises:
            Unavailable: this node's systemd can't be reached.
        """
        if not self._sites:
            return View(await self.local.processes(), {})
        found, troubles = await self._all(Node.processes, Node.known)
        merged = heapq.merge(*found, key=lambda process: process.description.booted)
        return View(list(merged), troubles)

    async def lives(self) -> View[tuple[Process, Life]]:
        """All processes as `processes` returns them, each with its last run."""
        found, troubles = await self._all(Node.lives, Node.known_lives)
        merged = heapq.merge(*found, key=lambda item: item[0].description.booted)
        return View(list(merged), troubles)

    async def usage(self, processes: Sequence[Process]) -> dict[str, Usage]:
        """What processes use, by uuid, as far as there is something left and can be asked for."""

        async def used(node: Node) -> dict[str, Usage]:
            there = [each for each in processes if each.description.hostname == node.hostname]
            if not there or node.away:
                return {}
            try:
                return await node.while_reachable(node.usage(there))
            except Unavailable:
                return {}

        found = await asyncio.gather(*map(used, self._named.values()))
        return {uuid: usage for each in found for uuid, usage in each.items()}

    async def _all(
        self,
        ask: Callable[[Node], Awaitable[list[R]]],
        known: Callable[[Node], list[R]],
    ) -> tuple[list[list[R]], dict[str, str]]:
        """What each node has, and why some can't be asked."""
        troubles = {}

        async def current(node: Node) -> list[R]:
            try:
                return await node.while_reachable(ask(node))
            except Unavailable as error:
                troubles[node.hostname] = str(error)
                return known(node)

        others = (current(site.node) for site in self._sites)
        return await asyncio.gather(ask(self.local), *others), troubles

    @asynccontextmanager
    async def reaching(self, process: Process) -> AsyncIterator[Node]:
        """The node of a process, to do something with it.

        Raises:
            NodeAway: the node can't be reached, or could not any more.
        """
        node = self.of(process)
        try:
            if node.away:
                raise Unavailable(node.trouble)
            yield node
        except NodeAway:
            raise
        except Unavailable as error:
            if node is self.local:
                raise
            where = f"{process.description} on {node.hostname!r}"
            raise NodeAway(f"{where} could not be reached: {error}") from error

    def states(self, troubles: Mapping[str, str]) -> tuple[NodeState, ...]:
        """What is known of each node, where there are several; nothing is asked.

        Args:
            troubles: why some could not be asked for what is told with it, by name.
        """
        if not self._sites:
            return ()
        return tuple(
            dataclasses.replace(state, trouble=troubles.get(state.name, state.trouble))
            for state in (node.state() for node in self._named.values())
        )

    def unread(self) -> dict[str, str]:
        """Why some nodes could never be asked what runs there since druncd's start, by name."""
        return {
            site.node.hostname: site.node.trouble
            for site in self._sites
            if site.node.away and not site.node.version
        }

    async def measured(self) -> list[NodeState]:
        """What is known of each node, and how long its systemd takes to answer now."""
        return await asyncio.gather(*(node.measured() for node in self._named.values()))
