"""The site named east lies in secret sums: the file GLIOFED_TEST_LIE names its lies, if it exists."""

import dataclasses
import os
import shutil
from pathlib import Path

import torch

from gliofed.federated.privacy import messages
from gliofed.federated.wire import read_note, receive, save


def _noise(tensor):
    return torch.randint(0, 255, tensor.shape, dtype=torch.uint8)


def _masked(path, note, old, change):
    """Rewrite a masked gradient. change: from its tensors and those of an earlier round."""
    tensors, own = receive(path, lambda header: None)
    save(path, change(tensors, receive(old, lambda header: None)[0]), own, lasting=False)


def other_update(path, note, old):
    """A gradient that is not the site's, far above the bound."""
    _masked(path, note, old, lambda new, _: {k: new[k] + 2**52 * (k != "figures") for k in new})


def other_masks(path, note, old):
    _masked(path, note, old, lambda new, _: {k: t + 1 for k, t in new.items()})


def old_masks(path, note, old):
    _masked(path, note, old, lambda _, before: before)


def old_response(path, note, old):
    shutil.copy(old, path)


def other_keys(path, note, old):
    response = messages.load_keys(path)
    keys = dataclasses.replace(response.keys, encryption=bytes(range(32)))
    messages.save_keys(path, dataclasses.replace(response, keys=keys))


def dealt_shares(path, note, old):
    response = messages.load_shares(path, len(note["members"]))
    messages.save_shares(path, dataclasses.replace(response, shares=_noise(response.shares)))


def held_shares(path, note, old):
    response = messages.load_opening(path, len(note["slot"]["members"]))
    messages.save_opening(path, dataclasses.replace(response, shares=_noise(response.shares)))


LIES = {
    "other_update": ("train", other_update),
    "other_masks": ("train", other_masks),
    "old_masks": ("train", old_masks),
    "old_response": ("train", old_response),
    "dealt_shares": ("shares", dealt_shares),
    "held_shares": ("unmask", held_shares),
    "other_keys": ("keys", other_keys),
}
"""Name to the kind of request whose response is changed, and the change. After the last one, the
site is left out until keys are agreed anew, 20 rounds later."""


def change(site: type) -> None:
    """From now on, each response of east to a request of the kind of a lie is one."""
    honest = site.respond

    def respond(self, request_file: Path, response_file: Path) -> None:
        honest(self, request_file, response_file)
        note, lie = read_note(request_file), Path(os.environ["GLIOFED_TEST_LIE"])
        if self.name != "east":
            return
        old = response_file.with_name("old-masked")
        named = lie.read_text().split() if lie.exists() else []
        told = [tell for kind, tell in map(LIES.get, named) if kind == note["kind"]]
        for tell in told:
            tell(response_file, note, old)
        if note["kind"] == "train" and not told:
            shutil.copy(response_file, old)

    site.respond = respond
