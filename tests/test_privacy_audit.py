"""The audit of a run folder, with networks that were not trained."""

import dataclasses

import pytest

import gliofed
from gliofed.data.splits import Split
from gliofed.errors import CheckpointError
from gliofed.experiments.privacy import audit as module
from gliofed.experiments.privacy.audited_run import AuditedModel, AuditedRun
from gliofed.markers import MARKERS
from gliofed.models.folder import recipe_of, write_model
from gliofed.models.network import build_net

pytestmark = pytest.mark.slow


@pytest.fixture
def run(make_prepared, tiny_study, tmp_path, monkeypatch):
    """Two sites of six patients, of which each of three seeds holds out one; the run's folder."""
    prepared, sites = {}, {}
    for first, site in enumerate(("a", "b")):  # the sites have other labels in each place
        for number in range(6):
            labels = {m.id: m.classes[(number + first) % len(m.classes)] for m in MARKERS}
            case = make_prepared(f"{site}-{number}", labels, site=site)
            prepared[str(case.case)] = case
            sites.setdefault(site, []).append(case.case)
    models = []
    for seed in (1, 2, 3):
        train = {s: tuple(c for i, c in enumerate(own) if i != seed) for s, own in sites.items()}
        held_out = {s: (own[seed],) for s, own in sites.items()}
        folder = tmp_path / f"model-{seed}"
        weights = build_net(tiny_study.net, seed).state_dict()
        write_model(folder, recipe_of(tiny_study, "run", 1), weights, {}, lambda _: "")
        models.append(AuditedModel(seed, Split("external", train, held_out, (), ()), folder))
    audited = AuditedRun(tmp_path, tiny_study, prepared, tuple(models))
    monkeypatch.setattr(module, "open_run", lambda *_: audited)
    (tmp_path / "model-card.md").write_text("# Card\n")
    return tmp_path


OPTIONS = gliofed.AuditOptions(inversions=1, iterations=2, bootstrap=100)


def test_every_attack_is_made_written_and_stated_on_the_card(run) -> None:
    audit = gliofed.audit_privacy(run, OPTIONS)
    assert {r.attack for r in audit.rows} == {
        "membership_loss", "membership_likelihood_ratio", "label_inference", "gradient_inversion",
    }  # fmt: skip
    labels = {(r.model, r.seen, r.defence): r.value for r in audit.rows
              if (r.attack, r.task) == ("label_inference", "joint")}  # fmt: skip
    for state in ("untrained", "trained"):
        assert labels[state, "gradient of 1 patient", "none"] == 1.0
        assert labels[state, "sum of the gradients of sites, about 2 patients", "secure sum"] < 1
    seen = {r.seen for r in audit.rows if r.attack == "gradient_inversion"}
    assert seen == {
        "gradient of 1 patient", "gradient of 4 patients of one site",
        "sum of the gradients of 2 sites, 1 patient each",
    }  # fmt: skip
    card = (run / "model-card.md").read_text()
    assert card.startswith("# Card\n\n## Privacy audit\n")
    assert "gradient of 1 patient" in audit.page.read_text()


def test_figures_of_attacks_that_are_not_repeated_stay(run) -> None:
    first = gliofed.audit_privacy(run, dataclasses.replace(OPTIONS, attacks=("labels",)))
    both = gliofed.audit_privacy(run, dataclasses.replace(OPTIONS, attacks=("membership",)))
    again = gliofed.audit_privacy(run, dataclasses.replace(OPTIONS, attacks=("labels",)))
    assert [r for r in both.rows if r.attack == "label_inference"] == list(first.rows)
    assert again.rows == both.rows


def test_a_folder_without_a_run_is_refused(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="is not a finished run"):
        gliofed.audit_privacy(tmp_path)
