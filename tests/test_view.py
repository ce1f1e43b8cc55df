"""`gliofed view`: who is let in, to what, and what is shown of a folder that others write."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import schemathesis
import uvicorn
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up_case import make_case
from starlette.testclient import TestClient
from typer.testing import CliRunner

import gliofed
from gliofed.cli.main import app as command
from gliofed.data.store import PreparedStore, StoreEntry
from gliofed.errors import DataError
from gliofed.inference.answer_files import ANSWER, MAPS, write_answer
from gliofed.inference.worklist import case_folders, read_worklist
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.reporting.case.worklist_page import (
    Worklist,
    WorklistCase,
    WorklistMarker,
    marker_chip,
    render_worklist,
)
from gliofed.types import SEQUENCES, Case, Labels, PreparationMeasures, Sequence
from gliofed.viewer import app as app_module
from gliofed.viewer.access import HEADERS, AccessGuard
from gliofed.viewer.app import CACHED_PAGES, CasePages, make_app
from gliofed.viewer.server import config_of, listen

PORT = 8123
TOKEN = "t0ken-_" * 6
COOKIE = f"gliofed-view-{PORT}"
BEARER = {"authorization": f"Bearer {TOKEN}"}
MANY = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write_case(out: Path, name: str, **changes: object) -> Path:
    """An answered case of a few voxels, with its prepared scans in `out`/store."""
    content = make_case((14, 16, 12), (5, 10, 7), case=name, **changes)
    shape = content.probability.shape
    store, entry = PreparedStore(out / "store"), StoreEntry(
        image=np.stack([content.images.get(s, np.zeros(shape)) for s in SEQUENCES]).astype(np.float16),
        mask=None, present=tuple(s in content.images for s in SEQUENCES), affine=content.affine,
        placements={}, mask_placement=None, measures=PreparationMeasures(1.3, None, {}), brain="stripped",
        reference=Sequence.T1,
    )  # fmt: skip
    store.put(f"key-{name}", entry, {})
    prepared = store.open(f"key-{name}", Case(name, "here", name, {}, None, Labels()))
    write_answer(content, prepared, out / "store", out / name)
    return out / name


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> Path:
    """Read by all, changed by none: two cases, a damaged one, a link to what lies elsewhere."""
    root = tmp_path_factory.mktemp("view")
    write_case(root / "answers", "sub-01")
    write_case(
        root / "answers", "sub 02%2F<b>&é", sequences=SEQUENCES[:2], quality=("Too bright; look.",)
    )
    (root / "answers/sub-03").mkdir()
    (root / "answers/sub-03" / ANSWER).write_text('{"format": 1, "case": 7')
    secret = write_case(root / "elsewhere", "secret")
    (root / "answers/linked").symlink_to(secret)
    (root / "answers/half").mkdir()
    for name in (ANSWER, MAPS):
        (root / "answers/half" / name).symlink_to(secret / name)
    return root / "answers"


@pytest.fixture(scope="module")
def app(answers) -> FastAPI:
    """One for all, so that a page is made once."""
    return make_app(answers, None)


def client_of(app: FastAPI, **more: object) -> TestClient:
    guard = AccessGuard(app, TOKEN, PORT)
    return TestClient(guard, f"http://127.0.0.1:{PORT}", follow_redirects=False, **more)


def let_in(answers: Path) -> TestClient:
    return client_of(make_app(answers, None), headers=BEARER)


@pytest.fixture(scope="module")
def stranger(app) -> TestClient:
    return client_of(app)


@pytest.fixture(scope="module")
def client(app) -> TestClient:
    return client_of(app, headers=BEARER)


@pytest.fixture(scope="module")
def live(app) -> Iterator[Callable[..., http.client.HTTPResponse]]:
    """Asks a real server for an address as it is, nothing of it tidied by a client."""
    with listen("127.0.0.1", 0) as found:
        port = found.getsockname()[1]
        server = uvicorn.Server(config_of(AccessGuard(app, TOKEN, port)))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [found]})
        thread.start()
        yield lambda path, headers=BEARER: ask(port, path, headers)
        server.should_exit = True
        thread.join()


def ask(port: int, path: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    link.request("GET", path, headers=dict(headers))
    answer = link.getresponse()
    answer.text = answer.read().decode()
    link.close()
    return answer


ADDRESSES = ["/", "/cases.json", "/cases/sub-01", "/cases/none", "/none", "/openapi.json", "/docs",
             "/cases/", "/..", "//"]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_without_the_token_every_address_says_the_same(stranger, address) -> None:
    answers = [stranger.get(address), stranger.get(address, headers={"authorization": "Bearer x"}),
               stranger.get(address, params={"token": TOKEN[:-1]}),
               stranger.get(address, headers={"cookie": f"{COOKIE}=é{TOKEN}".encode()}),
               stranger.get(address, headers={"cookie": f"gliofed-view-{PORT + 1}={TOKEN}"}),
               stranger.get(address, headers={"authorization": f"Basic {TOKEN}"}),
               stranger.post(address)]  # fmt: skip
    assert {a.status_code for a in answers} == {401}
    assert {a.text for a in answers} == {stranger.get("/").text}
    assert "Open the whole address" in answers[0].text
    assert not any("set-cookie" in a.headers for a in answers)


def test_a_right_token_becomes_a_cookie_and_leaves_the_address(stranger, answers) -> None:
    sent = stranger.get("/cases/sub-01", params={"token": TOKEN})
    assert (sent.status_code, sent.headers["location"]) == (303, "/cases/sub-01")
    parts = sent.headers["set-cookie"].split("; ")
    assert parts[0] == f"{COOKIE}={TOKEN}"
    assert {p.lower() for p in parts[1:]} == {"httponly", "path=/", "samesite=strict"}
    stranger.cookies.clear()
    known = {"cookie": f"{COOKIE}={TOKEN}"}
    assert stranger.get("/cases/sub-01", headers=known).status_code == 200
    assert stranger.get("/", headers=known).status_code == 200


@pytest.mark.parametrize("path", ["//evil.example", "///evil.example/x", "/%5C%5Cevil.example", "//",
                                  "/a%0d%0aset-cookie:x", "/%ff", "/%c3%a9", "//evil.example%0d%0ax"])  # fmt: skip
def test_the_way_without_the_token_never_leads_away(live, path) -> None:
    sent = live(f"{path}?token={TOKEN}", {})
    assert sent.status == 303
    assert re.fullmatch(r"/([\w.~%-][\w.~%/:-]*)?", sent.headers["location"], re.ASCII)


HOSTS = {
    f"127.0.0.1:{PORT}": 200, f"localhost:{PORT}": 200, f"LOCALHOST:{PORT}": 200,
    f"[::1]:{PORT}": 200, f"127.9.9.9:{PORT}": 200,
    f"evil.example:{PORT}": 421, f"127.0.0.1.evil.example:{PORT}": 421, "127.0.0.1": 421,
    f"127.0.0.1:{PORT + 1}": 421, f"10.0.0.1:{PORT}": 421, f"0.0.0.0:{PORT}": 421, "": 421,
    f"x@127.0.0.1:{PORT}": 421, f"127.0.0.1:{PORT}/x": 421, f"localhost.:{PORT}": 421, "[": 421,
    f"127.0.0.1:{PORT}x": 421, f"[::2]:{PORT}": 421,
}  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_only_a_loopback_name_with_this_port_is_this_server(client, host) -> None:
    answer = client.get("/cases.json", headers={"host": host})
    assert answer.status_code == HOSTS[host]


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"]
)
def test_nothing_but_reading_is_allowed(client, method) -> None:
    for address in ADDRESSES:
        answer = client.request(method, address)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_head_is_get_without_its_body(client) -> None:
    for address in ADDRESSES:
        full, head = client.get(address), client.head(address)
        assert (head.status_code, head.content) == (full.status_code, b"")
        assert head.headers == full.headers
        assert full.content


@pytest.mark.parametrize("name", [
    "..", "%2e%2e", ".", "..%2fsub-01", "%2e%2e%2felsewhere%2fsecret", "sub-01%00", "sub-01%2f", "%00",
    "linked", "half", "secret", "..%5csub-01", "sub-01%2f..%2fsub-01", "sub%252001", "sub-01/answer.json",
    "SUB-01", "sub-01%20", "store", "%2fetc%2fpasswd", "/etc/passwd", "%ff", "a" * 5000, "*", "sub-0?",
    "../cases/none", "sub%2002%2F%3Cb%3E%26%C3%A9", "sub-01/", "",
])  # fmt: skip
def test_a_name_that_is_not_in_the_list_is_no_page(live, answers, name) -> None:
    whole = f"{quote(str(answers), safe='')}%2fsub-01"
    for one in (name, name.replace("sub-01", whole), f"sub-01/../{name}", f"..%2f{name}"):
        assert live(f"/cases/{one}").status == 404, one
    assert "secret" not in live("/cases.json").text


def test_a_name_in_the_list_is_its_page_however_odd(live, answers) -> None:
    assert sorted(case_folders(answers)) == ["sub 02%2F<b>&é", "sub-01", "sub-03"]
    for link in re.findall(r'<a href="(/cases/.+?)">', live("/").text):
        assert live(link).status == 200
    assert live("/cases/sub%2002%252F%3Cb%3E%26%C3%A9").status == 200


def test_every_answer_has_the_headers(client, stranger) -> None:
    answers = [*map(client.get, ADDRESSES), stranger.get("/"), client.post("/"),
               client.get("/", headers={"host": "x"}), stranger.get("/", params={"token": TOKEN})]  # fmt: skip
    stranger.cookies.clear()
    assert {a.status_code for a in answers} == {200, 303, 401, 404, 405, 421}
    for answer in answers:
        for name, value in HEADERS.items():
            if name == "content-security-policy":
                assert answer.headers[name].startswith("default-src 'none'; ")
                assert answer.headers[name].endswith("; frame-ancestors 'none'")
            else:
                assert answer.headers[name] == value
        assert len(answer.headers.get_list("content-security-policy")) == 1
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("address", ["/", "/cases/sub-01"])
def test_a_pages_own_policy_is_the_one_in_its_header(client, address) -> None:
    answer = client.get(address)
    stated = re.search(r'http-equiv="Content-Security-Policy" content="(.+?)"', answer.text)[1]
    assert answer.headers["content-security-policy"] == f"{stated}; frame-ancestors 'none'"
    assert "sha256-" in stated
    assert RESEARCH_USE_ONLY in answer.text


def test_the_list_has_the_prediction_of_each_case(client) -> None:
    first, second = sorted(
        client.get("/cases.json").json()["cases"], key=lambda c: c["case"], reverse=True
    )
    assert (first["name"], first["written"], first["missing"]) == ("sub-01", "2026-11-27", [])
    assert second["missing"] == [s.value for s in SEQUENCES[2:]]
    assert second["quality"] == ["Too bright; look."]
    assert first["integrated"] == "not determinable"
    assert first["volume_ml"] == 34.21
    assert first["markers"][:2] == [
        {
            "marker": "idh",
            "likeliest": "mutant",
            "probability": 0.83,
            "determined": False,
            "trained": True,
        },
        {
            "marker": "codel_1p19q",
            "likeliest": "intact",
            "probability": 0.964,
            "determined": True,
            "trained": True,
        },
    ]
    (damaged,) = client.get("/cases.json").json()["damaged"]
    assert damaged["name"] == "sub-03"
    assert "is damaged (JSONDecodeError" in damaged["fault"]
    page = client.get("/").text
    assert 'href="/cases/sub%2002%252F%3Cb%3E%26%C3%A9"' in page
    assert "<b>&" not in page
    assert "sub 02%2F&lt;b&gt;&amp;é" in page
    assert "Predictions that cannot be read" in page
    assert 'IDH mutant: 0.83 <span class="verdict not-supported">undetermined</span>' in page
    assert '1p/19q intact: 0.96 <span class="verdict supported">determined</span>' in page
    assert "34.2 ml" in page
    refused = client.get("/cases/sub-03")
    assert refused.status_code == 404
    assert "predict the case again" in refused.text


def test_a_figure_that_does_not_exist_is_said_to_be_absent() -> None:
    line = WorklistMarker("idh", None, None, None)
    assert marker_chip(line).text == "IDH: n/a"
    case = WorklistCase(
        "a",
        "a",
        "2026-01-01",
        "m",
        "id",
        True,
        "not determinable",
        "open",
        None,
        (),
        (),
        (),
        (line,),
    )
    page = render_worklist(Worklist((case,), ()))
    assert "IDH: n/a" in page
    assert "not calibrated" in page
    assert '<td data-title="Volume" class="keep">n/a</td>' in page
    assert "synthetic phantoms" in page


@pytest.fixture
def quick(monkeypatch) -> None:
    """A page is the name of its case."""
    monkeypatch.setattr(app_module.page, "render_case", lambda content: content.case)


@pytest.mark.usefixtures("quick")
def test_an_empty_folder_says_how_to_fill_it_and_new_cases_appear(tmp_path) -> None:
    client = let_in(tmp_path)
    assert "There is no predicted case here yet" in client.get("/").text
    assert client.get("/cases.json").json() == {"cases": [], "damaged": []}
    write_case(tmp_path, "new")
    assert [c["name"] for c in client.get("/cases.json").json()["cases"]] == ["new"]
    assert "There is no predicted case here yet" not in client.get("/").text
    assert client.get("/cases/new").status_code == 200
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "new" / MAPS).unlink()
    assert client.get("/cases/new").status_code == 200, "from memory"
    os.utime(tmp_path / "new" / ANSWER, (1, 1))
    assert client.get("/cases/new").status_code == 404
    assert sorted(tmp_path.rglob("*")) == [p for p in before if p.name != MAPS], "only reads"


def test_a_folder_that_is_a_case_itself_is_a_list_of_one(answers) -> None:
    one = let_in(answers / "sub-01")
    assert [c["name"] for c in one.get("/cases.json").json()["cases"]] == ["sub-01"]


@pytest.mark.usefixtures("quick")
def test_scans_that_moved_are_found_by_the_store(tmp_path) -> None:
    case = write_case(tmp_path, "a")
    (tmp_path / "store").rename(tmp_path / "moved")
    lost = let_in(tmp_path).get("/cases/a")
    assert lost.status_code == 404
    assert "name the store that holds them now" in lost.text
    assert not (tmp_path / "store").exists()
    assert CasePages(tmp_path / "moved").of(case) == b"a"


def test_few_pages_are_kept(answers, monkeypatch) -> None:
    made = []
    monkeypatch.setattr(app_module, "read_answer", lambda folder, store: folder)
    monkeypatch.setattr(app_module.page, "render_case", lambda c: made.append(c.name) or c.name)
    monkeypatch.setattr(app_module, "_stamp", lambda folder: (0,))
    pages = CasePages(None)
    names = [f"sub-{n}" for n in range(CACHED_PAGES + 1)]
    for name in [*names, names[-1]]:
        assert pages.of(Path(name)) == name.encode()
    assert made == names
    pages.of(Path(names[0]))
    assert made == [*names, names[0]]
    assert pages.made.cache_info().currsize == CACHED_PAGES


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5)
    | st.sampled_from([10**400, "\ud800", float("nan"), -1, "</script><script>", "T1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def lone(tmp_path_factory) -> Path:
    """A folder with room for one answer that has no maps."""
    root = tmp_path_factory.mktemp("lone")
    (root / "a").mkdir()
    return root


@pytest.mark.slow
@MANY
@given(st.data())
def test_an_answer_with_anything_in_it_never_stops_the_list(answers, lone, data) -> None:
    plain = json.loads((answers / "sub-01" / ANSWER).read_text())
    spots = [(plain, key) for key in plain]
    for inner in (
        plain["model"],
        plain["integrated"],
        plain["markers"],
        *plain["markers"].values(),
    ):
        spots += [(inner, key) for key in inner]
    holder, key = data.draw(st.sampled_from(spots))
    holder[key] = data.draw(PLAIN)
    (lone / "a" / ANSWER).write_text(json.dumps(plain))
    client = let_in(lone)
    found = client.get("/cases.json").json()
    assert len(found["cases"]) + len(found["damaged"]) == 1
    page = client.get("/")
    assert page.status_code == 200
    assert "<script></script>" not in page.text
    assert client.get("/cases/a").status_code == 404


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe", b"[]", b"7", b"[" * 100_000, b'{"format": 1}', b"null"]
)
def test_bytes_that_are_no_answer_are_a_row(tmp_path, data) -> None:
    for name in ("a", "b\udcff"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ANSWER).write_bytes(data)
    (tmp_path / "circle").symlink_to("circle")
    found = read_worklist(tmp_path)
    assert [d.name for d in found.damaged] == ["a", "b\N{REPLACEMENT CHARACTER}"]
    assert found.cases == ()
    assert let_in(tmp_path).get("/").status_code == 200


def test_text_that_is_not_unicode_is_shown_as_far_as_it_is(answers, tmp_path) -> None:
    """A lone surrogate is legal in JSON and in a folder's name, and cannot be sent."""
    plain = json.loads((answers / "sub-01" / ANSWER).read_text())
    odd = {"case": "x\ud800\n\u202e", "written": "\ud800", "quality": ["\ud800"]}
    for name in ("a", "b\udcff"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ANSWER).write_text(json.dumps({**plain, **odd}))
    client = let_in(tmp_path)
    assert client.get("/").status_code == 200
    found = client.get("/cases.json").json()
    assert [c["case"] for c in found["cases"]] == ["x\ufffd\ufffd\ufffd"]
    assert [d["name"] for d in found["damaged"]] == ["b\ufffd"]


@MANY
@given(st.binary(max_size=40), st.binary(max_size=40), st.sampled_from(["host", "cookie", "authorization", "x"]),
       st.binary(max_size=60), st.booleans())  # fmt: skip
def test_no_request_is_an_error_of_the_server(
    client, stranger, path, query, name, value, known
) -> None:
    quoted = quote(path), quote(query, safe="=&")
    headers = [(name.encode(), value.replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b""))]
    asked = client if known else stranger
    answer = asked.get(f"http://127.0.0.1:{PORT}/{quoted[0]}?{quoted[1]}", headers=headers)
    assert answer.status_code in ({200, 401, 404, 421} if known else {401, 421})


@pytest.fixture(scope="module")
def schema(app):
    """Of the routes, as they stand behind the guard."""
    found = schemathesis.openapi.from_dict(app.openapi())
    found.app = AccessGuard(app, TOKEN, PORT)
    return found


def test_the_routes_are_these(schema) -> None:
    assert set(schema.raw_schema["paths"]) == {"/", "/cases.json", "/cases/{name}"}


@MANY
@given(st.data())
def test_the_routes_answer_as_their_schema_says(schema, data) -> None:
    case = data.draw(drawn(schema))
    answer = case.call_and_validate(base_url=f"http://127.0.0.1:{PORT}", headers=BEARER)
    assert answer.status_code in {200, 404, 405}


@MANY
@given(st.data())
def test_without_the_token_no_route_answers(schema, data) -> None:
    case = data.draw(drawn(schema))
    assert case.call_and_validate(base_url=f"http://127.0.0.1:{PORT}").status_code == 401


def drawn(schema) -> st.SearchStrategy:
    """A request to one of the routes, as its schema has it or not."""
    modes = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
    routes = [found.ok() for found in schema.get_all_operations()]
    assert len(routes) == 3
    return st.one_of([r.as_strategy(generation_mode=m) for r in routes for m in modes])


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "10.0.0.1", "example.org", "::", "", "localhost.evil.example"]
)
def test_another_machine_is_never_served(host) -> None:
    with pytest.raises(DataError, match="to this machine alone"):
        listen(host, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.5"])
def test_a_loopback_address_is_listened_on_once(host) -> None:
    with listen(host, 0) as own:
        assert own.getsockname()[0].startswith("127.0.0.")
        with pytest.raises(DataError, match=r"cannot be listened on .*choose another --port"):
            listen(host, own.getsockname()[1])


def test_a_folder_that_is_not_there_is_one_line(tmp_path) -> None:
    done = CliRunner().invoke(command, ["view", str(tmp_path / "none")])
    assert done.exit_code == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("DataError: ")
    assert "no such folder" in line


def test_without_the_extra_the_verb_says_so(tmp_path, monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "gliofed.viewer.server")
    monkeypatch.delitem(vars(gliofed), "view", raising=False)  # loaded by an earlier test
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = CliRunner().invoke(command, ["view", str(tmp_path)])
    assert done.exit_code == 1
    (line,) = done.stderr.strip().splitlines()
    assert line == "uvicorn is missing; install gliofed[view]"


STARTED = (
    "import sys; from gliofed.cli.main import app\n"
    "try: app(['view', *sys.argv[1:]])\n"
    "finally: print(sorted({'torch', 'monai'} & set(sys.modules)))"
)


@pytest.mark.slow
@pytest.mark.process
def test_the_whole_server_over_a_socket(answers) -> None:
    """Its only token is in the address that it prints; it ends without an error."""
    child = subprocess.Popen(
        [sys.executable, "-c", STARTED, str(answers), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        found = re.fullmatch(
            r"open http://127\.0\.0\.1:(\d+)/\?token=([\w-]{43})\n", child.stdout.readline()
        )
        port, token = int(found[1]), found[2]
        assert "Whoever has this address sees the cases" in child.stdout.readline()
        assert child.stdout.readline() == f"{RESEARCH_USE_ONLY}\n"

        assert ask(port, "/", {}).status == 401
        sent = ask(port, f"/?token={token}", {})
        assert (sent.status, sent.headers["location"]) == (303, "/")
        cookie = {"Cookie": sent.headers["set-cookie"].split(";")[0]}
        page = ask(port, "/", cookie)
        assert page.status == 200
        assert "sub-01" in page.text
        assert page.headers["server"] is None
        assert ask(port, "/", {**cookie, "Host": f"evil.example:{port}"}).status == 421
        with socket.create_connection(("127.0.0.1", port)) as raw:  # no such thing as HTTP
            raw.sendall(b"\x16\x03\x01\x00\xff\r\n\r\n")
            assert raw.recv(100).startswith(b"HTTP/1.1 400")
        busy = CliRunner().invoke(command, ["view", str(answers), "--port", str(port)])
        assert busy.exit_code == 1
        assert "cannot be listened on" in busy.stderr
        child.send_signal(signal.SIGINT)
        out, errors = child.communicate(timeout=30)
    finally:
        child.kill()
        child.communicate()
    assert child.returncode == 0, errors
    assert token not in out + errors
    assert out == "[]\n", "torch was imported"
    assert "Traceback" not in errors
