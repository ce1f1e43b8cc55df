"""Collections of garbage between transfers skip the objects of all modules, and those alone."""

import gc

import pytest

from gliofed.federated.flare import transfer


@pytest.mark.parametrize("offers", [1, transfer._FREEZES, transfer._FREEZES + 1])
def test_only_the_first_offers_exclude_objects_from_collection(offers, monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(gc, "collect", lambda: calls.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: calls.append("freeze"))
    cleanup = transfer._ChunkCleanup()
    for _ in range(offers):
        cleanup.before_offer()
    assert calls == ["collect", "freeze"] * min(offers, transfer._FREEZES)


def test_transferred_bytes_are_counted_up_to_a_collection(monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(gc, "collect", lambda: calls.append("collect"))
    cleanup = transfer._ChunkCleanup()
    cleanup.after(transfer._CLEANUP_BYTES - 1)
    assert not calls
    cleanup.after(1)
    assert calls == ["collect"]
