"""Reading a stranger's bytes: limits of the child process, and no exception whatever the bytes."""

from __future__ import annotations

import gzip
import json
import resource
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from malformed import AFFINE, FACT, draw, save, write_healthy

from gliofed.errors import DataError
from gliofed.runtime.progress import NO_PROGRESS
from gliofed.types import Sequence
from gliofed.validation.check import check_path
from gliofed.validation.findings import BrokenFileError
from gliofed.validation.nifti_geometry import read_affine
from gliofed.validation.nifti_header import MAX_VOXEL_BYTES, read_header
from gliofed.validation.patient_table import check_table
from gliofed.validation.reader import SafeReader
from gliofed.validation.reader_messages import TOGETHER, ReadRequest, ReadResponse
from gliofed.validation.reader_process import read_case
from gliofed.validation.scan import read_scan
from gliofed.validation.table_cells import read_cells

PROLOGUE = "import sys, resource, gliofed.validation.reader_process as c, gliofed.validation.reader_messages as m\n"


def job(folder: Path, picture: bool = False) -> ReadRequest:
    """T1 and FLAIR of a healthy subject."""
    data = draw(1)
    names = {Sequence.T1: "T1", Sequence.FLAIR: "FLAIR"}
    images = {s: save(folder / f"{n}.nii.gz", data[n]) for s, n in names.items()}
    return ReadRequest(images, {"mask": save(folder / "mask.nii.gz", data["mask"])}, picture)


def bad_child(deed: str, over: str = "FLAIR") -> list[str]:
    """A child that does `deed` over one file, alone or beside others, and else answers as it
    should."""
    where = (over, TOGETHER) if over else (over,)
    code = (
        PROLOGUE + f"c._limit(resource.RLIMIT_AS, m.MEMORY)\nfor line in sys.stdin.buffer:\n"
        f" job = m.ReadRequest.parse(line)\n def begin(where):\n  c._begin(where)\n"
        f"  if where in {where!r}: {deed}\n"
        " sys.stdout.buffer.write(c.read_case(job, begin).line()); sys.stdout.buffer.flush()\n"
    )
    return ["-c", code]


def codes(looked: ReadResponse) -> set[tuple[str, str]]:
    return {(where, fault.code) for where, fault in looked.faults}


@pytest.mark.process
def test_the_child_answers_as_the_function_does(tmp_path) -> None:
    asked = job(tmp_path, picture=True)
    with SafeReader() as reader:
        answers = [reader.look(asked), reader.look(asked)]
    here = read_case(asked, lambda where: None)
    assert answers == [here, here]
    begun: list[str] = []
    assert read_case(replace(asked, together=True), begun.append) == here
    assert begun == [TOGETHER, "mask", ""]
    assert here.faults == ()
    assert here.picture.startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("deed", "code"),
    [
        ("bytearray(m.MEMORY)", "FILE-MEMORY"),
        ("c.CPU_SECONDS = 0; c._allow_cpu(); exec('while True: pass')", "FILE-TIME"),
        ("import time; time.sleep(60)", "FILE-TIME"),
        ("import os; os.abort()", "FILE-CRASH"),
        ("raise ValueError('x')", "FILE-CRASH"),
        ("print('no json', flush=True)", "FILE-CRASH"),
        ("print('[]', flush=True)", "FILE-CRASH"),
    ],
    ids=["memory", "computing", "sleep", "abort", "exception", "nonsense", "no object"],
)
def test_a_file_that_ends_the_child_is_a_finding_and_the_rest_goes_on(tmp_path, deed, code) -> None:
    asked = job(tmp_path)
    wall = 6.0 if "sleep" in deed else 60.0  # the start of the child counts too
    with SafeReader(wall, bad_child(deed)) as reader:
        looked = reader.look(asked)
        after = reader.look(ReadRequest({Sequence.T1: asked.images[Sequence.T1]}, {}, False))
    assert codes(looked) == {("FLAIR", code)}
    assert set(looked.digests) == {"T1"}
    assert codes(after) == set()


@pytest.mark.process
def test_the_child_imports_no_library_that_reads_images() -> None:
    code = "import sys, gliofed.validation.reader_process; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "numpy" in done.stdout.split()
    assert not {"nibabel", "scipy", "pydicom", "torch"} & set(done.stdout.split())


@pytest.mark.process
def test_comparisons_that_end_the_child_are_a_finding_of_the_case(tmp_path) -> None:
    with SafeReader(60.0, bad_child("import os; os.abort()", over="")) as reader:
        assert codes(reader.look(job(tmp_path))) == {("", "FILE-CRASH")}


@pytest.mark.process
def test_a_child_that_cannot_start_is_one_clear_error(tmp_path) -> None:
    with (
        SafeReader(60.0, ["-c", "raise SystemExit(3)"]) as reader,
        pytest.raises(DataError, match=r"cannot run.*status 3"),
    ):
        reader.look(job(tmp_path))


def zeros(path: Path, start: bytes, gibibytes: int) -> Path:
    """`start`, then zeros without end: one packed block of 64 MiB again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(2**26)) + packer.flush(zlib.Z_FULL_FLUSH)
    with path.open("wb") as file:
        file.write(head)
        for _ in range(gibibytes * 16):
            file.write(block)
    return path


def header(shape: tuple[int, int, int], kind: int = 2) -> bytes:
    """A sound NIfTI-1 header of these axes, uint8 unless told."""
    image = nib.Nifti1Image(np.zeros((8, 8, 8), np.uint8), AFFINE)
    data = bytearray(image.to_bytes()[:352])
    struct.pack_into("<4h", data, FACT["dim"], 3, *shape)
    struct.pack_into("<2h", data, FACT["type"], kind, {2: 8, 4: 16, 16: 32, 64: 64}[kind])
    return bytes(data)


@pytest.mark.process
@pytest.mark.parametrize(
    ("shape", "kind", "code"),
    [
        ((20, 20, 20), 2, "NII-BOMB"),
        ((2560, 2560, 2560), 2, "NII-TOO-LARGE"),
        ((512, 512, 192), 64, "NII-BOMB"),
    ],
    ids=["small header", "honest header", "header at the limit"],
)
def test_a_bomb_of_16_gib_takes_at_most_5_s_and_1_gib(tmp_path, shape, kind, code) -> None:
    path = zeros(tmp_path / "x_flair.nii.gz", header(shape, kind), 16)
    assert path.stat().st_size < 2**25
    ask = (
        "import json, resource, time; from pathlib import Path\n"
        "from gliofed.validation.check import check_path\n"
        "from gliofed.runtime.progress import NO_PROGRESS\n"
        f"start = time.monotonic(); r = check_path(Path({str(path)!r}), True, NO_PROGRESS)\n"
        "took = time.monotonic() - start\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps([[f.code for f in r.findings], took, used.ru_utime, used.ru_maxrss]))\n"
    )
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    found, took, computing, kib = json.loads(done.stdout)
    print(f"{path.stat().st_size >> 20} MiB packed: {took:.2f} s, {kib / 1024:.0f} MiB at most")
    assert code in found
    assert kib <= 2**20
    assert computing <= 5
    assert took <= 20  # the wall clock of a shared machine


def test_an_image_at_the_limit_is_read_and_one_above_is_not(tmp_path) -> None:
    deep = MAX_VOXEL_BYTES // (1024 * 1024)
    for slices, expected in ((deep, "NII-TRUNCATED"), (deep + 1, "NII-TOO-LARGE")):
        path = tmp_path / f"{slices}.nii"
        path.write_bytes(header((1024, 1024, slices)))
        scan, faults = read_scan(path)
        assert scan is None
        assert [f.code for f in faults] == [expected]


@pytest.mark.process
def test_the_limits_of_the_system_are_set() -> None:
    code = PROLOGUE + (
        "sys.stdin = type('', (), {'buffer': []}); c.main(); c._allow_cpu()\n"
        "print(resource.getrlimit(resource.RLIMIT_AS)[0], resource.getrlimit(resource.RLIMIT_CPU)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    memory, seconds = map(int, done.stdout.split())
    assert memory == 2**30
    assert 20 <= seconds <= 25
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != 2**30  # the parent's own is left alone


# --- what is read is what others read -----------------------------------------------------------


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float32, np.float64, np.int8,
                                  np.uint16, np.uint32, np.int64, np.uint64])  # fmt: skip
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [nib.Nifti1Image, nib.Nifti2Image])
def test_voxels_and_frame_are_those_of_nibabel(tmp_path, kind, order, version) -> None:
    rng = np.random.default_rng(3)
    data = rng.integers(0, 100, (9, 10, 11)).astype(kind)
    turn = np.array([[0, -2, 0.5, 3], [2.5, 0, 0, -8], [0, 0.4, 3, 5], [0, 0, 0, 1.0]])
    image = version(data, None, version.header_class(endianness=order), dtype=kind)
    image.set_qform(turn, 1)
    image.header.set_slope_inter(2.0, -3.0)
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(image.to_bytes()))
    scan, faults = read_scan(path)
    theirs = nib.load(path)
    assert {f.code for f in faults} <= {"NII-FIELD-OF-VIEW"}
    np.testing.assert_allclose(scan.small, theirs.get_fdata(), rtol=1e-6)
    np.testing.assert_allclose(scan.affine, theirs.affine, atol=1e-4)


@example([0.0, 1.0, 2.0**-9], 1.0, [1.0, 1.0, 1.0])  # squares add up to 1 + 3.8e-6
@example([0.0, 1.0, 2.0**-11], 1.0, [1.0, 1.0, 1.0])  # 1 + 2.4e-7, within rounding
@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.sampled_from([-1.0, 1.0]),
       st.lists(st.floats(0.2, 9), min_size=3, max_size=3))  # fmt: skip
def test_the_qform_is_that_of_nibabel(quatern, qfac, sizes) -> None:
    data = bytearray(header((32, 36, 28)))
    struct.pack_into("<2h", data, FACT["q"], 1, 0)
    struct.pack_into("<3f", data, FACT["quatern"], *quatern)
    struct.pack_into("<4f", data, FACT["pixdim"], qfac, *sizes)
    affine, faults = read_affine(read_header(bytes(data)))
    theirs = nib.Nifti1Header(bytes(data[:348]), check=False)
    if "NII-QFORM" in {f.code for f in faults}:
        with pytest.raises(ValueError, match=r"w2 should be positive"):
            theirs.get_qform()
    else:
        np.testing.assert_allclose(affine, theirs.get_qform(), atol=1e-4)


def test_a_large_image_is_thinned_by_whole_steps(tmp_path) -> None:
    data = np.arange(200 * 170 * 330, dtype=np.float32).reshape(200, 170, 330)
    scan, _ = read_scan(save(tmp_path / "x.nii", data, np.diag([1.0, 1, 1, 1])))
    assert scan.step == (2, 2, 3)
    np.testing.assert_array_equal(scan.small, data[::2, ::2, ::3])
    np.testing.assert_array_equal(np.diag(scan.affine), [2, 2, 3, 1])
    assert (scan.low, scan.high) == (0, data.max())


# --- any bytes at all ---------------------------------------------------------------------------

SMALL = nib.Nifti1Image(
    np.arange(1000, dtype=np.int16).reshape(10, 10, 10), np.diag([3.0, 3, 3, 1])
)
SMALL.set_qform(SMALL.affine, 1)
SMALL.set_sform(SMALL.affine, 1)
SMALL2 = nib.Nifti2Image(np.asarray(SMALL.dataobj), SMALL.affine)
pokes = st.lists(st.tuples(st.integers(0, 560), st.binary(min_size=1, max_size=8)), max_size=6)


@given(st.sampled_from([SMALL.to_bytes(), SMALL2.to_bytes()]), pokes, st.integers(0, 3000),
       st.booleans(), st.booleans())  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_a_damaged_image_gives_findings_and_never_an_exception(
    tmp_path_factory, start, changes, length, cut, pack
) -> None:
    data = bytearray(start)
    for place, piece in changes:
        data[place : place + len(piece)] = piece
    body = bytes(data[:length] if cut else data)
    path = tmp_path_factory.getbasetemp() / ("fuzz.nii.gz" if pack else "fuzz.nii")
    path.write_bytes(gzip.compress(body, 1) if pack else body)
    looked = read_case(
        ReadRequest({Sequence.T1: path, Sequence.FLAIR: path}, {"mask": path}, True), lambda _: None
    )
    scan, faults = read_scan(path)
    if scan is not None and not faults:  # then another reader sees the same image
        theirs = nib.load(path)
        assert theirs.shape[:3] == scan.shape
        np.testing.assert_allclose(theirs.affine, scan.affine, atol=1e-3)
        voxels = theirs.get_fdata()
        if np.abs(voxels).max() < 1e30:  # float32 holds it
            np.testing.assert_allclose(scan.small, voxels, rtol=1e-5, atol=1e-30)
    assert looked.parse(json.loads(looked.line())) == looked


@given(st.binary(max_size=600))
def test_any_bytes_are_a_header_or_a_fault(data) -> None:
    try:
        read_affine(read_header(data))
    except BrokenFileError as error:
        assert error.fault.code.startswith("NII-")


@given(st.one_of(st.binary(max_size=300), st.text(max_size=200).map(str.encode),
                 st.lists(st.lists(st.sampled_from(["participant_id", "idh", "sub-1", "0", "", '"',
                          "age", "1e999", "nan"]), max_size=4).map("\t".join))
                 .map(lambda rows: "\n".join(rows).encode())))  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_a_table_or_findings(tmp_path_factory, data) -> None:
    path = tmp_path_factory.getbasetemp() / "participants.tsv"
    path.write_bytes(data)
    findings = check_table(path, "participants.tsv", "here", ["sub-1"], {})
    try:
        read_cells(path)
    except BrokenFileError as error:
        assert [f.code for f in findings] == [error.fault.code]


@pytest.mark.process
def test_names_that_are_no_text_do_no_harm(tmp_path) -> None:
    root = write_healthy(tmp_path / "data")
    strange = (
        root
        / "north/sub-01/anat"
        / b"sub-01_\xff\x1b[31m_T2star.nii.gz".decode("utf-8", "surrogateescape")
    )
    strange.write_bytes(b"")
    (finding,) = check_path(root, False, NO_PROGRESS).findings
    assert finding.code == "SET-UNKNOWN-IMAGE"
    assert finding.file.isprintable()
    json.dumps(finding.row()).encode()
