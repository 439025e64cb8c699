"""
What the receipts of earlier tries mean for a new one. Pure.

A retry takes up all that it finds. A clear takes up what is unfinished, and submits again what failed or is in doubt.
Of a finished task it takes up everything, or generates everything again where the user wants that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from airflow_provider_modelslab._ledger.identity import ReceiptName, TaskTry
from airflow_provider_modelslab._ledger.receipts import Receipt


@dataclass(frozen=True, slots=True)
class Claim:
    """
    What is there of one item.

    :param name: the name of its receipt, or the one under which it is to be submitted.
    :param receipt: the receipt that counts; ``None`` where the item is to be submitted.
    """

    name: ReceiptName
    receipt: Receipt | None = None


def claims_of(
    names: Sequence[ReceiptName], found: Mapping[ReceiptName, Receipt], task: TaskTry, regenerate: bool = False
) -> list[Claim]:
    """
    Return what is there of each item.

    An item whose name or position has changed is known by its digest; each receipt counts for one item only.

    :param names: the names of the items' first receipts.
    :param found: the receipts that are there.
    :param task: this try.
    :param regenerate: whether a finished task that was cleared generates everything again.
    """
    latest: dict[str, ReceiptName] = {}
    for name in sorted(found, key=lambda name: name.number):
        latest[name.stem] = name
    own = {name.stem for name in names}
    moved = sorted((stem for stem in latest if stem not in own), key=lambda stem: (len(stem), stem))
    claims = []
    for name in names:
        stem = name.stem
        if stem not in latest:
            stem = next((other for other in moved if latest[other].digest == name.digest), stem)
            if stem in moved:
                moved.remove(stem)
        claims.append(Claim(latest[stem], found[latest[stem]]) if stem in latest else Claim(name))
    if regenerate and _was_finished(claims, found, task):
        return [claim if _is_retried(claim, task) else _renewed(claim) for claim in claims]
    if regenerate:
        claims = _with_rest_renewed(claims, found, task)
    return [_renewed(claim) if _is_spent(claim, task) else claim for claim in claims]


def former_jobs(
    claims: Sequence[Claim], items: Sequence[str], found: Mapping[ReceiptName, Receipt]
) -> dict[str, Receipt]:
    """
    Return, by the item's name, what was paid for another payload, endpoint or account, where nothing else is there.

    :param claims: what :func:`claims_of` returned.
    :param items: the names of the items.
    :param found: the receipts that are there.
    """
    claimed = {claim.name.stem for claim in claims}
    fresh = {
        item for item, claim in zip(items, claims, strict=True) if claim.receipt is None and claim.name.number == 1
    }
    return {
        receipt.item: receipt
        for name, receipt in sorted(found.items(), key=lambda pair: pair[0].number)
        if name.stem not in claimed and receipt.item in fresh and receipt.job is not None
    }


def last_successes(claims: Sequence[Claim], found: Mapping[ReceiptName, Receipt]) -> dict[int, int]:
    """
    Return, by the item's position, the last of its generations that has succeeded, where a later one follows it.

    :param claims: what :func:`claims_of` returned.
    :param found: the receipts that are there.
    """
    last: dict[str, int] = {}
    for name in sorted(found, key=lambda name: name.number):
        if found[name].state == "succeeded":
            last[name.stem] = name.number
    pairs = [(position, last.get(claim.name.stem, 0), claim.name.number) for position, claim in enumerate(claims)]
    return {position: number for position, number, present in pairs if 0 < number < present}


def _renewed(claim: Claim) -> Claim:
    return claim if claim.receipt is None else Claim(claim.name.next())


def _is_retried(claim: Claim, task: TaskTry) -> bool:
    return claim.receipt is not None and claim.receipt.is_retried_by(task)


def _is_spent(claim: Claim, task: TaskTry) -> bool:
    """Whether a clear submits an item again: it failed, or the user knows that it may have been billed."""
    receipt = claim.receipt
    if receipt is None or receipt.is_retried_by(task):
        return False
    return receipt.state == "failed" or (receipt.state == "in_doubt" and receipt.known_job() is None)


def _was_finished(claims: Sequence[Claim], found: Mapping[ReceiptName, Receipt], task: TaskTry) -> bool:
    """Whether the task had finished before it was cleared: all that it submitted has come to a good end."""
    stems = {claim.name.stem for claim in claims}
    former: dict[str, Receipt] = {}
    for name in sorted(found, key=lambda name: name.number):
        if name.stem in stems and not found[name].is_retried_by(task):
            former[name.stem] = found[name]
    return all(_is_done(receipt) for receipt in former.values())


def _with_rest_renewed(claims: Sequence[Claim], found: Mapping[ReceiptName, Receipt], task: TaskTry) -> list[Claim]:
    """Go on where a cleared task that generated everything again came to no end: its other items are still the old."""
    begun = [
        claim.receipt.task.try_number
        for claim in claims
        if claim.receipt is not None
        and not _is_done(claim.receipt)
        and not claim.receipt.is_retried_by(task)
        and (former := found.get(ReceiptName(claim.name.stem, claim.name.number - 1))) is not None
        and _is_done(former)
    ]
    if not begun:
        return list(claims)
    return [_renewed(claim) if _is_older(claim, min(begun)) else claim for claim in claims]


def _is_older(claim: Claim, try_number: int) -> bool:
    """Whether the result of an item was returned before a try."""
    receipt = claim.receipt
    if receipt is None or receipt.settled_by is None:
        return False
    return _is_done(receipt) and receipt.settled_by.try_number < try_number


def _is_done(receipt: Receipt) -> bool:
    """Whether a task has returned the job: finished, or, where it does not wait, submitted."""
    return receipt.state == "succeeded" or (receipt.state == "submitted" and receipt.settled_by is not None)
