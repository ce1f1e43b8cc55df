"""The epsilon that a run has spent: by site, on the card, the page and the screens."""

from __future__ import annotations

import dataclasses
from io import StringIO

import pytest
from made_up_facts import make_facts
from made_up_federation import make_status, make_study
from rich.console import Console
from test_run_card import card as run_card_of

from gliofed.cli.screens.federation import status_table
from gliofed.deployment.model_card import model_card
from gliofed.deployment.run_page import run_content
from gliofed.deployment.run_status import parse_status
from gliofed.federated.noise.accounting import Mechanism, epsilon_of
from gliofed.federated.noise.spent import noise_lines, spent_by_site
from gliofed.privacy_config import PrivacyConfig
from gliofed.reporting.federation.page import render_federation_page
from gliofed.types import RoundPoint

SITES = ("gent", "leiden", "utrecht")
NOT_CLAIMED = "no differential privacy is claimed"


@pytest.fixture
def study():
    """Three hospitals; a round draws each of 100 patients with a probability of 0.1."""
    plain = make_study(30)
    return dataclasses.replace(
        plain,
        data=dataclasses.replace(plain.data, train=SITES),
        train=dataclasses.replace(plain.train, epochs=3, batch=10),
        federation=dataclasses.replace(plain.federation, method="synchronous"),
        privacy=PrivacyConfig(clip=0.5, patients=100, delta=1e-3, noise=2.0),
    )


def point(number: int, *sites: str) -> RoundPoint:
    made = RoundPoint.of_stats(number, 1, {}, 1.0)
    return dataclasses.replace(made, merged=dict.fromkeys(sites, 1))


def test_a_site_has_spent_its_merged_rounds(study) -> None:
    points = [point(0, "gent", "utrecht"), point(1, "gent")]
    spent = spent_by_site(study, points)
    twice, once = (epsilon_of([Mechanism(0.1, 2.0, n)], 1e-3) for n in (2, 1))
    assert spent == {"gent": twice, "leiden": 0.0, "utrecht": once}
    assert twice > once > 0
    assert spent_by_site(dataclasses.replace(study, privacy=None), points) == {}


def test_the_sentences_have_each_site_and_the_bound_of_the_run(study) -> None:
    bound = epsilon_of([Mechanism(0.1, 2.0, 30)], 1e-3)
    first, second = noise_lines(study, {"gent": 1.234, "leiden": 0.5})
    assert "clipped to norm 0.5, and noise of 2 times that" in first
    assert f"gent 1.23, leiden 0.5; at most {bound:.3g} for all 30 rounds" in second
    assert "delta 0.001" in second
    assert "all gradients of a site" in second
    rules = dataclasses.replace(study.federation, privacy="secure-sum")
    assert "the sums over sites" in noise_lines(dataclasses.replace(study, federation=rules), {})[1]
    assert noise_lines(dataclasses.replace(study, privacy=None), {}) == ()


def test_card_page_and_screen_of_a_federation_have_it(study) -> None:
    status = make_status(study, 30, "completed", spent={"gent": 1.25, "leiden": 0.75})
    assert parse_status(status.plain).spent == status.spent
    text = model_card(study, status, (), "0" * 64)
    assert "gent 1.25, leiden 0.75" in text
    assert NOT_CLAIMED not in text
    gone = model_card(study, status, ("leiden",), "0" * 64)
    assert "gent 1.25; at most" in gone
    page = render_federation_page(run_content(status, (), study))
    assert "gent 1.25, leiden 0.75" in page
    out = StringIO()
    Console(file=out, width=400).print(status_table(status))
    assert "epsilon so far: gent 1.25, leiden 0.75" in out.getvalue()


def test_without_noise_nothing_is_said_of_it(study) -> None:
    plain = dataclasses.replace(study, privacy=None)
    status = make_status(plain, 30, "completed")
    assert NOT_CLAIMED in model_card(plain, status, (), "0" * 64)
    assert "psilon" not in render_federation_page(run_content(status, (), plain))


def test_the_card_of_a_run_has_it_for_the_federated_model_alone() -> None:
    facts = make_facts(noise=("Epsilon at delta 0.001: a 1.5.",))
    assert "Epsilon at delta 0.001: a 1.5." in run_card_of(facts)
    assert NOT_CLAIMED not in run_card_of(facts)
    pooled = tuple(r for r in facts.rows if r.model == "pooled")
    assert pooled
    assert NOT_CLAIMED in run_card_of(dataclasses.replace(facts, rows=pooled))
