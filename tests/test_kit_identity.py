"""Keys of secret sums are signed with a kit's certificate, and nobody else's are accepted."""

from __future__ import annotations

import dataclasses

import pytest
from federation_kits import make_kits

from gliofed.deployment.kit import open_kit
from gliofed.deployment.kit_identity import KitIdentity
from gliofed.errors import UpdateError
from gliofed.federated.privacy.identity import UNSIGNED
from gliofed.federated.privacy.keys import Agreement, SecretKeys

SITES = ("north", "south")
AGREEMENT = Agreement("run", "study", "n" * 32)


@pytest.fixture(scope="module")
def kits(tmp_path_factory):
    """Two sites of one federation and a namesake of the first in another one."""
    root = tmp_path_factory.mktemp("kits")
    make_kits(root / "one", *SITES)
    make_kits(root / "other", "north")
    own = {name: open_kit(root / "one" / name, "site") for name in SITES}
    server = open_kit(root / "one/server", "server")
    return {**own, "server": server, "namesake": open_kit(root / "other/north", "site")}


def announced(kit, site):
    return SecretKeys.new(AGREEMENT, site).public(KitIdentity(kit, SITES))


def check(identity, keys, agreement=AGREEMENT):
    identity.verify(keys.site, keys.signed(agreement), (keys.signature, keys.certificate))


def test_sites_and_server_accept_the_keys_of_a_site(kits) -> None:
    keys = announced(kits["north"], "north")
    for reader in ("south", "server", "north"):
        check(KitIdentity(kits[reader], SITES), keys)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"site": "south"}, "not signed by it"),
        ({"encryption": bytes(32)}, "not signed by it"),
        ({"masking": (bytes(32),) * 20}, "not signed by it"),
        ({"commitments": (bytes(32),) * 20}, "not signed by it"),
        ({"signature": "zz"}, "not signed by it"),
        ({"signature": ""}, "not signed by it"),
        ({"certificate": ""}, "not signed by it"),
        ({"site": "east"}, "no training site of the study"),
    ],
)
def test_changed_keys_are_refused(kits, change, why) -> None:
    keys = announced(kits["north"], "north")
    with pytest.raises(UpdateError, match=why):
        check(KitIdentity(kits["south"], SITES), dataclasses.replace(keys, **change))


def test_keys_of_another_federation_run_or_study_are_refused(kits) -> None:
    reader = KitIdentity(kits["south"], SITES)
    with pytest.raises(UpdateError, match="not signed by it"):
        check(reader, announced(kits["namesake"], "north"))
    keys = announced(kits["north"], "north")
    for other in ({"run": "r"}, {"study": "s"}, {"nonce": "m" * 32}):
        with pytest.raises(UpdateError, match="not signed by it"):
            check(reader, keys, dataclasses.replace(AGREEMENT, **other))


def test_a_site_cannot_sign_for_another(kits) -> None:
    """Its certificate is of the federation, and has its own name."""
    keys = announced(kits["south"], "north")
    with pytest.raises(UpdateError, match="signed in another name"):
        check(KitIdentity(kits["south"], SITES), keys)


def test_a_kit_and_one_process_do_not_mix(kits) -> None:
    keys = SecretKeys.new(AGREEMENT, "north").public(UNSIGNED)
    check(UNSIGNED, keys)
    with pytest.raises(UpdateError, match="not signed"):
        check(KitIdentity(kits["south"], SITES), keys)
    with pytest.raises(UpdateError, match="no kit"):
        check(UNSIGNED, announced(kits["north"], "north"))
