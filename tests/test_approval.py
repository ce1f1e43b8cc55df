"""What was approved runs, and nothing else does."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import gliofed
from gliofed.cli.main import app
from gliofed.deployment.training_job import make_job
from gliofed.errors import ApprovalError, PolicyError, StudyError
from gliofed.federated.governance.approval import (
    LARGEST,
    approve,
    canonical_toml,
    make_approval,
    parse_study_text,
    read_approval,
    require_approval,
    sign,
    write_approval,
)
from gliofed.federated.governance.consent import what_leaves, what_runs
from gliofed.federated.governance.keys import read_public, verify_signature
from gliofed.federated.governance.policy import SitePolicy, load_policy
from gliofed.federated.label_counts import LabelCounts
from gliofed.federation_config import OPERATIONAL
from gliofed.markers import MARKERS
from gliofed.study import parse_study

SHORT = 'name = "glioma"\n[data]\nroot = "."\ntrain = ["north", "harbour"]\nexternal = ["south"]\n'
TEXT = canonical_toml(SHORT)
DIGEST = parse_study(
    {"name": "glioma", "data": {"root": ".", "train": ["north", "harbour"], "external": ["south"]}}
).digest


@pytest.fixture
def folder(tmp_path):
    """Approvals, with `TEXT` among them."""
    approve(TEXT, "Dr. A. Example", tmp_path / "approvals")
    return tmp_path / "approvals"


def test_what_was_approved_may_run(folder) -> None:
    approval = require_approval(TEXT, DIGEST, folder, SitePolicy())
    assert (approval.study, approval.name, approval.who) == (DIGEST, "glioma", "Dr. A. Example")
    (file,) = folder.iterdir()
    assert file.name == f"{DIGEST}.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_approval(file) == approval


def test_the_same_study_written_otherwise_is_approved_as_its_canonical_text(tmp_path) -> None:
    approve("# a remark\n" + SHORT + "[train]\nepochs = 30\n", "A", tmp_path)
    require_approval(TEXT, DIGEST, tmp_path, SitePolicy())
    assert canonical_toml(TEXT) == TEXT


def test_a_study_nobody_approved_does_not_run(folder) -> None:
    other = canonical_toml(SHORT + "[train]\nepochs = 31\n")
    digest = make_approval(other, "A").study
    with pytest.raises(ApprovalError, match=r"'glioma'.*is not approved here.*gliofed approve"):
        require_approval(other, digest, folder, SitePolicy())
    with pytest.raises(ApprovalError, match="not the one it was announced with"):
        require_approval(other, DIGEST, folder, SitePolicy())
    with pytest.raises(ApprovalError, match="not the one it was announced with"):
        require_approval(TEXT, f"../{DIGEST}", folder, SitePolicy())


def without_operational(text: str) -> str:
    """The text without the numbers of its operational settings."""
    return re.sub(rf"^({'|'.join(OPERATIONAL)}) = [0-9.]+$", r"\1", text, flags=re.MULTILINE)


def test_a_longer_deadline_and_another_quorum_need_no_new_approval(folder) -> None:
    later = canonical_toml(SHORT + "[federation]\ndeadline = 7200.0\nquorum = 2\n")
    assert later != TEXT
    assert require_approval(later, DIGEST, folder, SitePolicy()).study == DIGEST
    other = canonical_toml(SHORT + "[federation]\ndeadline = 7200.0\nmax_cases = 9\n")
    with pytest.raises(ApprovalError):
        require_approval(other, DIGEST, folder, SitePolicy())


quick = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quick
@given(
    st.integers(0, len(TEXT) - 1),
    st.characters(codec="utf-8"),
    st.sampled_from(["change", "insert", "drop"]),
)
def test_a_text_with_a_byte_changed_does_not_run(folder, place, character, how) -> None:
    after = place if how == "insert" else place + 1
    changed = TEXT[:place] + ("" if how == "drop" else character) + TEXT[after:]
    if changed == TEXT:
        return
    if without_operational(changed) == without_operational(TEXT):
        return
    with pytest.raises(ApprovalError):
        require_approval(changed, DIGEST, folder, SitePolicy())


def test_another_place_of_the_data_is_another_text(folder) -> None:
    moved = canonical_toml(SHORT.replace('root = "."', 'root = "/elsewhere"'))
    assert (
        make_approval(moved, "A").study == DIGEST
    )  # where the data lies does not enter the digest
    with pytest.raises(ApprovalError, match="approves another text"):
        require_approval(moved, DIGEST, folder, SitePolicy())


@pytest.mark.parametrize(
    "text", ["", "name = 3", "[" * 20_000, SHORT, TEXT + "\n", TEXT.replace("epochs = 30", "epochs = +30"),
             TEXT + "# remark\n", "x" * (LARGEST + 1), "name = '\ud800'"],
)  # fmt: skip
def test_what_is_no_canonical_study_does_not_run(folder, text) -> None:
    with pytest.raises(ApprovalError):
        require_approval(text, DIGEST, folder, SitePolicy())


@pytest.mark.parametrize("text", [SHORT, TEXT + "\n", TEXT + "# remark\n"])
def test_a_study_written_otherwise_is_told_so(folder, text) -> None:
    with pytest.raises(ApprovalError, match="not in canonical form"):
        require_approval(text, DIGEST, folder, SitePolicy())


def test_a_text_may_be_just_so_long() -> None:
    text = SHORT + "#" * (LARGEST - len(SHORT))
    assert canonical_toml(text) == TEXT
    with pytest.raises(StudyError, match="longer than"):
        canonical_toml(text + "#")


@pytest.mark.parametrize(
    "change",
    [{"study": "ab" * 32}, {"text": "ab" * 32}, {"who": 3}, {"who": None}, {"more": "x"}],
)
def test_an_approval_that_was_changed_is_refused(folder, change) -> None:
    (file,) = folder.iterdir()
    plain = json.loads(file.read_text())
    file.write_text(json.dumps(plain))
    require_approval(TEXT, DIGEST, folder, SitePolicy())
    file.write_text(json.dumps(plain | change))
    with pytest.raises(ApprovalError):
        require_approval(TEXT, DIGEST, folder, SitePolicy())


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "7", "[" * 20_000])
def test_what_is_no_approval_is_refused(folder, text) -> None:
    (file,) = folder.iterdir()
    file.write_text(text)
    with pytest.raises(ApprovalError, match="approve again"):
        require_approval(TEXT, DIGEST, folder, SitePolicy())


def test_an_approval_that_others_may_write_is_refused(folder) -> None:
    (file,) = folder.iterdir()
    for mode, fine in ((0o644, True), (0o664, False), (0o646, False)):
        file.chmod(mode)
        if fine:
            require_approval(TEXT, DIGEST, folder, SitePolicy())
            continue
        with pytest.raises(ApprovalError, match="chmod 600"):
            require_approval(TEXT, DIGEST, folder, SitePolicy())


def test_an_approval_bound_to_a_policy_ends_with_it(tmp_path) -> None:
    policy = SitePolicy(min_cases=20)
    approve(TEXT, "A", tmp_path, policy)
    require_approval(TEXT, DIGEST, tmp_path, policy)
    with pytest.raises(ApprovalError, match="approved under another policy"):
        require_approval(TEXT, DIGEST, tmp_path, SitePolicy(min_cases=21))


@pytest.mark.parametrize(("who", "fine"), [("", False), (" ", False), ("a\nb", False), ("\x1b[2J", False),
                                           ("a" * 81, False), ("a" * 80, True), ("Dr. Ä. Öz", True)])  # fmt: skip
def test_who_approves_is_one_plain_line(who, fine) -> None:
    if fine:
        assert make_approval(TEXT, who).who == who
        return
    with pytest.raises(ApprovalError, match="name of the approver"):
        make_approval(TEXT, who)


class TestSignatures:
    @pytest.fixture
    def key(self, tmp_path):
        gliofed.new_approver_key(tmp_path / "key")
        return tmp_path / "key"

    @pytest.fixture
    def policy(self, key):
        return SitePolicy(approvers=("ab" * 32, read_public(key)))

    def test_a_signed_approval_may_run_and_an_unsigned_may_not(self, folder, key, policy) -> None:
        with pytest.raises(ApprovalError, match="has no signature"):
            require_approval(TEXT, DIGEST, folder, policy)
        write_approval(sign(read_approval(folder / f"{DIGEST}.json"), key), folder)
        assert require_approval(TEXT, DIGEST, folder, policy).signature

    def test_the_signature_of_a_stranger_is_none(self, folder, tmp_path, policy) -> None:
        gliofed.new_approver_key(tmp_path / "other")
        write_approval(sign(make_approval(TEXT, "A"), tmp_path / "other"), folder)
        with pytest.raises(ApprovalError, match="has no signature"):
            require_approval(TEXT, DIGEST, folder, policy)

    @pytest.mark.parametrize(
        "field", [f.name for f in dataclasses.fields(gliofed.Approval) if f.name != "signature"]
    )
    def test_every_field_is_signed(self, key, field) -> None:
        signed = sign(make_approval(TEXT, "A", SitePolicy()), key)
        assert verify_signature(signed.signature, signed.signed_bytes(), [read_public(key)])
        changed = dataclasses.replace(signed, **{field: "another"})
        assert not verify_signature(changed.signature, changed.signed_bytes(), [read_public(key)])

    @pytest.mark.parametrize("signature", [None, "", "ab" * 63, "zz" * 64, "ab" * 64])
    def test_what_is_no_signature_signs_nothing(self, key, signature) -> None:
        assert not verify_signature(signature, b"data", [read_public(key), "ff" * 32])

    def test_a_key_is_for_its_owner_and_never_written_over(self, key) -> None:
        assert key.stat().st_mode & 0o777 == 0o600
        public = read_public(key)
        assert public == read_public(key.with_name("key.pub"))
        for path in (key, key.with_name("key.pub")):
            with pytest.raises(ApprovalError, match="never overwritten"):
                gliofed.new_approver_key(key)
            path.unlink()
        assert gliofed.new_approver_key(key) != public

    def test_a_key_that_cannot_be_used_is_named(self, key, tmp_path) -> None:
        approval = make_approval(TEXT, "A")
        key.chmod(0o640)
        with pytest.raises(ApprovalError, match="chmod 600"):
            sign(approval, key)
        with pytest.raises(ApprovalError, match="cannot be read"):
            sign(approval, tmp_path / "nowhere")
        with pytest.raises(ApprovalError, match="not a private key of an approver"):
            sign(approval, key.with_name("key.pub"))
        from cryptography.hazmat.primitives import serialization as form
        from cryptography.hazmat.primitives.asymmetric import ec

        other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())  # fmt: skip
        (tmp_path / "ec").touch(0o600)
        (tmp_path / "ec").write_bytes(other)
        with pytest.raises(ApprovalError, match="expected Ed25519"):
            sign(approval, tmp_path / "ec")

    @pytest.mark.process
    def test_without_the_library_the_extra_is_named(self, tmp_path) -> None:
        code = (
            "import sys; sys.modules['cryptography'] = None\n"
            "from pathlib import Path; from gliofed.errors import ApprovalError\n"
            "from gliofed.federated.governance.keys import new_approver_key\n"
            "try: new_approver_key(Path(sys.argv[1]))\n"
            "except ApprovalError as error: print(error)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "key")],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "install gliofed[federation]" in done.stdout
        assert list(tmp_path.iterdir()) == []


class TestConsent:
    study = parse_study({
        "name": "glio\x1b[2Jma", "data": {"root": ".", "train": ["a", "b"], "external": ["c"]},
        "train": {"epochs": 7, "batch": 3}, "seeds": [1, 2],
        "loss": {"markers": {"mgmt": 0}}, "grid": {"patch": [32, 48, 64]}})  # fmt: skip
    cases = LabelCounts(
        40,
        38,
        {m.id: (0,) * len(m.classes) for m in MARKERS} | {"idh": (36, 4), "grade": (20, 8, 12)},
    )

    def test_it_says_what_runs(self) -> None:
        text = "\n".join(what_runs(self.study, 1_234_567))
        for words in ("digest " + self.study.digest, "1,234,567 parameters", "Training: 7 passes over the cases, in batches of 3",
                      "Every batch is a round.", "Training runs: 2,", "32 x 48 x 64", "tumour segmentation, IDH mutation, 1p/19q co-deletion, WHO grade",
                      "2 x 2 x 2 mm", "no code", "change only how long a round waits for sites (deadline)"):  # fmt: skip
            assert words in text
        assert "MGMT" not in text
        assert "\x1b" not in text

    def test_it_says_what_leaves_with_the_counts_that_will_be_sent(self) -> None:
        text = "\n".join(what_leaves(self.study, SitePolicy(), self.cases, 2**20))
        for words in ("training cases and of cases with a mask (40 and 35),", "a count from 1 to 4 is sent as 0",
                      "IDH mutation (wildtype, mutant): 35, 0.", "WHO grade (2, 3, 4): 20, 8, 12.", "In each round for which this site has cases: one gradient, 1,048,576 numbers (4.0 MiB)",
                      "at least 4 training cases (min_batch)", "can reveal their labels", "Once a pass, as sums over all cases: each task's training loss, training Dice",
                      "at least 5 test cases", "A gradient of norm above 1000 is not sent"):  # fmt: skip
            assert words in text
        assert "weights" not in text

    def test_of_a_method_with_local_steps_it_says_that_weights_leave(self) -> None:
        rules = dataclasses.replace(self.study.federation, method="scaffold", local_epochs=2)
        study = dataclasses.replace(self.study, federation=rules)
        text = "\n".join(what_leaves(study, SitePolicy(), self.cases, 2**20))
        for words in ("Every round: the network's weights, 1,048,576 numbers (4.0 MiB) and as many for its control variate",
                      "Every round, as sums over all cases", "2 x the model's"):  # fmt: skip
            assert words in text
        assert "gradient of" not in text
        assert "Method: scaffold, 2 local epochs a round" in "\n".join(what_runs(study, 1))
        label_aware = dataclasses.replace(
            study, federation=dataclasses.replace(rules, method="label_aware")
        )
        assert "control" not in "\n".join(what_leaves(label_aware, SitePolicy(), self.cases, 1))

    @pytest.mark.parametrize(("compress", "size"), [("bfloat16", "2.0"), ("int8", "1.0")])
    def test_a_compressed_gradient_is_smaller(self, compress, size) -> None:
        rules = dataclasses.replace(self.study.federation, compress=compress)
        study = dataclasses.replace(self.study, federation=rules)
        text = "\n".join(what_leaves(study, SitePolicy(), self.cases, 2**20))
        assert f"({size} MiB)" in text

    def test_before_anything_is_counted_it_says_what_will_be(self) -> None:
        text = "\n".join(what_leaves(self.study, SitePolicy(markers=("idh",)), None, 2**20))
        for words in (
            "cases with a mask, and",
            "IDH mutation (wildtype, mutant): cases of each class.",
            "WHO grade: nothing",
        ):
            assert words in text

    def test_it_follows_the_policy(self) -> None:
        policy = SitePolicy(
            min_cases=1, min_batch=1, smallest_count=1, markers=("idh",), round_statistics=False,
            metrics=("losses",), max_change=0.5, max_gradient=50.0,
        )  # fmt: skip
        text = "\n".join(what_leaves(self.study, policy, self.cases, 10))
        for words in ("IDH mutation (wildtype, mutant): 36, 4.", "WHO grade: nothing", "No training statistic", "No test scores",
                      "at least 1 training cases (min_batch)", "A gradient of norm above 50 is not sent"):  # fmt: skip
            assert words in text
        assert "sent as 0" not in text
        losses = "\n".join(what_leaves(self.study, SitePolicy(metrics=("losses",)), self.cases, 10))
        assert "sums over all cases: each task's training loss.\n" in losses
        rules = dataclasses.replace(self.study.federation, method="label_aware")
        local = dataclasses.replace(self.study, federation=rules)
        assert "0.5 x the model's" in "\n".join(what_leaves(local, policy, self.cases, 10))
        steps = "\n".join(what_leaves(local, SitePolicy(metrics=("losses",)), self.cases, 10))
        assert "training loss, gradient norms, steps that failed.\n" in steps
        assert "Dice" not in losses

    def test_a_site_with_too_few_cases_has_nothing_to_send(self) -> None:
        with pytest.raises(PolicyError):
            what_leaves(self.study, SitePolicy(min_cases=41), self.cases, 10)


SENT = make_job(parse_study_text(SHORT), rounds=1)  # what a job brings to the site


class TestVerb:
    @pytest.fixture
    def study(self, tmp_path):
        (tmp_path / "study.toml").write_text(SHORT)
        return tmp_path / "study.toml"

    def run(self, *words: object, answer: str = ""):
        return CliRunner().invoke(app, ["approve", *map(str, words)], input=answer)

    def test_an_approver_makes_a_key_signs_and_the_site_accepts(self, study, tmp_path) -> None:
        key, kit = tmp_path / "key", tmp_path / "approvals"
        kit.mkdir()
        done = self.run("--new-key", key)
        assert done.exit_code == 0, done.output
        policy = tmp_path / "policy.toml"
        policy.write_text(f'approvers = ["{read_public(key)}"]\n')
        assert read_public(key) in done.output
        done = self.run(
            study, "--key", key, "--policy", policy, "--out", kit, "--who", "Dr. B", answer="y\n"
        )
        assert done.exit_code == 0, done.output
        for words in (
            "What runs at the site:",
            f"digest {SENT.digest}",
            "What leaves it",
            "Approve this as Dr. B?",
            "(signed)",
        ):
            assert words in done.output
        assert require_approval(SENT.study, SENT.digest, kit, load_policy(policy)).who == "Dr. B"

    def test_without_a_yes_nothing_is_approved(self, study, tmp_path) -> None:
        for answer in ("n\n", ""):
            assert (
                self.run(study, "--out", tmp_path / "approval.json", answer=answer).exit_code == 1
            )
        assert not (tmp_path / "approval.json").exists()
        done = self.run(study, "--out", tmp_path / "approval.json", "--yes")
        assert done.exit_code == 0, done.output
        assert "(not signed)" in done.output
        assert read_approval(tmp_path / "approval.json").study == SENT.digest

    def test_what_was_shown_is_approved_though_the_files_change_meanwhile(
        self, study, tmp_path
    ) -> None:
        policy, out = tmp_path / "policy.toml", tmp_path / "approval.json"
        policy.write_text("min_cases = 20\n")
        form = gliofed.consent(study, policy)
        policy.write_text("min_cases = 5\n")
        study.write_text(SHORT.replace("glioma", "other"))
        approval = gliofed.approve(form, "Dr. B", out)
        assert (approval.name, approval.policy) == ("glioma", SitePolicy(min_cases=20).digest)
        assert read_approval(out) == approval
        unnamed = gliofed.consent(study)
        assert gliofed.approve(unnamed, "Dr. B", out).policy == SitePolicy().digest

    def test_what_cannot_be_approved_is_one_line(self, study, tmp_path) -> None:
        assert self.run().exit_code == 2
        assert self.run(study, "--new-key", tmp_path / "key").exit_code == 2
        study.write_text("nam = 1")
        for words in ((study, "--yes"), (tmp_path / "nowhere.toml", "--yes")):
            done = self.run(*words)
            assert done.exit_code == 1
            (line,) = done.output.splitlines()
            assert line.startswith("StudyError")
