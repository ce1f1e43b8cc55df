"""Fusion between hospitals: that it is the pooled cases', what leaves, and who is left out."""

import dataclasses
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import THIN
from replies_here import replies_here

from gliofed.calibration.calibrator import fit_calibration
from gliofed.calibration.fusion import PRIOR_WEIGHT
from gliofed.calibration.site_statistics import CalibrationCases, local_exchange
from gliofed.errors import CheckpointError, StudyError, UpdateError
from gliofed.evaluation.results import CaseResult
from gliofed.experiments.fusion import FoldFusion, fit_fold, fit_masks
from gliofed.experiments.regressions import subject_of
from gliofed.federated.checkpoint import CommittedRound
from gliofed.federated.client import Client, ClientSetup, SiteData
from gliofed.federated.fusion.fit import NO_SITE, fit_fusion
from gliofed.federated.fusion.messages import (
    FusionRequest,
    FusionResponse,
    load_fusion_request,
    save_fusion,
    save_fusion_request,
)
from gliofed.federated.fusion.site import FusionCases, SiteCases
from gliofed.federated.fusion.sums import INPUT_NAMES, FitPlace, SumsRequest
from gliofed.federated.gate import check_fusion
from gliofed.federated.governance.policy import SitePolicy
from gliofed.federated.label_counts import LabelCounts
from gliofed.federated.server.exchange import SiteReply
from gliofed.federated.server.fusion import (
    FUSION_RECORD,
    check_same_cases,
    last_fusion,
    run_fusion,
)
from gliofed.federated.wire import load, save
from gliofed.federation_config import FederationConfig
from gliofed.markers import MARKERS
from gliofed.models.network import network_from_spec
from gliofed.radiomics.feature_table import FeatureTable, age_and_sex
from gliofed.radiomics.input_names import MASK_FEATURES
from gliofed.radiomics.regression import AGE_SEX, train_regressions
from gliofed.runtime.device import Device
from gliofed.study import CalibrationConfig, parse_study
from gliofed.types import UNKNOWN, Case, Labels, Person

CPU = Device(torch.device("cpu"), bf16=False)
STATE = CommittedRound("run", 2, network_from_spec(THIN, 0).state_dict(), ())
CONFIG = CalibrationConfig()


def made_up(site: str, training: int, held_out: int, seed: int) -> SiteCases:
    """Cases whose IDH follows age, one feature of the mask, and a latent that the network sees."""
    rng = np.random.default_rng(seed)
    cases, results, mask = [], [], {}
    for n in range(training + held_out):
        age, latent, values = rng.normal(50, 15), rng.normal(), rng.normal(5, 2, len(MASK_FEATURES))
        odds = (50 - age) / 10 + latent + (values[3] - 5) / 2
        mutant = rng.random() < 1 / (1 + np.exp(-odds))
        labels = Labels({"idh": "mutant" if mutant else "wildtype"} if n % 11 else {})
        person = Person("M" if rng.random() < 0.5 else UNKNOWN, age if n % 7 else UNKNOWN)
        case = Case(f"{site}{n}", site, f"{site}{n}", {}, None, labels, person=person)
        if n % 5 == 4:
            values[2] = np.nan
        mask[str(case)] = values
        if n < training:
            cases.append(case)
            continue
        p = 1 / (1 + np.exp(-2 * latent))
        own = {m.id: (1 / len(m.classes),) * len(m.classes) for m in MARKERS} | {"idh": (1 - p, p)}
        results.append(
            CaseResult(
                "federated", 1, "external", "holdout", case.id, site, case.patient, labels, own,
                None, None, None, None, person,
            )
        )  # fmt: skip
    return SiteCases(site, cases, results, mask)


SITES = {"a": made_up("a", 60, 30, 1), "b": made_up("b", 40, 25, 2), "c": made_up("c", 25, 15, 3)}


def asked(sites, least: int = 1):
    """An exchange with sites on this machine."""
    own = {n: FusionCases(dataclasses.replace(s, min_count=least)) for n, s in sites.items()}
    return lambda request: {n: s.respond(request) for n, s in own.items()}


def pooled(sites) -> FoldFusion:
    """As `gliofed run` fits it, on the cases of all sites in one table."""
    cases = [c for s in sites.values() for c in s.training]
    held_out = [r for s in sites.values() for r in s.held_out]
    mask = {name: v for s in sites.values() for name, v in s.mask.items()}
    masks = fit_masks(cases, mask)
    table = FeatureTable(tuple(map(subject_of, cases)), (), np.zeros((len(cases), 0)))
    people = train_regressions(age_and_sex(table).by_site(), AGE_SEX)
    return fit_fold(held_out, (masks, people), mask)


def same(one, other) -> None:
    assert one.cases == other.cases
    for part in ("mask", "person"):
        for name in ("mean", "scale", "slopes"):
            np.testing.assert_allclose(
                getattr(getattr(one, part), name), getattr(getattr(other, part), name), atol=1e-6
            )
    np.testing.assert_allclose(one.weights, other.weights, atol=1e-6)


def test_it_is_the_fusion_of_the_cases_together() -> None:
    found = fit_fusion(asked(SITES), CONFIG).fusion
    expected = pooled(SITES)
    same(found.markers["idh"], expected.markers["idh"])
    assert min(abs(w - PRIOR_WEIGHT) for w in found.markers["idh"].weights) > 1e-3
    held_out = [r for s in SITES.values() for r in s.held_out]
    fused = expected.fuse(held_out)
    calibration = fit_calibration(local_exchange({"": CalibrationCases(fused)}), CONFIG)
    for marker, own in found.calibrations[0].scalings.items():
        assert own.slope == pytest.approx(calibration.scalings[marker].slope, abs=1e-6)
    assert found.calibrations[0].sets == calibration.sets


class Sites:
    """Sites in this process. twists: site to what becomes of its reply to a request."""

    def __init__(self, study, folder: Path, policies=None, **twists) -> None:
        self.folder, self.twists, self.requests, self.asked = folder, twists, [], []
        models = ("federated", "age_sex", "fusion")
        data = dataclasses.replace(study.data, train=tuple(SITES))
        self.study = dataclasses.replace(study, data=data, models=models)
        self.predicted = Counter()
        self.sites = {n: self.site(n, (policies or {}).get(n)) for n in SITES}

    def site(self, name: str, policy: SitePolicy | None = None) -> Client:
        own = SITES[name]

        def masks(_weights):
            self.predicted[name] += 1
            return own.mask

        prepared = [PreparedCaseStub(c) for c in own.training]
        data = SiteData(name, prepared, lambda _: own.held_out, masks)
        return Client(data, ClientSetup(self.study, 1, self.folder / name, CPU), policy)

    def reach(self, names):
        self.asked = names
        return self

    def send(self, request: Path):
        self.requests.append(load_fusion_request(request))
        asked = {name: self.sites[name] for name in self.asked}
        for name, reply in replies_here(request, asked, self.folder):
            yield self.twists.get(name, lambda _, r: r)(self.requests[-1], reply)

    def run(self, state=STATE):
        return run_fusion(self.reach, state, self.study, "run", self.folder / "run")


@dataclasses.dataclass(frozen=True)
class PreparedCaseStub:
    """A prepared case that is only counted."""

    case: Case
    mask: None = None
    lesion: None = None
    present: tuple[bool, ...] = (True,) * 4
    measures: None = None


def test_over_the_wire_it_is_the_same_and_the_model_is_sent_once(tiny_study, tmp_path) -> None:
    sites = Sites(tiny_study, tmp_path)
    found = sites.run()
    assert (found.sites, found.failures, found.reason) == (("a", "b", "c"), {}, "")
    local = fit_fusion(asked(SITES), CONFIG).fusion
    assert found.fusion.markers == local.markers  # to the last bit
    assert found.fusion.calibrations[0].sets == local.calibrations[0].sets
    steps = [r.sums.step for r in sites.requests]
    assert [k for k, _ in itertools.groupby(steps)] == ["count", "spread", "fit", "calibrate"]
    assert len(steps) < 40  # all fits in one request
    assert [r.weights is not None for r in sites.requests] == [True] + [False] * (len(steps) - 1)
    assert sites.predicted == {"a": 1, "b": 1, "c": 1}
    assert last_fusion(tmp_path / "run", "run", 2) == found
    assert sites.run() == found  # from the disk
    assert len(sites.requests) == len(steps)
    assert [p.name for p in (tmp_path / "run").iterdir()] == [FUSION_RECORD]
    assert "IDH mutation: log odds of the network x" in found.summary
    (tmp_path / "run" / FUSION_RECORD).write_text("{}")
    with pytest.raises(CheckpointError, match="delete this file to fuse the model again"):
        last_fusion(tmp_path / "run", "run", 2)


def test_a_site_lost_on_the_way_is_named_and_the_others_begin_anew(tiny_study, tmp_path) -> None:
    def late(request, reply):
        weighs = any(f.part == "weights" for f in request.sums.fits)
        return SiteReply("b", None, "gone") if weighs else reply

    found = Sites(tiny_study, tmp_path, b=late).run()
    assert (found.sites, found.failures) == (("a", "c"), {"b": "site b: no response: gone"})
    same(found.fusion.markers["idh"], pooled({n: SITES[n] for n in "ac"}).markers["idh"])


def test_a_site_that_restarted_cannot_go_on_and_none_gives_no_fusion(tiny_study, tmp_path) -> None:
    def restart(request, reply):
        if request.sums.step == "count":
            sites.sites["a"] = sites.site("a")
        return reply

    sites = Sites(tiny_study, tmp_path, a=restart)
    found = sites.run()
    assert found.sites == ("b", "c")
    assert "was restarted during the" in found.failures["a"]
    gone = dict.fromkeys(SITES, lambda _, r: SiteReply(r.site, None, "gone"))
    nobody = Sites(tiny_study, tmp_path / "nobody", **gone).run()
    assert (nobody.fusion, nobody.sites, nobody.reason) == (None, (), NO_SITE)
    counts = {"a": LabelCounts(9, 0, {m.id: (9,) + (0,) * (len(m.classes) - 1) for m in MARKERS})}
    one_class = dataclasses.replace(STATE, counts=counts)
    untrained = Sites(tiny_study, tmp_path / "untrained").run(one_class)
    assert (untrained.fusion, untrained.reason) == (None, "IDH mutation was not trained")


def test_a_policy_and_a_study_without_a_fusion_are_obeyed(tiny_study, tmp_path) -> None:
    silent = SitePolicy(metrics=("losses", "dice"), smallest_count=1)
    found = Sites(tiny_study, tmp_path, {"b": silent}).run()
    assert found.sites == ("a", "c")
    assert "its policy" not in found.failures["b"]
    assert "policy permits no test scores" in found.failures["b"]
    few = Sites(tiny_study, tmp_path / "few", {"c": SitePolicy(min_cases=26)}).run()
    assert "requires at least 26" in few.failures["c"]
    without = Sites(tiny_study, tmp_path / "without")
    without.study = dataclasses.replace(without.study, models=("federated",))
    without.sites = {n: without.site(n) for n in SITES}
    refused = without.run()
    assert refused.reason == NO_SITE
    assert "the approved study does not provide for" in refused.failures["a"]


def test_no_sum_and_no_difference_of_two_is_of_few_cases() -> None:
    least = 5
    for name, site in SITES.items():
        own = FusionCases(dataclasses.replace(site, min_count=least))
        counted = own.respond(SumsRequest("count"))
        for counts, cases in ((counted.training, site.training), (counted.held_out, site.held_out)):
            assert not ((counts > 0) & (counts < least)).any(), name
            assert not 0 < len(cases) - counts.sum() < least, name
        unknown = len(site.training) - counted.inputs.known
        assert not ((unknown > 0) & (unknown < least)).any(), name
        assert not ((counted.inputs.known > 0) & (counted.inputs.known < least)).any(), name
    whole = FusionCases(SITES["c"]).respond(SumsRequest("count"))
    assert ((whole.training > 0) & (whole.training < least)).any()  # without the rule
    assert fit_fusion(asked(SITES, least), CONFIG).fusion is not None


def few(truth: str, ages: str) -> FusionCases:
    """Cases by letters: m mutant, w wildtype, . unknown; and whether the age is known."""
    mask = np.ones(len(MASK_FEATURES))
    cases = [
        Case(f"{n}", "s", f"{n}", {}, None,
             Labels({"m": {"idh": "mutant"}, "w": {"idh": "wildtype"}}.get(letter, {})),
             person=Person(age=40.0 + n if known == "y" else UNKNOWN))
        for n, (letter, known) in enumerate(zip(truth, ages, strict=True))
    ]  # fmt: skip
    return FusionCases(SiteCases("s", cases, [], {str(c): mask for c in cases}, 5))


@pytest.mark.parametrize(
    ("truth", "classes"),
    [
        ("mmmmmwwwww", [5, 5]),
        ("mmmmwwwwww", [0, 0]),  # four mutant
        ("wwwwwwwwww", [10, 0]),
        ("mmmmmwwwwwwwww.", [5, 5]),  # one unknown: four more of the larger class count as such
        ("mmmmmwwwww.....", [5, 5]),
        ("mmmmmwwwww.", [0, 0]),  # a class would be left with one
    ],
)
def test_classes_of_few_cases_are_unknown(truth, classes) -> None:
    counts = few(truth, "y" * len(truth)).respond(SumsRequest("count")).training
    assert sorted(counts.sum(0).tolist()) == sorted(classes)
    assert np.count_nonzero(counts.sum(1)) <= 1  # all in one fifth


def test_ages_of_few_are_unknown_and_a_mean_has_no_greater_weight_than_its_count() -> None:
    age = INPUT_NAMES.index("age_years")
    for ages, known, total in (
        ("yyyyynnnnn", 5, sum(range(40, 45))),
        ("yyyynnnnnn", 0, 0),
        ("yyyyyyyyyn", 5, 5 * 44.0),  # nine known, one not: sent as five
        ("yyyyyyyyyy", 10, sum(range(40, 50))),
    ):
        found = few("m" * 5 + "w" * 5, ages).respond(SumsRequest("count")).inputs
        assert (found.known[age], found.sum[age]) == (known, pytest.approx(total))
    assert found.known[INPUT_NAMES.index("sex_male")] == 0


def message(folder: Path, change) -> tuple[FusionRequest, Path]:
    """The response of a site to its first request of a fit, with a changed note."""
    sums = SumsRequest(
        "fit", (0.0,) * 18, (1.0,) * 18, fits=(FitPlace("person", (0.0, 0.1, 0.0), 1),)
    )
    request = FusionRequest("run", "0" * 32, 2, sums, None)
    own = FusionCases(SITES["a"]).respond(sums)
    save_fusion(folder / "answer", FusionResponse("run", "0" * 32, "a", own))
    tensors, note = load(folder / "answer")
    change(note["sums"])
    save(folder / "answer", tensors, note)
    return request, folder / "answer"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda s: s.update(names=[]), "has 'names'"),
        (lambda s: s["fits"].clear(), "sums of 0 fits, not 1"),
        (lambda s: s["fits"][0][2].append(0.0), "sums of 4 coefficients of person, not 3"),
        (lambda s: s["fits"][0].__setitem__(0, 1001), "too many cases"),
        (lambda s: s["fits"][0].__setitem__(1, float("nan")), "expected a number"),
        (lambda s: s["training"].__setitem__(0, [1000, 1]), "it claims 1001 cases"),
        (lambda s: s["known"].pop(), "expected a list of 18"),
    ],
)
def test_sums_out_of_their_form_or_range_are_refused(tmp_path, change, why) -> None:
    limits = FederationConfig(max_cases=1000)
    request, file = message(tmp_path, lambda sums: None)
    assert check_fusion("a", request, file, limits).fits[0].n > 0
    request, file = message(tmp_path, change)
    with pytest.raises(UpdateError, match="site a: fusion refused: ") as refused:
        check_fusion("a", request, file, limits)
    assert why in str(refused.value)


def test_sums_of_other_cases_than_counted_are_refused() -> None:
    own = FusionCases(SITES["a"])
    counted = own.respond(SumsRequest("count"))
    places = (FitPlace("mask", (0.0,) * 17, 2), FitPlace("mask", (0.0,) * 17, 2, inside=True))
    request = SumsRequest("fit", (0.0,) * 18, (1.0,) * 18, fits=places)
    sent = own.respond(request)
    check_same_cases(request, counted, sent)
    assert sum(f.n for f in sent.fits) == counted.training.sum()
    more = dataclasses.replace(sent.fits[1], n=sent.fits[1].n + 1)
    with pytest.raises(UpdateError, match="cases, after"):
        check_same_cases(request, counted, dataclasses.replace(sent, fits=(sent.fits[0], more)))


def test_a_malformed_request_is_refused(tmp_path) -> None:
    save_fusion_request(
        tmp_path / "r", FusionRequest("run", "0" * 32, 2, SumsRequest("count"), None)
    )
    tensors, note = load(tmp_path / "r")
    for change in (
        {"step": "spread"},
        {"mean": [0.0]},
        {"fits": [["mask", None, False, [0.0] * 3]]},
        {"step": "fit", "mean": [0.0] * 18, "scale": [1.0] * 18,
         "fits": [["mask", None, False, [0.0] * 3]]},
        {"step": "calibrate", "mean": [0.0] * 18, "scale": [1.0] * 18, "slopes": [0.0] * 18,
         "weights": [[0.5] * 3] * 5},
    ):  # fmt: skip
        save(tmp_path / "r", tensors, {**note, "sums": {**note["sums"], **change}})
        with pytest.raises(UpdateError, match="the request for a fusion is malformed"):
            load_fusion_request(tmp_path / "r")


def test_fusion_and_noise_exclude_each_other() -> None:
    raw = {
        "name": "s",
        "data": {"root": "r", "train": ["a"], "external": ["b"]},
        "models": ["federated", "age_sex", "fusion"],
    }
    private = {"clip": 1.0, "patients": 100, "delta": 1e-3, "noise": 1.0}
    assert parse_study(raw)
    with pytest.raises(StudyError, match='"fusion" is fitted on training patients without noise'):
        parse_study({**raw, "privacy": private})
