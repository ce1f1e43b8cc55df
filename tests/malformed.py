"""A healthy hospital, and the ways to spoil it that `malformed_corpus` lists.

Everything is drawn here; no file of a patient is used. The brain is coarse (5 mm) so that a whole
one is small enough to be written a hundred times.
"""

from __future__ import annotations

import gzip
import io
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from gliofed.validation.reader_process import read_case

SHAPE = (32, 36, 28)
AFFINE = np.diag([-5.0, 5, 5, 1])
AFFINE[:3, 3] = (77.5, -90, -70)
FILES = {"T1": "T1w", "T1CE": "ce-gadolinium_T1w", "T2": "T2w", "FLAIR": "FLAIR"}
SPOILT = "north/sub-01"
FACT = {
    "offset": 108, "dim": 40, "type": 70, "bits": 72, "pixdim": 76, "slope": 112, "inter": 116,
    "units": 123, "q": 252, "s": 254, "quatern": 256, "srow": 280, "magic": 344,
}  # fmt: skip
COLUMNS = ("participant_id", "age", "sex", "idh", "codel_1p19q", "mgmt", "grade")
ROWS = (("sub-01", "54", "F", "1", "0", "1", "3"), ("sub-02", "61", "M", "0", "n/a", "0", "4"))


def draw(seed: int) -> dict[str, np.ndarray]:
    """Four sequences and a mask: brain of 1.1 L, vessels, and a tumour left, in front, on top."""
    rng = np.random.default_rng(seed)
    x, y, z = np.indices(SHAPE) - (np.array(SHAPE)[:, None, None, None] - 1) / 2
    brain = (x / 13) ** 2 + (y / 15) ** 2 + (z / 11) ** 2 < 1
    tumour = ((x - 6) ** 2 + (y - 6) ** 2 + (z - 3) ** 2 < 9) & brain
    vessels = (rng.random(SHAPE) < 0.01) & brain
    out = {}
    for name, contrast in (("T1", -0.2), ("T1CE", -0.2), ("T2", 0.6), ("FLAIR", 0.8)):
        image = 100 + 8 * rng.standard_normal(SHAPE) + 100 * contrast * tumour
        if name == "T1CE":
            image += 120 * vessels
        out[name] = np.where(brain, image, 0).round().astype(np.int16)
    out["mask"] = tumour.astype(np.uint8)
    return out


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = AFFINE, **header) -> Path:
    """As nibabel writes it, sform and qform alike. header: fields to set besides."""
    image = nib.Nifti1Image(data, affine)
    if affine is not None:
        image.set_qform(affine, 1)
        image.set_sform(affine, 1)
    for key, value in header.items():
        image.header[key] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def write_healthy(root: Path) -> Path:
    """The folder of hospitals that every fault starts from: one hospital, two subjects."""
    for seed, row in enumerate(ROWS, start=1):
        for name, data in draw(seed).items():
            save(at(root, name, row[0]), data)
    table(root, ROWS)
    return root


def at(root: Path, name: str, subject: str = "sub-01", ending: str = ".nii.gz") -> Path:
    """The path of a sequence, or of the mask."""
    if name == "mask":
        folder = root / f"north/derivatives/tumor/{subject}/anat"
        return folder / f"{subject}_label-tumor_mask{ending}"
    return root / f"north/{subject}/anat/{subject}_{FILES[name]}{ending}"


def table(root: Path, rows, columns=COLUMNS, delimiter: str = "\t") -> None:
    text = "\n".join(delimiter.join(map(str, row)) for row in (columns, *rows)) + "\n"
    (root / "north/participants.tsv").write_text(text)


def flair_bytes(root: Path) -> bytes:
    return gzip.decompress(at(root, "FLAIR").read_bytes())


def put(root: Path, data: bytes, ending: str = ".nii.gz") -> None:
    """`data` as the FLAIR of subject 1: packed, unless the ending is .nii."""
    at(root, "FLAIR").unlink()
    packed = gzip.compress(data, 1) if ending == ".nii.gz" else data
    at(root, "FLAIR", ending=ending).write_bytes(packed)


# --- builders -----------------------------------------------------------------------------------


def raw(root: Path, data: bytes) -> None:
    """The file's very bytes."""
    at(root, "FLAIR").write_bytes(data)


def packed(root: Path, change: Callable[[bytes], bytes]) -> None:
    """A change of the packed bytes."""
    raw(root, change(at(root, "FLAIR").read_bytes()))


def unpacked(root: Path, change: Callable[[bytes], bytes], ending: str = ".nii.gz") -> None:
    """A change of the unpacked bytes."""
    put(root, change(flair_bytes(root)), ending)


def poke(root: Path, *fields: tuple[int, str, object]) -> None:
    """Header fields set: (offset, struct format, value or values)."""
    data = bytearray(flair_bytes(root))
    for offset, form, value in fields:
        values = value if isinstance(value, tuple) else (value,)
        struct.pack_into("<" + form, data, offset, *values)
    put(root, bytes(data))


def text(root: Path, words: bytes, offset: int = 148, length: int = 80) -> None:
    poke(root, (offset, f"{length}s", words))


def image(root: Path, change: Callable[[np.ndarray], np.ndarray], name: str = "FLAIR") -> None:
    """New voxels in the old frame."""
    old = nib.load(at(root, name))
    save(at(root, name), change(np.asarray(old.dataobj)), old.affine)


def framed(root: Path, name: str = "FLAIR", sform=None, qform=None, **header) -> None:
    """New frames around the old voxels; None leaves that form out."""
    old = nib.load(at(root, name))
    new = nib.Nifti1Image(np.asarray(old.dataobj), None)
    if qform is not None:
        new.set_qform(qform, 1)
    if sform is not None:
        new.set_sform(sform, 1)
    for key, value in header.items():
        new.header[key] = value
    nib.save(new, at(root, name))


def spaced(root: Path, *size: float) -> None:
    """Another voxel size, in sform, qform and pixdim, of every image of the subject."""
    affine = np.diag([*size, 1.0])
    for name in (*FILES, "mask"):
        framed(root, name, affine, affine)


def inside(root: Path) -> None:
    """The middle of the brain alone, 0.8 litres."""
    for name in (*FILES, "mask"):
        image(root, lambda a: a[8:25, 9:27, 8:20], name)
    spaced(root, 6, 6, 6)


def shifted(x: float = 0, y: float = 0, z: float = 0) -> np.ndarray:
    affine = AFFINE.copy()
    affine[:3, 3] += (x, y, z)
    return affine


def second(root: Path, change: Callable[[bytearray], None]) -> None:
    """The FLAIR as NIfTI-2, changed."""
    old = nib.load(at(root, "FLAIR"))
    new = nib.Nifti2Image(np.asarray(old.dataobj), old.affine)
    new.set_sform(old.affine, 1)
    data = bytearray(new.to_bytes())
    change(data)
    put(root, bytes(data))


def extension(root: Path, size: int, kind: int, body: bytes) -> None:
    """One extension before the voxels; `size` is what it says of itself."""
    data = bytearray(flair_bytes(root))
    block = struct.pack("<2i", size, kind) + body
    block += b"\0" * (-len(block) % 16)
    struct.pack_into("<f", data, 108, 352 + len(block))
    data[348:352] = b"\1\0\0\0"
    put(root, bytes(data[:352] + block + data[352:]))


def member(root: Path, extra: bytes) -> None:
    packed(root, lambda b: b + gzip.compress(extra))


def bomb(megabytes: int, root: Path) -> None:
    """An honest small header, then zeros without end."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1) as file:
        file.write(flair_bytes(root))
        for _ in range(megabytes):
            file.write(bytes(2**20))
    raw(root, out.getvalue())


def move(root: Path, source: str, target: str) -> None:
    (root / target).parent.mkdir(parents=True, exist_ok=True)
    (root / source).rename(root / target)


def copy(root: Path, source: str, target: str) -> None:
    (root / target).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(root / source, root / target)


def copied(source: str, target: str, root: Path) -> None:
    shutil.copy(at(root, source), at(root, target))


def repacked(root: Path) -> None:
    """The same voxels under another sequence's name, other bytes on the disk."""
    data = gzip.decompress(at(root, "T2").read_bytes())
    at(root, "FLAIR").write_bytes(gzip.compress(data, 1, mtime=7))


def swap(root: Path) -> None:
    one, other = at(root, "T1").read_bytes(), at(root, "T1CE").read_bytes()
    at(root, "T1").write_bytes(other)
    at(root, "T1CE").write_bytes(one)


def without(*names: str, root: Path, subjects=("sub-01",)) -> None:
    for subject in subjects:
        for name in names:
            at(root, name, subject).unlink()


def brats(root: Path, labels: np.ndarray | None = None, also: str | None = None) -> None:
    """The hospital turned into case folders with BraTS names."""
    names = {"T1": "t1", "T1CE": "t1ce", "T2": "t2", "FLAIR": "flair", "mask": "seg"}
    for number, row in enumerate(ROWS, start=1):
        folder = root / f"brats/BraTS_{number}"
        folder.mkdir(parents=True)
        for name, short in names.items():
            target = folder / f"{folder.name}_{short}.nii.gz"
            shutil.copy(at(root, name, row[0]), target)
            if name == "mask" and number == 1 and labels is not None:
                save(target, labels)
        if also and number == 1:
            source = at(root, "T1CE" if also == "T1GD" else "T2", row[0])
            shutil.copy(source, folder / f"{folder.name}_{also}.nii.gz")
    shutil.rmtree(root / "north")


def head(root: Path, nose: bool) -> None:
    """Scalp, skull and brain in every sequence; 5 mm voxels, 230 mm from top to chin."""
    shape = (40, 56, 52)
    x, y, z = np.indices(shape) - (np.array(shape)[:, None, None, None] - 1) / 2
    top = z - 6

    def ball(radius: float) -> np.ndarray:
        return (x / radius) ** 2 + (y / (radius * 1.15)) ** 2 + (top / radius) ** 2 < 1

    body = ball(16) | ((np.abs(x) < 9) & (np.abs(y) < 12) & (top < 0) & (top > -28))
    tissue = np.where(ball(12), 100, np.where(ball(14), 4, 90)) * body
    if nose:
        tissue[(np.abs(x) < 3) & (y > 10) & (y < 23) & (top < -6) & (top > -14)] = 90
    affine = np.diag([5.0, 5, 5, 1])
    affine[:3, 3] = [-2.5 * (n - 1) for n in shape]
    rng = np.random.default_rng(0)
    for name in FILES:
        noisy = tissue * (1 + 0.05 * rng.standard_normal(shape))
        if name == "T1CE":
            noisy += 100 * (rng.random(shape) < 0.01) * (tissue > 50)
        save(at(root, name), noisy.round().astype(np.int16), affine)
    drawn = ((x - 5) ** 2 + y**2 + top**2 < 9).astype(np.uint8)
    save(at(root, "mask"), drawn, affine)
    bright = np.asarray(nib.load(at(root, "FLAIR")).dataobj) + 80 * drawn
    save(at(root, "FLAIR"), bright.astype(np.int16), affine)


def cells(root: Path, **changes: str) -> None:
    """Cells of the first row."""
    row = tuple(changes.get(c, v) for c, v in zip(COLUMNS, ROWS[0], strict=True))
    table(root, (row, ROWS[1]))


def column(root: Path, name: str, value: str = "1") -> None:
    table(root, [(*row, value) for row in ROWS], (*COLUMNS, name))


def rename(root: Path, old: str, new: str) -> None:
    table(root, ROWS, tuple(new if c == old else c for c in COLUMNS))


def tsv(root: Path, change: Callable[[bytes], bytes]) -> None:
    path = root / "north/participants.tsv"
    path.write_bytes(change(path.read_bytes()))


def many(root: Path) -> None:
    rows = [(f"sub-{n:02d}", "50", "F", "1", "0" if n % 2 else "1", "1", "3") for n in range(1, 13)]
    table(root, [r if n else ROWS[0] for n, r in enumerate(rows)])


def south(root: Path, subject: str) -> None:
    """A second hospital with one subject."""
    for seed, name in enumerate(FILES, start=30):
        data = draw(seed)[name]
        save(root / f"south/{subject}/anat/{subject}_{FILES[name]}.nii.gz", data)
    data = draw(3)["mask"]
    folder = root / f"south/derivatives/tumor/{subject}/anat"
    save(folder / f"{subject}_label-tumor_mask.nii.gz", data)
    (root / "south/participants.tsv").write_text(f"participant_id\tidh\n{subject}\t1\n")


def some(value: float, kind=np.float32) -> Callable[[np.ndarray], np.ndarray]:
    """The image with one row of voxels set."""

    def change(a: np.ndarray) -> np.ndarray:
        a = a.astype(kind)
        a[16, 18, 10:14] = value
        return a

    return change


def labelled(*values: int) -> Callable[[np.ndarray], np.ndarray]:
    """The mask with its tumour cut into these labels, from left to right."""

    def change(a: np.ndarray) -> np.ndarray:
        x = np.nonzero(a)[0]
        out = np.zeros(a.shape, np.int16)
        out[a > 0] = np.array(values)[(x - x.min()) * len(values) // (np.ptp(x) + 1)]
        return out

    return change


def turned(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return AFFINE @ np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def specks(a: np.ndarray) -> np.ndarray:
    out = np.zeros_like(a)
    out[2:5, 2:5, 2:5] = a[12:15, 12:15, 12:15]
    return out


def speck(a: np.ndarray) -> np.ndarray:
    out = np.zeros_like(a)
    x, y, z = (v[len(v) // 2] for v in np.nonzero(a))
    out[x, y, z : z + 4] = 1
    return out


def poke_mask(root: Path, slope: float) -> None:
    data = bytearray(gzip.decompress(at(root, "mask").read_bytes()))
    struct.pack_into("<2f", data, FACT["slope"], slope, 0.0)
    at(root, "mask").write_bytes(gzip.compress(bytes(data), 1))


class InProcess:
    """A `SafeReader` without a child: quicker by a second for the many small cases."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def look(self, job):
        return read_case(job, lambda where: None)
