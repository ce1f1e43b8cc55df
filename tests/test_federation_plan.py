"""`federation.toml`: what it says, and every fault refused with one reason."""

from __future__ import annotations

import pytest
from federation_kits import FEDERATION, plan_of

from gliofed.deployment.federation_plan import RESERVED, load_plan
from gliofed.errors import StudyError


def test_a_federation_file_becomes_a_plan_with_defaults(tmp_path) -> None:
    path = tmp_path / "federation.toml"
    path.write_text(FEDERATION.replace('"glio"', '"glio"\nstudy = "study.toml"', 1))
    plan = load_plan(path)
    assert (plan.server.port, plan.server.listen, plan.site_names) == (8002, "all", ("north",))
    assert plan.study == tmp_path / "study.toml"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[server]\nhost", "[server]\nhots", "unknown key 'hots'; the nearest valid key is 'host'"),
        ('org = "north_hospital"', "", "missing key 'org'"),
        ('[[sites]]\nname = "north"\norg = "north_hospital"\n', "", "missing key 'sites'"),
        ('"glio"', '"glio"\nsites = []', "name at least one hospital"),
        ('"north"', '"../north"', "first a letter or digit"),
        ('"north"', '"a/b"', "first a letter or digit"),
        ('"north"', '"n.orth"', "first a letter or digit"),
        ('"north"', '"-north"', "first a letter or digit"),
        ('"north"', '"' + "n" * 64 + '"', "1 to 63"),
        ('"north"', '"Glio"', "also the name of the federation"),
        ('"fed.example.org"', '"north"', "also the name of the federation or its server"),
        ('"north_hospital"', '"north hospital"', "letters, digits or _"),
        ('"ada@example.org"', '"ada"', "e-mail"),
        ('"ada@example.org"', '"ada..b@example.org"', "e-mail"),
        ('"fed.example.org"', '"https://fed.example.org"', "host name or an IPv4"),
        ('"fed.example.org"', '"10.0.0.256"', "host name or an IPv4"),
        ('"fed.example.org"', '"fed.example.org"\nport = 0', "1 to 65535"),
        ('"fed.example.org"', '"fed.example.org"\nport = 65536', "1 to 65535"),
        ('"fed.example.org"', '"fed.example.org"\nlisten = "any"', "expected one of"),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be_used_is_refused_with_one_reason(tmp_path, old, new, said) -> None:
    path = tmp_path / "federation.toml"
    text = FEDERATION.replace(old, new, 1)
    if "sites = []" in new:
        text = text.partition("[[sites]]")[0]
    path.write_text(text)
    with pytest.raises(StudyError, match=r"federation\.toml") as refused:
        load_plan(path)
    assert said in str(refused.value)


@pytest.mark.parametrize("name", [*RESERVED, "SERVER"])
def test_a_site_may_not_be_called_as_another_part(name) -> None:
    with pytest.raises(StudyError, match="kept for another part"):
        plan_of("north", name)


def test_names_that_only_case_tells_apart_are_refused_and_the_longest_name_is_not() -> None:
    with pytest.raises(StudyError, match="taken for one another"):
        plan_of("North", "south", "north")
    assert plan_of("n" * 63).site_names == ("n" * 63,)
