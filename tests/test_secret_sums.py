"""Secret sums: the arithmetic, the protocol with sites that are lost or lie, and what is refused."""

from __future__ import annotations

import dataclasses
import itertools
import math
from itertools import count

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from secret_sites import (
    MODEL,
    NAMES,
    MadeUpSite,
    counts_of,
    federation,
    plain_sum,
    training,
)

from gliofed.errors import PolicyError, QuorumError, UpdateError
from gliofed.federated.label_counts import NO_CASES
from gliofed.federated.messages import CountsRequest, save_request
from gliofed.federated.privacy import masks, shamir
from gliofed.federated.privacy.figures import CHECKS, SIZE, Figures, decode_figures
from gliofed.federated.privacy.fixed_point import WIDE
from gliofed.federated.privacy.keys import Agreement, SecretKeys, pair_mask
from gliofed.federated.privacy.messages import (
    FIGURES,
    KeysRequest,
    SharesRequest,
    UnmaskRequest,
    load_keys,
    load_masked,
    load_opening,
    load_shares,
    save_keys,
    save_masked,
    save_opening,
    save_shares,
    save_sum_request,
)
from gliofed.federated.privacy.opened import OpenedRounds
from gliofed.federated.privacy.slot import SLOTS, SumSlot, threshold
from gliofed.types import Stat

COUNT = CountsRequest("run", "1" * 32)


@pytest.fixture
def study(tiny_study):
    rules = dataclasses.replace(tiny_study.federation, privacy="secure-sum")
    data = dataclasses.replace(tiny_study.data, train=NAMES)
    return dataclasses.replace(tiny_study, federation=rules, data=data)


def assert_sum(opened, sites) -> None:
    """Within n x 2^-41 of the plain sum, the error of the fixed point; and the exact counts."""
    for name, want in plain_sum(sites).items():
        gap = (WIDE.decode(opened.tensors[name]) - want).abs().max()
        assert gap <= len(sites) * 2.0**-41, name
    assert opened.figures.counts == sum((s.counts for s in sites), NO_CASES)
    assert opened.figures.batch == 2 * sum(s.gradient is not None for s in sites)


# --- arithmetic


def test_shares_have_known_values() -> None:
    """Of the polynomial 42 + 7 x + 5 x^2 by hand: 54 at 1, 76 at 2, 108 at 3, 150 at 4."""
    shares = shamir.polynomial_shares([42, 7, 5], 4)
    assert [int.from_bytes(s) for s in shares] == [54, 76, 108, 150]
    assert all(len(s) == shamir.SHARE_BYTES for s in shares)
    # at the end of the field: -1 + 2 x at 1 is 1, and at 2 is 3
    assert [int.from_bytes(s) for s in shamir.polynomial_shares([shamir.PRIME - 1, 2], 2)] == [1, 3]


def test_any_threshold_of_shares_gives_the_secret_and_one_fewer_any_other() -> None:
    secret = bytes(range(32))
    shares = dict(enumerate(shamir.split_secret(secret, 3, 5), 1))
    for chosen in itertools.combinations(shares, 3):
        assert shamir.join_shares({x: shares[x] for x in chosen}, 3) == secret
    assert shamir.join_shares({x: shares[x] for x in (1, 2)}, 3) is None
    # two shares fit any secret: the third that fits it exists
    other = bytes(32)
    points = {0: int.from_bytes(other), 1: int.from_bytes(shares[1]), 2: int.from_bytes(shares[2])}
    third = sum(
        y
        * math.prod(3 - o for o in points if o != x)
        * pow(math.prod(x - o for o in points if o != x), -1, shamir.PRIME)
        for x, y in points.items()
    )
    forged = {**shares, 3: (third % shamir.PRIME).to_bytes(shamir.SHARE_BYTES)}
    assert shamir.join_shares({x: forged[x] for x in (1, 2, 3)}, 3) == other


def test_a_mask_is_the_stream_of_the_cipher() -> None:
    """AES-256 of the counter blocks 0 and 1 under the key of 0 (NIST's AESAVS, all-zero vector)."""
    tensors = {"b": torch.zeros(3, dtype=torch.int64), "a": torch.zeros(1, dtype=torch.int64)}
    masks.apply_masks(tensors, [(bytes(32), 1)])
    stream = b"".join(v.numpy().tobytes() for v in (tensors["a"], tensors["b"]))
    assert stream[:16].hex() == "dc95c078a2408989ad48a21492842087"
    assert len(set(tensors["b"].tolist())) == 3
    masks.apply_masks(tensors, [(bytes(32), -1)])
    assert not any(v.any() for v in tensors.values())


def test_a_stream_goes_on_over_blocks(monkeypatch) -> None:
    whole = {"a": torch.zeros(3000, dtype=torch.int64)}
    masks.apply_masks(whole, [(b"k" * 32, 1)])
    monkeypatch.setattr(masks, "_BLOCK", 1024)
    parts = {"a": torch.zeros(3000, dtype=torch.int64)}
    masks.apply_masks(parts, [(b"k" * 32, 1)])
    assert torch.equal(whole["a"], parts["a"])


def test_two_sites_have_one_mask_of_both_signs() -> None:
    agreement = Agreement("run", "study", "n" * 32)
    a, b = (SecretKeys.new(agreement, site) for site in "ab")

    class Nobody:
        def sign(self, data):
            return "", ""

    ones, others = a.public(Nobody()), b.public(Nobody())
    for slot in (0, SLOTS - 1):
        of_a = pair_mask(a.masking[slot], agreement, slot, ("a", others))
        of_b = pair_mask(b.masking[slot], agreement, slot, ("b", ones))
        assert of_a[0] == of_b[0]
        assert (of_a[1], of_b[1]) == (1, -1)
    elsewhere = Agreement("run", "another study", "n" * 32)
    assert (
        pair_mask(a.masking[0], elsewhere, 0, ("a", others))[0]
        != (pair_mask(a.masking[0], agreement, 0, ("a", others))[0])
    )


@pytest.mark.parametrize("size", [1000.0, 1.0, 1e-6, 1e-12, 0.0])
def test_a_value_is_known_to_half_a_unit(size) -> None:
    values = torch.linspace(-size, size, 1001)
    gap = (WIDE.decode(WIDE.encode(values)) - values.double()).abs().max()
    assert gap <= 2.0**-41
    if size >= 1:
        assert torch.equal(
            WIDE.decode(WIDE.encode(torch.tensor(size))), torch.tensor(size).double()
        )


def test_figures_are_added_as_they_are() -> None:
    both = [
        Figures(counts_of(n), n, {"mask": Stat(0.25 * n, n), "dice": Stat(-1, 2)}) for n in (1, 2)
    ]
    decoded = decode_figures(both[0].encoded() + both[1].encoded())
    assert decoded.counts == counts_of(1) + counts_of(2)
    assert decoded.batch == 3
    assert decoded.stats == {"mask": Stat(0.75, 3), "dice": Stat(-2, 4)}


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (0, 1, "do not cancel"),
        (CHECKS - 1, -1, "do not cancel"),
        (CHECKS, -1, "negative or too large"),
        (CHECKS + 1, 10**9 + 1, "negative or too large"),
        (CHECKS + 2, 14, "more labels than cases"),
        (SIZE - 1, -1, "weight below 0"),
    ],
)
def test_figures_that_no_sites_have_are_refused(at, value, why) -> None:
    encoded = Figures(counts_of(1)).encoded()
    assert decode_figures(encoded).counts.cases == 13
    encoded[at] = value
    with pytest.raises(UpdateError, match=why):
        decode_figures(encoded)


def test_a_statistic_that_is_not_finite_is_refused_at_the_site() -> None:
    for bad in (math.nan, math.inf, 2.0**37):
        with pytest.raises(UpdateError, match="statistic mask"):
            Figures(NO_CASES, 1, {"mask": Stat(bad, 1)}).encoded()


# --- the sum of sites that all respond


def test_the_sum_is_the_plain_one(study, tmp_path) -> None:
    sites, engine, sums = federation(study, tmp_path)
    sites[2].gradient = None  # a site without a case of the batch
    counted = sums.add(COUNT, "the count")
    assert counted.figures.counts == sum((s.counts for s in sites), NO_CASES)
    assert counted.tensors == {}
    opened = sums.add(training(), "round 0")
    assert_sum(opened, sites)
    assert opened.figures.stats["mask"] == Stat(3.0, 12)
    assert set(opened.seconds) == set(NAMES)
    assert not opened.failures
    assert engine.requests == ["keys", "shares", "count", "unmask", "train", "unmask"]


def test_keys_are_agreed_anew_when_they_are_used_up(study, tmp_path) -> None:
    sites, engine, sums = federation(study, tmp_path, names="abc")
    for number in range(SLOTS + 1):
        assert_sum(sums.add(training(number), "a round"), sites)
    assert engine.requests.count("keys") == 2
    assert engine.requests[-4:] == ["keys", "shares", "train", "unmask"]


def masked_of(site, slot, folder) -> torch.Tensor:
    """All values of a site's masked update, in one row."""
    request, response = folder / "one-request", folder / "one-response"
    save_request(request, dataclasses.replace(training(), sum=slot))
    site.respond(request, response)
    tensors = load_masked(response, MODEL).tensors
    return torch.cat([tensors[k].reshape(-1) for k in sorted(tensors)])


def agree(sites, folder, nonce="a" * 32):
    """Have the sites agree on keys, as the server does; returns a slot."""
    request, response = folder / "r", folder / "s"
    save_sum_request(request, KeysRequest("run", nonce))
    keys = []
    for site in sites:
        site.respond(request, response)
        keys.append(load_keys(response).keys)
    save_sum_request(request, SharesRequest("run", "b" * 32, nonce, tuple(keys)))
    for site in sites:
        site.respond(request, response)
        load_shares(response, len(sites))
    return SumSlot(nonce, 0, tuple(s.name for s in sites))


def test_a_masked_update_is_uniform(study, tmp_path, monkeypatch) -> None:
    """The 256 values of each of the eight bytes, by chi-square; not so for the update itself."""
    big = {"up.0.weight": torch.full((40_000,), 0.1)}
    monkeypatch.setattr("secret_sites.MODEL", big)
    monkeypatch.setitem(globals(), "MODEL", big)
    sites = [MadeUpSite(n, study, tmp_path) for n in "abc"]
    sites[0].gradient = big

    def chi_square(values: torch.Tensor, byte: int) -> float:
        counts = ((values >> (8 * byte)) & 255).bincount(minlength=256).double()
        expected = len(values) / 256
        return float(((counts - expected) ** 2 / expected).sum())

    slot = agree(sites, tmp_path)
    request, response = tmp_path / "q", tmp_path / "p"
    save_request(request, dataclasses.replace(training(), weights=big, sum=slot))
    sites[0].respond(request, response)
    masked = load_masked(response, big).tensors["up.0.weight"]
    for byte in range(8):
        # 255 degrees of freedom: mean 255, standard deviation 22.6
        assert abs(chi_square(masked, byte) - 255) < 6 * 22.6
        assert chi_square(WIDE.encode(big["up.0.weight"]), byte) > 1e6


def test_two_updates_have_one_transcript(study, tmp_path, monkeypatch) -> None:
    """With other masks that are as likely, another split of the same sum gives the same bytes.

    The two secrets of a pair give the masks r and r'. If a sends x + r and b sends y - r, then for
    any d the same messages follow from the updates x + d and y - d with the mask r - d, which is
    uniform, too. So the messages depend on the updates through their sum only.
    """
    real, shift = masks.apply_masks, {}

    def shifted(tensors, keys):
        real(tensors, keys)
        for name in MODEL:
            tensors[name] += shift.get("by", 0)

    sent = []
    for first in (True, False):
        folder = tmp_path / str(first)
        folder.mkdir()
        delta = 0.0 if first else 0.5
        monkeypatch.setattr("secrets.token_bytes", bytes)
        keys = (X25519PrivateKey.from_private_bytes(bytes([i % 251 + 1]) * 32) for i in count())
        monkeypatch.setattr(X25519PrivateKey, "generate", keys.__next__)
        sites = [MadeUpSite(n, study, folder) for n in "abc"]
        sites[0].gradient = {k: g + delta for k, g in gradients("a").items()}
        sites[1].gradient = {k: g - delta for k, g in gradients("b").items()}
        slot = agree(sites, folder)
        monkeypatch.setattr("gliofed.federated.privacy.site.apply_masks", shifted)
        rows = []
        for site, sign in zip(sites, (-1, 1, 0), strict=True):
            shift["by"] = 0 if first else int(sign * delta / WIDE.unit)
            rows.append(masked_of(site, slot, folder))
        sent.append(torch.stack(rows))
        monkeypatch.undo()
    assert torch.equal(sent[0], sent[1])
    assert not torch.equal(sent[0][0], sent[0][1])


def gradients(site):
    """Multiples of 2^-10, so that a shift by 0.5 is exact in float32."""
    generator = torch.Generator().manual_seed(ord(site))
    return {
        k: torch.randint(-999, 999, t.shape, generator=generator) / 1024 for k, t in MODEL.items()
    }


# --- sites that are lost

PHASES = ("keys", "shares", "train", "train late", "unmask")


def lose(engine, losses) -> None:
    for site, phase in losses:
        (engine.late if phase.endswith("late") else engine.gone).add((site, phase.split()[0]))


@pytest.mark.parametrize("second", [None, *PHASES])
@pytest.mark.parametrize("first", PHASES)
def test_one_or_two_of_seven_sites_are_lost_in_any_phases(study, tmp_path, first, second) -> None:
    sites, engine, sums = federation(study, tmp_path)
    losses = [("b", first)] + ([("f", second)] if second else [])
    lose(engine, losses)
    opened = sums.add(training(), "round 0")
    lost = {site for site, phase in losses if phase != "unmask"}
    assert set(opened.seconds) == set(NAMES) - lost
    assert_sum(opened, [s for s in sites if s.name not in lost])
    # when they are back, they take part with new keys
    engine.gone, engine.late = set(), set()
    after = sums.add(training(1), "round 1")
    back = {
        site for site, phase in losses if phase not in ("keys", "shares") or lost_in_sum(losses)
    }
    assert set(after.seconds) == set(opened.seconds) | back
    assert_sum(after, [s for s in sites if s.name in after.seconds])
    agreements = 2 if lost_in_sum(losses) else 1
    assert engine.requests.count("keys") == agreements


def lost_in_sum(losses) -> bool:
    return any(phase.startswith("train") for _, phase in losses)


@pytest.mark.parametrize("phase", PHASES[1:])
def test_three_of_seven_are_too_many_in_a_sum_and_two_are_not(study, tmp_path, phase) -> None:
    """Five of seven have to help to open a sum."""
    assert threshold(7) == 5
    sites, engine, sums = federation(study, tmp_path)
    lose(engine, [(s, phase) for s in "ab"])
    assert_sum(
        sums.add(training(), "round 0"),
        [s for s in sites if s.name in "cdefg" or phase == "unmask"],
    )
    lose(engine, [("c", phase)])
    sums._agreed = None
    with pytest.raises(QuorumError, match=r"of 5|of at least 5"):
        sums.add(training(1), "round 1")


def test_of_three_sites_none_can_be_missing(study, tmp_path) -> None:
    _, engine, sums = federation(study, tmp_path, names="abc")
    lose(engine, [("a", "train")])
    with pytest.raises(QuorumError, match="2 of at least 3"):
        sums.add(training(), "round 0")
    assert "unmask" not in engine.requests


def test_a_site_whose_process_is_new_waits_for_the_next_keys(study, tmp_path) -> None:
    sites, engine, sums = federation(study, tmp_path)
    assert_sum(sums.add(training(), "round 0"), sites)
    sites[3].half = MadeUpSite("d", study, tmp_path).half
    opened = sums.add(training(1), "round 1")
    assert set(opened.seconds) == set(NAMES) - {"d"}
    assert "takes part from the next one on" in opened.failures["d"]
    assert_sum(sums.add(training(2), "round 2"), sites)
    assert engine.requests.count("keys") == 2


# --- a server that asks for more


def test_a_site_opens_no_sum_below_its_own_quorum(study, tmp_path) -> None:
    """Five of seven helped with a limit of five; six are asked for with a limit of six."""
    for limit, opens in ((5, True), (6, False)):
        folder = tmp_path / str(limit)
        sites, engine, sums = federation(study, folder)
        folder.mkdir(exist_ok=True)
        for i, site in enumerate(sites):
            sites[i].half = MadeUpSite(site.name, study, folder, min_sites=limit).half
        lose(engine, [("a", "train"), ("b", "train")])
        if opens:
            assert len(sums.add(training(), "round 0").seconds) == 5
        else:
            with pytest.raises(QuorumError, match="cannot be opened"):
                sums.add(training(), "round 0")


class TestRequestsOfALyingServer:
    """Each is refused at the site, and no share leaves."""

    @pytest.fixture
    def asked(self, study, tmp_path):
        sites = [MadeUpSite(n, study, tmp_path) for n in NAMES]
        slot = agree(sites, tmp_path)
        masked_of(sites[0], slot, tmp_path)
        self.site, self.slot, self.folder = sites[0], slot, tmp_path
        self.shares = torch.zeros(7, 7, 148, dtype=torch.uint8)
        return self

    def ask(self, present, slot=None):
        request, response = self.folder / "r", self.folder / "s"
        used = slot or self.slot
        many = len(used.members)
        shares = torch.zeros(many, many, 148, dtype=torch.uint8)
        save_sum_request(request, UnmaskRequest("run", "c" * 32, used, tuple(present), shares))
        self.site.respond(request, response)
        return load_opening(response, many)

    def test_both_secrets_of_one_site(self, asked) -> None:
        assert len(asked.ask("abcdef").withheld) == 7  # no sound share was relayed
        asked.ask("abcdef")  # the same once more is no news
        with pytest.raises(UpdateError, match="opened for other sites"):
            asked.ask("abcdeg")

    def test_too_few_sites(self, asked) -> None:
        with pytest.raises(PolicyError, match="at least 5 are needed"):
            asked.ask("abcd")
        with pytest.raises(PolicyError, match="min_sites"):
            asked.ask("ab")

    def test_other_members_than_were_masked_for(self, asked) -> None:
        fewer = dataclasses.replace(asked.slot, members=tuple("abcde"))
        with pytest.raises(UpdateError, match="masked for"):
            asked.ask("abcde", fewer)

    def test_sites_that_did_not_agree(self, asked) -> None:
        with pytest.raises(UpdateError, match="no members"):
            asked.ask("abcdez")

    def test_another_agreement(self, asked) -> None:
        with pytest.raises(UpdateError, match="no keys of this agreement"):
            asked.ask("abcdef", dataclasses.replace(asked.slot, agreement="z" * 32))

    def test_a_slot_twice(self, asked) -> None:
        with pytest.raises(UpdateError, match="used before"):
            masked_of(asked.site, asked.slot, asked.folder)

    def test_what_is_not_masked(self, asked) -> None:
        with pytest.raises(UpdateError, match="not masked"):
            masked_of(asked.site, None, asked.folder)

    def test_a_sum_without_this_site_or_of_two(self, asked) -> None:
        for members, error in (("bcdefg", UpdateError), ("ab", PolicyError)):
            slot = dataclasses.replace(asked.slot, slot=1, members=tuple(members))
            with pytest.raises(error):
                masked_of(asked.site, slot, asked.folder)

    def test_keys_that_are_not_its_own(self, asked, study, tmp_path) -> None:
        for swap in ("other keys", "left out", "twice"):
            sites = [MadeUpSite(n, study, tmp_path) for n in "abc"]
            request, response = tmp_path / "r", tmp_path / "s"
            save_sum_request(request, KeysRequest("run", "d" * 32))
            keys = []
            for site in sites:
                site.respond(request, response)
                keys.append(load_keys(response).keys)
            sent = {
                "other keys": [dataclasses.replace(keys[1], site="a"), *keys[1:]],
                "left out": [*keys[1:], dataclasses.replace(keys[1], site="z")],
                "twice": [keys[0], keys[0], keys[1], keys[2]],
            }[swap]
            save_sum_request(request, SharesRequest("run", "e" * 32, "d" * 32, tuple(sent)))
            with pytest.raises(UpdateError):
                sites[0].respond(request, response)


def test_a_round_is_opened_again_for_the_same_sites_only(study, tmp_path) -> None:
    """The difference of two sums of one round would be the update of the site that is missing."""
    sums = federation(study, tmp_path)[2]
    first = sums.add(training(5), "round 5")
    again = federation(study, tmp_path)[2]  # the server and the sites were started again
    second = again.add(training(5), "round 5")
    assert all(torch.equal(t, second.tensors[k]) for k, t in first.tensors.items())
    _, engine, third = federation(study, tmp_path)
    lose(engine, [("a", "train")])
    with pytest.raises(QuorumError, match="cannot be opened"):
        third.add(training(5), "round 5")
    assert third.add(training(6), "round 6").seconds.keys() == set(NAMES) - {"a"}


def test_opened_rounds_are_remembered(tmp_path) -> None:
    OpenedRounds(tmp_path / "new/file").require("run", 3, "abc")
    again = OpenedRounds(tmp_path / "new/file")
    again.require("run", 3, "cba")
    again.require("other", 3, "ab")
    with pytest.raises(PolicyError, match="round 3"):
        again.require("run", 3, "ab")
    assert len((tmp_path / "new/file").read_text().splitlines()) == 2
    again.note("run", 3, "ab")
    assert OpenedRounds(tmp_path / "new/file").sites("run", 3) == ("a", "b")
    assert again.sites("run", 4) == ()


# --- sites that lie


def rewrite(load, save, change):
    """Change one response of site c."""

    def of(site, kind, file):
        if site == "c":
            response = load(file)
            tensors = {k: v.clone() for k, v in vars(response).items() if torch.is_tensor(v)}
            save(file, change(dataclasses.replace(response, **tensors)))

    return of


def only(kind, rewriter):
    return lambda site, of, file: rewriter(site, of, file) if of == kind else None


def with_noise(response):
    masked = {k: v.clone() for k, v in response.tensors.items()}
    masked[FIGURES] += 12345
    return dataclasses.replace(response, tensors=masked)


def with_large(response):
    masked = {k: v.clone() for k, v in response.tensors.items()}
    masked["mask.weight"] += int(5000 / WIDE.unit)
    return dataclasses.replace(response, tensors=masked)


def with_other(field):
    def change(response):
        getattr(response, field).add_(1)
        return response

    return change


def test_wrong_shares_of_a_holder_are_found_and_the_sum_opens_without_them(study, tmp_path) -> None:
    change = only(
        "unmask", rewrite(lambda f: load_opening(f, 7), save_opening, with_other("shares"))
    )
    sites, _, sums = federation(study, tmp_path, change=change)
    assert_sum(sums.add(training(), "round 0"), sites)  # six of five needed are left


def test_wrong_shares_of_three_holders_are_named(study, tmp_path) -> None:
    def change(site, kind, file):
        if site in "abc" and kind == "unmask":
            response = load_opening(file, 7)
            save_opening(file, dataclasses.replace(response, shares=response.shares + 1))

    _, _, sums = federation(study, tmp_path, change=change)
    with pytest.raises(QuorumError, match="site a gave a share of site b that is not the one"):
        sums.add(training(), "round 0")


def test_a_dealer_of_shares_that_do_not_belong_together_is_named(
    study, tmp_path, monkeypatch
) -> None:
    """They are as announced and sealed, so that only together they are found out."""
    sites, _, sums = federation(study, tmp_path)
    real = shamir.split_secret
    dealing = []

    def split(secret, least, holders):
        own = real(secret, least, holders)
        return real(bytes(32), least, holders) if dealing else own

    monkeypatch.setattr("gliofed.federated.privacy.site.split_secret", split)
    share = sites[2].half._share
    monkeypatch.setattr(
        sites[2].half, "_share", lambda r: (dealing.append(1), share(r), dealing.clear())[1]
    )
    with pytest.raises(
        QuorumError, match="site c: it sent shares of another seed than it announced"
    ):
        sums.add(training(), "round 0")


def test_shares_that_cannot_be_decrypted_are_reported(study, tmp_path) -> None:
    change = only("shares", rewrite(lambda f: load_shares(f, 7), save_shares, with_other("shares")))
    _, _, sums = federation(study, tmp_path, change=change)
    with pytest.raises(QuorumError, match="site a could not decrypt its share of site c"):
        sums.add(training(), "round 0")


@pytest.mark.parametrize(
    ("lie", "why"), [(with_noise, "masks of its sites do not cancel"), (with_large, "max_gradient")]
)
def test_a_wrong_masked_update_is_never_a_model(study, tmp_path, lie, why) -> None:
    from gliofed.federated.server.run import FederatedRun
    from gliofed.federated.server.summed import SummedUpdates

    rules = dataclasses.replace(study.federation, max_gradient=100.0)
    study = dataclasses.replace(study, federation=rules)
    change = only("train", rewrite(lambda f: load_masked(f, MODEL), save_masked, lie))
    _, engine, _ = federation(study, tmp_path, change=change)
    updates = SummedUpdates(engine, FederatedRun(study, "run", 1, tmp_path))
    updates.count({})

    class Server:
        def add_sum(self, *_):
            raise AssertionError("a wrong sum was used")

    with pytest.raises(QuorumError, match=why), updates.round(training(), Server()):
        pass


def test_a_wrong_key_garbles_the_sum_and_is_found(study, tmp_path) -> None:
    sites, _, sums = federation(study, tmp_path)
    sums.add(COUNT, "the count")
    sites[2].half._agreed.own.masking[1] = X25519PrivateKey.generate()
    with pytest.raises(QuorumError, match="do not cancel"):
        sums.add(training(), "round 0")


@pytest.mark.parametrize("nonce", ["1" * 32, "0" * 32])
def test_an_old_message_is_no_part_of_a_sum(study, tmp_path, nonce) -> None:
    """Its nonce is another one; were it not, its masks would not cancel."""
    kept = {}

    def change(site, kind, file):
        if site == "c" and kind == "train":
            kept.setdefault("old", file.read_bytes())
            file.write_bytes(kept["old"])

    sites, _, sums = federation(study, tmp_path, change=change)
    assert_sum(sums.add(training(), "round 0"), sites)
    request = dataclasses.replace(training(1), nonce=nonce)
    if nonce == training().nonce:
        with pytest.raises(QuorumError, match="do not cancel"):
            sums.add(request, "round 1")
    else:
        assert_sum(sums.add(request, "round 1"), [s for s in sites if s.name != "c"])


def test_keys_of_another_name_are_refused(study, tmp_path) -> None:
    change = only("keys", rewrite(load_keys, save_keys, lambda r: dataclasses.replace(r, site="a")))
    sites, _, sums = federation(study, tmp_path, change=change)
    assert_sum(sums.add(training(), "round 0"), [s for s in sites if s.name != "c"])


def test_a_site_does_not_send_what_is_not_finite_or_too_large(study, tmp_path) -> None:
    sites, _, sums = federation(study, tmp_path)
    sites[0].gradient = {k: torch.full_like(t, math.nan) for k, t in MODEL.items()}
    sites[1].gradient = {k: torch.full_like(t, 1e4) for k, t in MODEL.items()}
    opened = sums.add(training(), "round 0")
    assert {"a", "b"} == set(opened.failures)
    assert all("max_gradient" in why for why in opened.failures.values())
    assert_sum(opened, sites[2:])
