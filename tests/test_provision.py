"""Plans, kits as provisioned and as opened; processes of kits are in `test_kits_live.py`."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from federation_kits import (
    FEDERATION,
    HOUR,
    LEAD,
    POLICY,
    certificate,
    make_kits,
    plan_of,
    signed_anew,
)
from nvflare.fuel.sec.authz import AuthzContext, Person
from nvflare.security.security import COMMAND_CATEGORIES, FLAuthorizer
from typer.testing import CliRunner

from gliofed.cli.main import app
from gliofed.deployment import provision as provisioning
from gliofed.deployment.kit import open_kit
from gliofed.deployment.provision import make_start_up_kits
from gliofed.errors import KitError, StudyError
from gliofed.federated.flare import rules
from gliofed.federated.linkage.tokens import read_salt
from gliofed.study import load_study


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("kits")
    make_kits(out, "north", "south")
    return out


@pytest.fixture
def kits(made, tmp_path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "kits"))


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_nothing_in_a_kit_is_for_other_users(made) -> None:
    for path in made.rglob("*"):
        if path.name != ".lock":
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize(
    ("kit", "base", "name"),
    [("server", "server", "server"), ("lead", "client", LEAD), ("north", "client", "north")],
)
def test_each_certificate_is_signed_by_the_authority_for_its_own_use(made, kit, base, name) -> None:
    one = certificate(made / kit / "startup" / f"{base}.crt")
    one.verify_directly_issued_by(certificate(made / "authority/rootCA.pem"))
    assert one.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == name
    uses = one.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert (ExtendedKeyUsageOID.SERVER_AUTH in uses) == (kit == "server")
    roles = one.subject.get_attributes_for_oid(NameOID.UNSTRUCTURED_NAME)
    assert [r.value for r in roles] == ([rules.ROLE] if kit == "lead" else [])


def test_every_private_key_is_in_one_kit_only(made) -> None:
    keys = [p.read_bytes() for p in made.rglob("*.key")]
    assert len(keys) == len(set(keys)) == 5
    everything = b"".join(d for name, d in contents(made).items() if not name.endswith(".key"))
    assert b"PRIVATE KEY" not in everything


def test_sites_share_a_salt_that_neither_server_nor_lead_has(made) -> None:
    salt = (made / "north/gliofed/salt").read_text()
    read_salt(made / "north/gliofed/salt")
    assert (made / "south/gliofed/salt").read_text() == salt
    for kit in ("server", "lead"):
        assert all(salt.strip().encode() not in data for data in contents(made / kit).values())


def test_a_site_runs_no_code_but_the_members_and_sends_no_log(made) -> None:
    local = made / "north/local"
    found = json.loads((local / "resources.json").read_text())
    assert found["class_allow_list"] == [rules.EXECUTOR]
    assert found["class_list_enforcement_mode"] == "enforce"
    assert found["allow_log_streaming"] is False
    rights = json.loads((local / "authorization.json").read_text())["permissions"]
    assert set(rights) == {rules.ROLE}
    allowed = {right for right, who in rights[rules.ROLE].items() if who != "none"}
    assert allowed == {"check_status", "abort_job", "abort", "submit_job"}
    assert json.loads((made / "north/startup/fed_client.json").read_text())["require_signed_jobs"]
    assert not list((made / "north").rglob("*.sh"))
    assert (made / "north/gliofed/policy.toml").read_text() == POLICY


@pytest.mark.parametrize("server", [True, False])
@pytest.mark.parametrize("role", ["lead", "project_admin", "org_admin", "member", ""])
def test_flare_grants_the_lead_what_a_study_needs_and_nobody_anything_else(server, role) -> None:
    authorizer = FLAuthorizer("north_hospital", rules.rights(server))
    somebody = Person("ada@example.org", "university", role)
    granted = {
        right
        for right in [*COMMAND_CATEGORIES, "submit_job", "app_command", "get_job_log", "byoc",
                      "clone_job", "server-predeployed-flwr"]
        if authorizer.authorize(AuthzContext(right, somebody, somebody))[0]
    }  # fmt: skip
    at_both = {"abort", "abort_job", "check_status", "submit_job"}
    at_server = at_both | {"list_jobs", "get_job_meta", "app_command"}
    assert granted == ((at_server if server else at_both) if role == "lead" else set())


def test_the_lead_aborts_own_jobs_only() -> None:
    authorizer = FLAuthorizer("x", rules.rights(server=True))
    lead, other = (Person(n, "university", "lead") for n in ("ada@example.org", "bo@example.org"))
    assert authorizer.authorize(AuthzContext("abort_job", lead, lead))[0]
    assert not authorizer.authorize(AuthzContext("abort_job", lead, other))[0]


def test_no_kit_says_where_it_was_made(made) -> None:
    for name, data in contents(made).items():
        assert str(made).encode() not in data, name
        assert b"/tmp" not in data or name.endswith("compose.yaml"), name


def test_a_proposed_study_is_in_every_kit_without_its_folder(tmp_path) -> None:
    (tmp_path / "study.toml").write_text(
        'name = "s"\n[data]\nroot = "hospitals"\ntrain = ["north", "south"]\nexternal = ["east"]\n'
    )
    plan = plan_of("north", "south", study=str(tmp_path / "study.toml"))
    make_start_up_kits(plan, tmp_path / "out", POLICY)
    asked = load_study(tmp_path / "study.toml")
    for kit in ("server", "lead", "north"):
        path = tmp_path / "out" / kit / "gliofed/study.toml"
        assert load_study(path).digest == asked.digest
        assert "hospitals" not in path.read_text()


def test_a_study_that_is_wrong_leaves_nothing_behind(tmp_path) -> None:
    with pytest.raises(StudyError, match="no such study file"):
        make_start_up_kits(
            plan_of("north", study=str(tmp_path / "none.toml")), tmp_path / "out", POLICY
        )
    assert not (tmp_path / "out").exists()


def test_a_later_site_joins_the_same_federation_and_no_kit_is_touched(kits) -> None:
    before = contents(kits)
    port = json.loads((kits / "authority/plan.json").read_text())["server"]["port"]
    done = make_start_up_kits(plan_of("north", "south", "east", port=port), kits, POLICY)
    assert (done.made, done.kept) == (("east",), ("server", "lead", "north", "south"))
    after = contents(kits)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"authority/plan.json", "server/gliofed/kit.toml", "lead/gliofed/kit.toml"}
    new = after.keys() - before.keys() - {"authority/certificates/east.crt"}
    assert {name.split("/")[0] for name in new} == {"east"}
    assert open_kit(kits / "server", "server").sites == ("north", "south", "east")
    assert open_kit(kits / "east", "site").sites == ("north", "south", "east")
    assert (kits / "east/gliofed/salt").read_bytes() == (kits / "north/gliofed/salt").read_bytes()
    east = certificate(kits / "east/startup/client.crt")
    east.verify_directly_issued_by(certificate(kits / "north/startup/rootCA.pem"))


def test_a_later_site_joins_after_the_kits_were_moved_away(kits) -> None:
    port = json.loads((kits / "authority/plan.json").read_text())["server"]["port"]
    for name in ("server", "lead", "north", "south"):
        shutil.rmtree(kits / name)
    assert make_start_up_kits(plan_of("north", "south", "east", port=port), kits, POLICY).made == (
        "east",
    )
    assert sorted(p.name for p in kits.iterdir()) == [".lock", "authority", "east"]


def test_what_is_there_is_never_made_again(kits) -> None:
    before = contents(kits)
    port = json.loads((kits / "authority/plan.json").read_text())["server"]["port"]
    for sites, at, said in (
        (("north", "south"), port, "a kit is made only once"),
        (("north",), port, "cannot be changed or removed"),
        (("north", "south", "east"), port + 1, "choose another --out"),
    ):
        with pytest.raises(KitError, match=said):
            make_start_up_kits(plan_of(*sites, port=at), kits, POLICY)
    (kits / "east").mkdir()
    with pytest.raises(KitError, match="exists already and is not a kit"):
        make_start_up_kits(plan_of("north", "south", "east", port=port), kits, POLICY)
    assert contents(kits) == before


def test_a_folder_with_something_else_in_it_is_refused(tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(KitError, match=r"expected an empty folder.*notes\.txt"):
        make_start_up_kits(plan_of("north"), tmp_path, POLICY)
    assert [p.name for p in tmp_path.iterdir() if p.name != ".lock"] == ["notes.txt"]


@pytest.mark.parametrize(
    "when", ["build_kits", "write_services", "_write_authority", "keep_folder"]
)
def test_nothing_half_made_stays_wherever_it_fails(tmp_path, monkeypatch, when) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr(provisioning, when, fail)
    with pytest.raises(OSError, match="No space left"):
        make_start_up_kits(plan_of("north"), tmp_path / "out", POLICY)
    if when != "keep_folder":  # by then all of it is in its place
        assert [p.name for p in (tmp_path / "out").iterdir()] == [".lock"]
        monkeypatch.undo()
        make_start_up_kits(plan_of("north"), tmp_path / "out", POLICY)
    open_kit(tmp_path / "out/north", "site")


def test_what_flare_says_when_it_fails_is_in_the_error_and_not_on_the_terminal(
    tmp_path, capfd
) -> None:
    plan = plan_of("north")
    broken = provisioning._Secrets(provisioning.Authority("no certificate", _a_key()), "00" * 32)
    with pytest.raises(KitError, match="could not be made"):
        provisioning.build_kits(
            provisioning._recipients(plan, ("north",)), tmp_path, broken.authority
        )
    assert capfd.readouterr() == ("", "")


def _a_key() -> str:
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def test_each_kit_opens_as_what_it_is(made) -> None:
    for folder, role, name in (
        ("server", "server", "server"),
        ("lead", "lead", LEAD),
        ("north", "site", "north"),
    ):
        kit = open_kit(made / folder, role)
        assert (kit.role, kit.name, kit.federation, kit.sites) == (
            role,
            name,
            "glio",
            ("north", "south"),
        )
        assert kit.audit.parent == kit.own == made / folder / "gliofed"
    with pytest.raises(KitError, match="is the kit of the server 'server'; expected a site's kit"):
        open_kit(made / "server", "site")
    with pytest.raises(KitError, match="is not a kit"):
        open_kit(made, "site")


@pytest.mark.parametrize("secret", ["startup/client.key", "gliofed/salt"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_secret_that_others_may_reach_is_refused_with_the_cure(kits, secret, mode) -> None:
    path = kits / "north" / secret
    path.chmod(mode)
    with pytest.raises(KitError, match=rf"chmod 600 {path}"):
        open_kit(kits / "north", "site")
    path.chmod(0o600)
    open_kit(kits / "north", "site")


@pytest.mark.parametrize(
    "file",
    ["startup/client.key", "startup/client.crt", "startup/rootCA.pem", "startup/fed_client.json",
     "gliofed/salt", "gliofed/policy.toml", "gliofed/kit.toml"],
)  # fmt: skip
def test_a_missing_file_is_named(kits, file) -> None:
    (kits / "north" / file).unlink()
    with pytest.raises(KitError, match=f"{file}.*is missing"):
        open_kit(kits / "north", "site")


@pytest.mark.parametrize(("start", "end", "state"), [(-2, -1, "expired"), (1, 2, "not yet valid")])
def test_a_certificate_out_of_time_is_refused_with_dates_and_clock(kits, start, end, state) -> None:
    signed_anew(kits, "north", -HOUR, HOUR)
    open_kit(kits / "north", "site")
    signed_anew(kits, "north", start * HOUR, end * HOUR)
    now = f"{datetime.now(UTC):%Y-%m-%d}"
    with pytest.raises(KitError, match=rf"{state}: valid from .* to .* UTC.*clock is {now}"):
        open_kit(kits / "north", "site")


def test_files_of_two_kits_are_not_taken_for_one(kits, tmp_path) -> None:
    make_kits(tmp_path / "other", "north")
    startup, other = kits / "north/startup", tmp_path / "other/north/startup"
    held = {p.name: p.read_bytes() for p in startup.iterdir()}
    for source, names, said in (
        (kits / "south/startup", ("client.crt", "client.key"), "is the certificate of 'south'"),
        (other, ("client.crt", "client.key"), "is not signed by the authority"),
        (kits / "south/startup", ("client.key",), "is not the key of"),
    ):
        for name in names:
            (startup / name).write_bytes((source / name).read_bytes())
        with pytest.raises(KitError, match=said):
            open_kit(kits / "north", "site")
        for name in names:
            (startup / name).write_bytes(held[name])
    open_kit(kits / "north", "site")


@pytest.mark.process
@pytest.mark.parametrize("role", ["server", "site"])
def test_the_unit_is_sound_to_systemd(made, tmp_path, role) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("no systemd here")
    kit = made / ("server" if role == "server" else "north")
    text = (kit / f"gliofed/service/gliofed-{role}.service").read_text()
    unit = tmp_path / f"gliofed-{role}.service"
    unit.write_text(text.replace("/srv/gliofed/venv/bin/gliofed", sys.executable))
    done = subprocess.run(
        [verify, "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert str(unit.name) not in done.stderr
    spoilt = tmp_path / "spoilt.service"
    spoilt.write_text(unit.read_text().replace("KillMode=mixed", "KillMode=some"))
    done = subprocess.run(
        [verify, "verify", str(spoilt)], capture_output=True, text=True, check=False
    )
    assert "kill mode" in done.stderr, "this systemd-analyze sees nothing"


def test_services_run_the_verbs_of_their_role_and_open_a_port_at_the_server_only(made) -> None:
    server = (made / "server/gliofed/service/compose.yaml").read_text()
    site = (made / "north/gliofed/service/compose.yaml").read_text()
    port = open_kit(made / "server", "server").port
    assert f'"{port}:{port}"' in server
    assert '"serve"' in server
    assert "ports" not in site
    assert '"join", "/kit", "--data", "/data", "--store", "/store"' in site
    unit = {role: (made / kit / f"gliofed/service/gliofed-{role}.service").read_text()
            for role, kit in (("server", "server"), ("site", "north"))}  # fmt: skip
    assert "RestartPreventExitStatus=78" in unit["site"]
    assert "RestartPreventExitStatus" not in unit["server"]
    assert "restart: on-failure:5" in site
    assert not (made / "lead/gliofed/service").exists()


def test_the_verb_says_what_it_made_and_a_fault_in_one_line(tmp_path) -> None:
    path = tmp_path / "federation.toml"
    path.write_text(FEDERATION)
    asked = ["provision", str(path), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert f"made {tmp_path / 'out' / 'north'}" in done.output
    again = CliRunner().invoke(app, asked)
    assert again.exit_code == 1
    assert again.output.startswith("KitError: ")


@pytest.mark.process
def test_help_imports_no_federation_library() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from gliofed.cli.main import app;"
        "assert 'provision' in CliRunner().invoke(app, ['--help']).output;"
        "print(sorted({'torch', 'nvflare', 'cryptography', 'grpc'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
