"""A queue in which no owner starves another, however many items each of them has."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Owner = TypeVar("Owner")
Item = TypeVar("Item")


class FairQueue(Generic[Owner, Item]):
    """
    Hands out, in turns, the oldest item of the next owner and the oldest item of all.

    The first kind of turn keeps an owner of thousands from starving one of a single item; the second keeps thousands
    of owners of a single item from starving one of many. An item is handed out after at most twice as many turns as
    there were items when it came.
    """

    def __init__(self) -> None:
        self._owners: OrderedDict[Item, Owner] = OrderedDict()
        self._items: OrderedDict[Owner, OrderedDict[Item, None]] = OrderedDict()
        self._next_owners_turn = False

    def __len__(self) -> int:
        return len(self._owners)

    def push(self, owner: Owner, item: Item) -> None:
        """Add an item."""
        self._owners[item] = owner
        self._items.setdefault(owner, OrderedDict())[item] = None

    def pop(self) -> tuple[Owner, Item]:
        """Remove and return the item whose turn it is, and its owner. There must be one."""
        self._next_owners_turn = not self._next_owners_turn
        if self._next_owners_turn:
            owner = next(iter(self._items))
            item = next(iter(self._items[owner]))
            self._items.move_to_end(owner)
        else:
            item, owner = next(iter(self._owners.items()))
        del self._owners[item]
        del self._items[owner][item]
        if not self._items[owner]:
            del self._items[owner]
        return owner, item

    def discard(self, owner: Owner) -> None:
        """Remove all items of an owner."""
        for item in self._items.pop(owner, ()):
            del self._owners[item]
