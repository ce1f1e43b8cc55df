"""A given model tested by the sites of a federation: bound by its id, sums alone leave, no training."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import write_hospital
from federation_kits import PATIENCE_S, make_kits, running, server_of, site_of, verb, wait_for
from how_to import PAGES, commands
from small_model import make_model
from typer.testing import CliRunner

import gliofed
from gliofed.cli.main import app
from gliofed.deployment.client_executor import ClientExecutor
from gliofed.deployment.join import record_approval
from gliofed.deployment.kit import Kit, open_kit
from gliofed.deployment.model_card import MODEL
from gliofed.deployment.run_page import PAGE
from gliofed.deployment.run_status import RunStatus, read_status
from gliofed.deployment.server_controller import ServerController
from gliofed.deployment.site_data import SiteDataPaths, write_data_paths
from gliofed.deployment.site_model import read_scores
from gliofed.deployment.training_job import make_job, study_for_sites
from gliofed.errors import ApprovalError, GliofedError, ModelError, QuorumError, StudyError
from gliofed.experiments.run import run_study
from gliofed.federated.flare.controller import EngineConfig
from gliofed.federated.governance.consent import what_leaves
from gliofed.federated.governance.policy import SitePolicy
from gliofed.federated.messages import CountsRequest, ScoresRequest, save_request
from gliofed.federated.model_delivery import ModelRequest, save_model_request
from gliofed.federated.server.exchange import SiteReply
from gliofed.models.folder import model_files, read_model
from gliofed.study import load_study, parse_study, study_toml

SITES = ("north", "south")
NONCE = "0" * 32
ROWS = [("1", "0", "1", "4"), ("0", "1", "0", "2")]


class Validation:
    """Two hospitals of twelve cases, their kits, and the study in which they test an ensemble."""

    def __init__(self, root: Path) -> None:
        self.root, self.model, self.study = root, root / "model", root / "validation.toml"
        self.silent: set[str] = set()
        self.sent: list[tuple[str, str]] = []

    @classmethod
    def made(cls, root: Path) -> Validation:
        made = cls(root)
        members = [make_model(root / f"{n}", n, untrained=("mgmt",)) for n in (1, 2)]
        gliofed.combine_models(members, made.model)
        make_kits(root / "kits", *SITES)
        gliofed.propose_validation(made.model, root / "kits/lead", made.study)
        for number, site in enumerate(SITES):
            rows = {f"{site}{n}": ROWS[n % 2] for n in range(12)}
            write_hospital(root / "data" / site, rows, seed=number + 1)
            made.approve(site)
        return made

    def copy(self, root: Path) -> Validation:
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        copied = Validation(root)
        for site in SITES:
            write_data_paths(copied.kit(site), copied.paths(site))
        return copied

    def paths(self, site: str) -> SiteDataPaths:
        return SiteDataPaths(self.root / "data" / site, self.root / "stores" / site)

    def approve(self, site: str) -> None:
        proposal = gliofed.propose(self.root / "kits" / site, self.paths(site), self.study)
        record_approval(proposal, "A", None)

    def kit(self, name: str) -> Kit:
        return open_kit(self.root / "kits" / name, "server" if name == "server" else "site")

    @property
    def job(self):
        return make_job(load_study(self.study), 1)

    @property
    def folder(self) -> Path:
        """Of the run at the server."""
        return self.kit("server").work / self.job.run

    def executor(self, site: str) -> ClientExecutor:
        executor = ClientExecutor(**self.job.plain)
        executor.prepare(self.kit(site).root)
        return executor

    def conduct(self, sent: Path | None = None, **changes: object) -> RunStatus:
        """One job in this process. sent: the folder of the model that comes with it."""
        executors: dict[str, ClientExecutor] = {}

        def respond(site: str, request: Path, config: EngineConfig) -> SiteReply:
            if site in config.excluded:
                return SiteReply(site, None, config.excluded[site])
            if site in self.silent:
                return SiteReply(site, None, "not connected")
            response = request.with_name(f"response-{site}")
            try:
                executors[site] = executors.get(site) or self.executor(site)
                executors[site].respond(request, response)
            except GliofedError as error:
                return SiteReply(site, None, type(error).__name__)
            self.sent.append((site, response.read_bytes().decode(errors="replace")))
            return SiteReply(site, response)

        class Engine:
            def __init__(self, config: EngineConfig) -> None:
                self.config = config

            def send(self, request: Path) -> Iterator[SiteReply]:
                for site in sorted(self.config.sites):
                    yield respond(site, request, self.config)

        controller = ServerController(**dataclasses.replace(self.job, **changes).plain)
        controller.job_model = sent or self.model
        controller.run_job(Engine, self.kit("server").root)
        return read_status(self.folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Validation:
    return Validation.made(tmp_path_factory.mktemp("made"))


@pytest.fixture
def validation(made, tmp_path, without_pictures) -> Validation:
    return made.copy(tmp_path)


@pytest.fixture(scope="module")
def pooled(made) -> gliofed.Validation:
    """The same model on the cases of both hospitals together, on one machine."""
    data = [made.root / "data" / site for site in SITES]
    return gliofed.validate(
        made.model, data, made.root / "pooled", gliofed.ValidateOptions(bootstrap=100)
    )


Figures = dict[tuple[str, str, str], tuple[int, float]]


def values(rows) -> Figures:
    """Figures by hospital, task and metric; within one hospital all pairs are of that hospital."""
    found = {}
    for row in rows:
        metric = "auc" if row.metric == "auc_within_site" else row.metric
        if metric in ("dice", "auc", "balanced_accuracy", "brier") and row.value is not None:
            found[row.site, row.task, metric] = (row.n, row.value)
    return found


def assert_equal_to_pooled(ours: Figures, theirs: Figures) -> None:
    """All but the AUC over all sites: the pairs of two sites are in the pooled one alone."""
    apart = {("all", task, "auc") for task in ("idh", "codel_1p19q", "grade")}
    assert ours.keys() - theirs.keys() == set()
    compared = ours.keys() - apart
    assert {site for site, _, _ in compared} == {"all", *SITES}
    for key in compared:
        assert ours[key] == pytest.approx(theirs[key], abs=1e-9), key


@pytest.mark.process
def test_sums_of_all_sites_give_the_scores_of_the_pooled_cases(validation, pooled) -> None:
    status = validation.conduct()
    assert (status.state, status.failures, status.model) == (
        "completed", {}, read_model(validation.model).id)  # fmt: skip
    ours, theirs = values(status.rows), values(pooled.rows)
    for site in SITES:
        for task, metric in (("mask", "dice"), ("idh", "auc"), ("idh", "brier"), ("grade", "auc")):
            assert ours[site, task, metric][0] == 12
    assert_equal_to_pooled(ours, theirs)


@pytest.mark.process
def test_nothing_but_sums_leaves_and_the_model_stays_as_it_is(validation) -> None:
    before = model_files(validation.model)
    status = validation.conduct()
    assert model_files(validation.model) == model_files(validation.folder / MODEL) == before
    assert not any(row.task == "mgmt" for row in status.rows), "the model was not trained for it"
    assert not any(fit.marker == "mgmt" for fit in status.fits)
    assert {fit.marker for fit in status.fits} == {"idh", "codel_1p19q", "grade"}
    assert not (validation.folder / "rounds").exists()
    for _, text in validation.sent:
        assert not any(f"{site}{n}" in text for site in SITES for n in range(12))
    for site in SITES:
        log = [x.event for x in gliofed.read_log(validation.kit(site).audit)]
        assert "model-received" in log
        assert {r.site for r in read_scores(validation.kit(site).work / validation.job.run)} == {
            site
        }
    page = (validation.folder / PAGE).read_text()
    assert read_model(validation.model).id in page
    assert "validation of a given model, without training" in page
    assert 'id="curves"' not in page


@pytest.mark.process
def test_a_site_that_is_away_is_named_and_tested_later_by_order(validation) -> None:
    validation.silent = {"south"}
    status = validation.conduct()
    assert status.state == "completed"
    assert status.failures.keys() == {"south"}
    assert {r.site for r in status.rows} == {"all", "north"}
    validation.silent = set()
    assert validation.conduct().failures.keys() == {"south"}, "it is not tested again by the way"
    status = validation.conduct(test_again=True)
    assert (status.failures, {r.site for r in status.rows}) == ({}, {"all", *SITES})


@pytest.mark.process
def test_a_validation_resumes_after_its_last_stage(validation, monkeypatch) -> None:
    validation.silent = set(SITES)
    with pytest.raises(QuorumError):
        validation.conduct()
    assert read_status(validation.folder).state == "below quorum"
    validation.silent = set()
    with monkeypatch.context() as patched:
        patched.setattr(ServerController, "_calibrate", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            validation.conduct()
    tested = (validation.folder / "test.json").read_bytes()
    validation.sent.clear()
    assert validation.conduct().state == "completed"
    assert (validation.folder / "test.json").read_bytes() == tested
    assert not any('"roles"' in text for _, text in validation.sent)


@pytest.mark.process
def test_patients_at_two_hospitals_are_counted_once(validation, tmp_path) -> None:
    rows = {f"south{n}": ROWS[n % 2] for n in range(11)} | {"north0": ROWS[0]}
    (tmp_path / "data/south").rename(tmp_path / "data/old")
    write_hospital(tmp_path / "data/south", rows, seed=2)
    validation.approve("south")
    status = validation.conduct()
    assert status.shared == {"north and south": "1 to 10"}
    dice = {r.site: r.n for r in status.rows if r.metric == "dice"}
    assert dice == {"all": 23, "north": 12, "south": 11}


@pytest.mark.process
def test_what_a_policy_forbids_does_not_leave(validation, tmp_path) -> None:
    (tmp_path / "kits/south/gliofed/policy.toml").write_text('metrics = ["losses"]\n')
    validation.approve("south")
    (tmp_path / "kits/north/gliofed/policy.toml").write_text("smallest_count = 7\n")
    validation.approve("north")
    status = validation.conduct()
    assert status.failures.keys() == {"south"}
    assert status.uncalibrated.keys() == {"south"}
    own = {r.task: r.value for r in status.rows if r.site == "north" and r.metric != "dice"}
    assert own == {"idh": None, "codel_1p19q": None, "grade": None}
    scores = read_scores(validation.kit("south").work / validation.job.run)
    assert any(r.value is not None for r in scores), "its own scores stay with the hospital"


@pytest.mark.slow
@pytest.mark.process
def test_over_mutual_tls_the_printed_command_resumes_and_equals_the_pooled_cases(
    made, pooled, tmp_path
) -> None:
    """The lead's process is killed during the job, and started again."""
    kits = made.copy(tmp_path).root / "kits"
    server = open_kit(kits / "server", "server")
    printed = [
        c for c in commands(PAGES / "run-a-federation.md") if "federation validate" in c.text
    ]
    here = {"model": tmp_path / "model", "validation.toml": tmp_path / "validation.toml",
            "kits/lead": kits / "lead"}  # fmt: skip
    lead = verb(*(here.get(word, word) for word in printed[0].words[1:]))
    with ExitStack() as stack:
        stack.enter_context(running(server_of(kits), tmp_path / "server.txt"))
        for site in SITES:
            stack.enter_context(running(site_of(kits / site), tmp_path / f"{site}.txt"))
        with running(lead, tmp_path / "lead-1.txt"):
            wait_for(lambda: "job-started" in events(server), "a job on the server")
        with running(lead, tmp_path / "lead-2.txt") as second:
            second.wait(4 * PATIENCE_S)
    said = (tmp_path / "lead-2.txt").read_text(errors="replace")
    assert second.returncode == 0, said
    status = gliofed.status(kits / "lead")
    assert (status.state, status.failures, set(status.compared)) == ("completed", {}, {*SITES})
    assert_equal_to_pooled(values(status.rows), values(pooled.rows))
    assert events(server).count("model-sent") == 2, "each site receives the model once"
    assert not {"update-accepted", "round-committed", "model-written"} & {*events(server)}
    assert status.model in (kits / "lead/gliofed/work" / status.run / PAGE).read_text()


def events(kit: Kit) -> list[str]:
    return [x.event for x in gliofed.read_log(kit.audit)] if kit.audit.is_file() else []


# ---- what is refused


@pytest.mark.process
def test_a_model_that_was_not_approved_is_refused_by_server_and_site(validation, tmp_path) -> None:
    other = make_model(tmp_path / "other", seed=2, untrained=("mgmt",))
    assert read_model(other).id != read_model(validation.model).id
    with pytest.raises(ModelError, match="no other one is tested"):
        validation.conduct(sent=other)
    assert not (validation.folder / MODEL).exists()
    with pytest.raises(ModelError, match="no other one is tested"):
        gliofed.validate_at_sites(other, validation.study, tmp_path / "kits/lead")
    with pytest.raises(ModelError, match="came without the model"):
        validation.conduct(sent=tmp_path / "nothing")
    id_, files = model_files(other)
    site = validation.executor("north")
    for announced in (id_, read_model(validation.model).id):
        request = ModelRequest(validation.job.run, NONCE, announced, files)
        save_model_request(tmp_path / "request", request)
        with pytest.raises(ModelError, match="no other one is tested"):
            site.respond(tmp_path / "request", tmp_path / "response")
    assert not (validation.kit("north").work / validation.job.run / MODEL).exists()


@pytest.mark.process
def test_weights_that_come_with_a_request_and_training_are_refused(validation, tmp_path) -> None:
    validation.conduct()
    site, run = validation.executor("north"), validation.job.run
    weights = read_model(validation.model).members[0]
    for request, words in (
        (ScoresRequest(run, NONCE, 3, weights), "tensor"),
        (CountsRequest(run, NONCE), "it can only test"),
    ):
        save_request(tmp_path / "request", request)
        with pytest.raises(GliofedError, match=words):
            site.respond(tmp_path / "request", tmp_path / "response")
    save_request(tmp_path / "request", ScoresRequest(run, NONCE, 3, None))
    site.respond(tmp_path / "request", tmp_path / "response")
    weights_file = validation.kit("north").work / run / MODEL / "weights.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:-1] + b"\1")
    with pytest.raises(ModelError, match="was changed"):
        validation.executor("north").respond(tmp_path / "request", tmp_path / "response")


@pytest.mark.process
def test_a_site_without_approval_of_this_model_does_not_run_it(validation, tmp_path) -> None:
    (approval,) = validation.kit("south").approvals.iterdir()
    approval.unlink()
    with pytest.raises(ApprovalError, match="is not approved here"):
        validation.executor("south")
    other = make_model(tmp_path / "other", seed=2, untrained=("mgmt",))
    study = tmp_path / "other.toml"
    gliofed.propose_validation(other, tmp_path / "kits/lead", study)
    assert load_study(study).digest != load_study(validation.study).digest


@pytest.mark.process
def test_a_study_that_uses_the_model_otherwise_is_refused(validation, tmp_path) -> None:
    study = load_study(validation.study)
    loss = dataclasses.replace(study.loss, markers={**study.loss.markers, "mgmt": 1.0})
    score = dataclasses.replace(study.score, mirror=not study.score.mirror)
    net = dataclasses.replace(study.net, stem=None)
    for changes in ({"loss": loss}, {"score": score}, {"net": net}):
        path = tmp_path / "changed.toml"
        path.write_text(study_toml(study_for_sites(dataclasses.replace(study, **changes))))
        with pytest.raises(ModelError, match="write the study anew"):
            gliofed.validate_at_sites(validation.model, path, tmp_path / "kits/lead")


@pytest.mark.process
def test_the_consent_names_the_model_and_that_nothing_is_trained(validation) -> None:
    study = load_study(validation.study)
    form = gliofed.consent(validation.study)
    runs = " ".join(form.runs)
    assert read_model(validation.model).id in runs
    assert "No training takes place" in runs
    assert "MGMT" not in runs
    assert "passes" not in runs
    leaves = " ".join(what_leaves(study, SitePolicy(smallest_count=7), None, 1000))
    assert "sums over at least 7 cases" in leaves
    assert "No weights, gradient" in leaves
    assert "training cases" not in leaves
    assert not any("Before the count" in line for line in form.leaves)
    none = " ".join(what_leaves(study, SitePolicy(metrics=()), None, 1000))
    assert "No scores: this site's policy excludes them" in none


def test_the_command_writes_the_study_and_no_other_command_runs_it(tmp_path) -> None:
    make_kits(tmp_path / "kits", "north", "south", "east")
    model, study = make_model(tmp_path / "model"), tmp_path / "v.toml"
    words = ["federation", "validate", str(model), str(study), "--kit", str(tmp_path / "kits/lead")]
    wrong = CliRunner().invoke(app, [*words, "--site", "west"])
    assert wrong.exit_code == 1
    assert "no site 'west'" in wrong.output
    done = CliRunner().invoke(app, [*words, "--site", "north", "--site", "east"])
    assert done.exit_code == 0, done.output
    assert "--study v.toml" in done.output
    written = load_study(study)
    assert (written.data.external, written.data.train) == (("north", "east"), ())
    assert written.federation.validates == read_model(model).id
    assert CliRunner().invoke(app, [*words, "--site", "north"]).exit_code == 2
    with pytest.raises(StudyError, match="gliofed federation validate MODEL"):
        gliofed.start(study, tmp_path / "kits/lead", lambda _: None)
    with pytest.raises(StudyError, match="gliofed validate MODEL DATA"):
        run_study(written, tmp_path / "run")
    with pytest.raises(StudyError, match="trains none that could be continued"):
        gliofed.extend(study, tmp_path / "kits/lead", 99, tmp_path / "x.toml")
    with pytest.raises(StudyError, match="exists"):
        gliofed.propose_validation(model, tmp_path / "kits/lead", study)


def test_a_study_that_trains_is_not_validated(tmp_path, tiny_study) -> None:
    make_kits(tmp_path / "kits", "a", "b", "c")
    (tmp_path / "s.toml").write_text(study_toml(tiny_study))
    with pytest.raises(StudyError, match="run gliofed start"):
        gliofed.validate_at_sites(tmp_path, tmp_path / "s.toml", tmp_path / "kits/lead")


def test_digest_and_text_of_a_study_that_trains_are_as_before_the_setting(
    tiny_study, monkeypatch
) -> None:
    assert "validates" not in study_toml(tiny_study)
    digested = []
    monkeypatch.setattr("gliofed.study.json.dumps", lambda plain, **_: digested.append(plain) or "")
    federation = dataclasses.replace(tiny_study.federation, validates="ab" * 32)
    for study in (tiny_study, dataclasses.replace(tiny_study, federation=federation)):
        assert study.digest
    assert ["validates" in plain["federation"] for plain in digested] == [False, True]


@pytest.mark.parametrize(
    ("federation", "data", "words"),
    [
        ({"validates": "ab" * 31}, {}, "the id of a model"),
        ({"validates": "ab" * 32, "share_model": True}, {}, "leave out continues and share_model"),
        ({"validates": "ab" * 32}, {"train": ["a"]}, "name all hospitals under data.external"),
        ({"validates": ""}, {"train": ["a"]}, "the id of a model"),
        ({}, {}, "name at least one hospital"),
    ],
)
def test_a_validation_trains_nothing(federation, data, words) -> None:
    plain = {"name": "x", "data": {"root": ".", "train": [], "external": ["b"]}}
    parse_study({**plain, "federation": {"validates": "ab" * 32}})
    with pytest.raises(StudyError, match=words):
        parse_study({**plain, "data": {**plain["data"], **data}, "federation": federation})
