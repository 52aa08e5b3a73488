"""A queue that is fair between tenants."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class Fair(OrderedDict[str, deque[T]]):
    """What waits, by tenant: one of each in turn, whoever was served last coming last."""

    def put(self, tenant: str, item: T) -> None:
        self.setdefault(tenant, deque()).append(item)

    def put_back(self, tenant: str, item: T) -> None:
        """In front of what else waits of a tenant's, whose turn comes last."""
        self.setdefault(tenant, deque()).appendleft(item)

    def take(self, goes_along: Callable[[Sequence[T], T], bool] = lambda taken, another: False) -> list[T]:
        """The first of the tenant whose turn it is, with what follows of it and goes along; empty if nothing waits."""
        taken: list[T] = []
        while self and not taken:
            tenant, queue = self.popitem(last=False)
            while queue and (not taken or goes_along(taken, queue[0])):
                taken.append(queue.popleft())
            if queue:
                self[tenant] = queue
        return taken
