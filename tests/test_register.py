"""Registration on phantoms of known truth; on real scans in test_real_preparation."""

from __future__ import annotations

import dataclasses

import moved_scans as scans
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial.transform import Rotation

from gliofed.data.nifti import Volume, read_nifti
from gliofed.data.phantom.images import TISSUE
from gliofed.errors import DataError
from gliofed.evaluation.metrics.segmentation import dice
from gliofed.inference.native_grid import mask_on_scan
from gliofed.preprocessing import registration
from gliofed.preprocessing.recipe import prepare_case
from gliofed.preprocessing.registration import register_affine, register_rigid, to_itk, to_ras
from gliofed.preprocessing.resampling import resample_mask
from gliofed.preprocessing.template import mni152
from gliofed.runtime.threads import side_by_side
from gliofed.study import GridConfig, PreparationConfig, QualityConfig
from gliofed.types import Case, Labels, Prediction, Sequence

THIN, THICK = (2.0, 2.0, 2.0), (1.5, 1.5, 5.0)
RADII_MM = np.array([62.0, 76, 56])
PHANTOM_MM = 1.5


def phantom() -> tuple[dict[Sequence, Volume], Volume]:
    """A stripped brain with sharp folds in three tissues and four contrasts, and its tumour.

    gliofed's own phantoms have voxels of 4.5 mm: too blunt to judge a millimetre by.
    """
    rng = np.random.default_rng(4)
    shape = (88, 108, 80)
    mm = (np.indices(shape) - (np.array(shape)[:, None, None, None] - 1) / 2) * PHANTOM_MM
    folds, pools = (ndimage.gaussian_filter(rng.normal(size=shape), w / PHANTOM_MM) for w in (3, 6))
    folds, pools = folds / folds.std(), pools / pools.std()
    radius = np.sqrt(((mm.T / RADII_MM) ** 2).sum(-1)).T
    brain = radius + 0.03 * pools < 1
    tumour = brain & (np.linalg.norm((mm.T - [25, 15, 12]).T, axis=0) + 3 * folds < 18)
    white = (radius < 0.9) & (folds > 0)
    fluid = (pools > 1.8) | (radius + 0.05 * folds > 0.97)
    frame = np.diag([PHANTOM_MM] * 3 + [1.0])
    frame[:3, 3] = -PHANTOM_MM * (np.array(shape) - 1) / 2
    volumes = {}
    for sequence, (grey, light, wet) in TISSUE.items():
        swollen = 1.3 * grey if sequence in (Sequence.T2, Sequence.FLAIR) else 0.8 * grey
        data = np.select([~brain, tumour, fluid, white], [0, swollen, wet, light], grey)
        volumes[sequence] = Volume(data.astype(np.float32), frame)
    return volumes, Volume(tumour.astype(np.float32), frame)


@pytest.fixture(scope="module")
def head() -> dict[Sequence, Volume]:
    return phantom()[0]


def scan(volume: Volume, matrix: np.ndarray, spacing: tuple[float, ...], seed: int = 1) -> Volume:
    return scans.scanned(volume, matrix, spacing, np.random.default_rng(seed), bias=0.2)


def a_move(volume: Volume, degrees: float, mm: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return scans.move(rng, scans.middle(volume), (degrees, degrees), (mm, mm))


def test_the_way_to_itk_and_back_keeps_places() -> None:
    turn = Rotation.from_euler("xyz", [20, -10, 40], degrees=True).as_matrix()
    frame = np.eye(4)
    frame[:3, :3] = turn @ np.diag([-1.0, 2, 3])  # oblique, and left-handed
    frame[:3, 3] = [5, -7, 11]
    image = to_itk(Volume(np.zeros((4, 5, 6), np.float32), frame))
    assert image.GetSize() == (4, 5, 6)
    for voxel in ([0, 0, 0], [3, 0, 0], [1, 4, 2], [3, 4, 5]):
        there = np.array(image.TransformIndexToPhysicalPoint(voxel)) * [-1, -1, 1]
        np.testing.assert_allclose(there, apply_affine(frame, voxel), atol=1e-9)


def test_an_itk_transform_becomes_the_same_matrix_between_ras_points() -> None:
    import SimpleITK as sitk

    transform = sitk.AffineTransform(3)
    transform.SetMatrix([1.1, 0.2, 0, -0.1, 0.9, 0.05, 0.02, 0, 1.2])
    transform.SetTranslation([3.0, -4, 5])
    transform.SetCenter([10.0, 20, -30])
    ras = np.array([7.0, -8, 9])
    expected = np.array(transform.TransformPoint((ras * [-1, -1, 1]).tolist())) * [-1, -1, 1]
    np.testing.assert_allclose(apply_affine(to_ras(transform), ras), expected, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ours", "theirs", "other", "degrees", "mm"),
    [
        (THIN, THICK, Sequence.T2, 15, 20),
        (THICK, THIN, Sequence.FLAIR, 15, 20),
        (THIN, THIN, Sequence.T1, 8, 20),
        (THIN, THICK, Sequence.T1, 1, 1),
    ],
    ids=["thick moving", "thick fixed", "both thin", "hardly moved"],
)
def test_rigid_recovers_a_known_move(head, ours, theirs, other, degrees, mm) -> None:
    volume = head[Sequence.T1CE]
    matrix = a_move(volume, degrees, mm, seed=5)
    reference = scan(volume, np.eye(4), ours)
    found = register_rigid(
        reference, scan(head[other], matrix, theirs, seed=2), reference.data != 0
    )
    points = scans.brain_points(volume)
    assert scans.apart(np.eye(4), matrix, points) > 0.5
    assert scans.apart(found, matrix, points) < 1
    np.testing.assert_allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-6)
    assert np.linalg.det(found) == pytest.approx(1)


@pytest.mark.slow
def test_rigid_recovers_the_move_of_an_inverted_scan_on_oblique_flipped_axes(head) -> None:
    volume = head[Sequence.T1CE]
    matrix = a_move(volume, 12, 15, seed=8)
    inverted = np.where(volume.data > 0, 1.2 * volume.data.max() - volume.data, 0)
    shape, frame = scans.grid_around(apply_affine(matrix, scans.middle(volume)), (1.5, 5.0, 1.5))
    tilt = np.eye(4)
    tilt[:3, :3] = Rotation.from_euler("xyz", [15, -20, 10], degrees=True).as_matrix()
    flip = np.diag([-1.0, 1, -1, 1])
    flip[:3, 3] = [shape[0] - 1, 0, shape[2] - 1]
    centre = np.eye(4)
    centre[:3, 3] = apply_affine(matrix, scans.middle(volume))
    frame = centre @ tilt @ np.linalg.inv(centre) @ frame @ flip
    moving = Volume(scans.on_grid(Volume(inverted, volume.affine), matrix, shape, frame), frame)
    reference = scan(volume, np.eye(4), THIN)
    found = register_rigid(reference, moving, reference.data != 0)
    assert scans.apart(found, matrix, scans.brain_points(volume)) < 1


@pytest.mark.slow
def test_rigid_finds_the_brain_in_a_scan_far_away(head) -> None:
    """The scanner's coordinates tell nothing: the start on the centres of mass must do."""
    volume = head[Sequence.T1CE]
    matrix = a_move(volume, 5, 300, seed=9)
    reference = scan(volume, np.eye(4), (2.0, 2.0, 2.0))
    moving = scan(head[Sequence.T2], matrix, (2.0, 2.0, 5.0))
    found = register_rigid(reference, moving, reference.data != 0)
    assert scans.apart(found, matrix, scans.brain_points(volume)) < 1


@pytest.mark.slow
def test_rigid_is_the_same_twice(head) -> None:
    reference = scan(head[Sequence.T1CE], np.eye(4), (3.0, 3.0, 3.0))
    moving = scan(head[Sequence.T2], a_move(reference, 5, 5, seed=1), (3.0, 3.0, 5.0))
    one, two = side_by_side(lambda _: register_rigid(reference, moving, reference.data != 0), "ab")
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(("shift_mm", "tried"), [(1.0, 1), (4.0, 2)])
def test_the_next_level_decides_between_two_coarse_results(
    head, monkeypatch, shift_mm, tried
) -> None:
    """The second start is the right one; on coarse voxels the first has more information."""
    volume = scan(head[Sequence.T1CE], np.eye(4), COARSE)
    coarse = iter([(-2.0, sitk.Euler3DTransform()), (-1.0, sitk.Euler3DTransform())])
    asked = []

    def level(fixed, moving, start, settings, mask):
        if settings is registration._COARSE:
            value, found = next(coarse)
            found.SetTranslation([0.0 if value == -2.0 else shift_mm, 0.0, 0.0])
            return value, found
        asked.append(settings)
        return -start.GetTranslation()[0], start

    monkeypatch.setattr(registration, "_level", level)
    found = register_rigid(volume, volume, volume.data != 0)
    assert asked == [registration._MIDDLE] * tried + [registration._FINE]
    assert abs(found[0, 3]) == (shift_mm if tried == 2 else 0.0)


COARSE = (4.0, 4.0, 4.0)


@pytest.mark.parametrize("order", ["xyz", "zxy"])
def test_points_lie_on_the_slices_at_even_distances(order) -> None:
    """Thick slices along z, or along x of the file; the mask is a box of 60 x 80 x 50 mm."""
    sides = {"x": 1.0, "y": 1.0, "z": 5.0}
    fixed = sitk.Image([round(100 / sides[a]) for a in order], sitk.sitkFloat32)
    fixed.SetSpacing([sides[a] for a in order])
    mask = sitk.Image(fixed.GetSize(), sitk.sitkUInt8)
    mask.CopyInformation(fixed)
    extent = {"x": 60, "y": 80, "z": 50}
    mask[tuple(slice(2, 2 + round(extent[a] / sides[a])) for a in order)] = 1
    grids = []

    class Method:
        NONE = 0

        def SetVirtualDomain(self, size, origin, spacing, direction) -> None:
            grids.append((size, origin, spacing, np.reshape(direction, (3, 3))))

        def SetMetricSamplingStrategy(self, strategy) -> None:
            assert strategy == self.NONE

    registration._sample(Method(), fixed, mask, 10_000)
    size, origin, spacing, axes = grids[0]
    assert np.linalg.det(axes) == pytest.approx(1)
    index = np.indices(size).reshape(3, -1).T
    points = origin + (index * spacing) @ axes.T
    along = points[:, order.index("z")] / 5
    np.testing.assert_allclose(along, along.round(), atol=1e-6)
    inside = [mask.TransformPhysicalPointToIndex(p) for p in points.tolist()]
    within = [all(0 <= i < n for i, n in zip(v, mask.GetSize(), strict=True)) for v in inside]
    counted = sum(mask[v] for v, good in zip(inside, within, strict=True) if good)
    assert counted == pytest.approx(10_000, rel=0.05)


def test_an_empty_brain_is_refused(head) -> None:
    volume = scan(head[Sequence.T1], np.eye(4), COARSE)
    nowhere = np.zeros(volume.data.shape, bool)
    with pytest.raises(ValueError, match="brain mask is empty"):
        register_rigid(volume, volume, nowhere)
    template, brain = mni152()
    with pytest.raises(ValueError, match=r"brain mask is empty|no structure"):
        register_affine(template, brain, volume, nowhere)


@pytest.mark.parametrize("value", [0, 7])
def test_a_constant_scan_is_refused(head, value) -> None:
    volume = scan(head[Sequence.T1], np.eye(4), COARSE)
    flat = Volume(np.full_like(volume.data, value), volume.affine)
    with pytest.raises(ValueError, match="no structure"):
        register_rigid(volume, flat, volume.data != 0)
    with pytest.raises(ValueError, match="no structure"):
        register_rigid(flat, volume, volume.data != 0)


@pytest.mark.slow
def test_affine_brings_the_moved_template_back() -> None:
    template, brain = mni152()
    truth = np.eye(4)
    turn = Rotation.from_euler("xyz", [8, -6, 10], degrees=True).as_matrix()
    truth[:3, :3] = turn @ np.diag([1.08, 0.93, 1.05])
    truth[:3, 3] = [12, -15, 9]
    shape, frame = scans.grid_around(apply_affine(truth, [0, -18, 10]), (1.5, 1.5, 1.5))
    moving = Volume(scans.on_grid(template, truth, shape, frame), frame)
    found = register_affine(template, brain, moving, moving.data != 0)
    assert scans.apart(found, truth, scans.brain_points(template)) < 1


@dataclasses.dataclass(frozen=True)
class Written:
    """A phantom patient on disk, every sequence moved for itself."""

    case: Case
    matrices: dict[Sequence, np.ndarray]
    points: np.ndarray


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Written:
    """brain: on the grid of T1CE. mask: on the thick grid of T2. FLAIR: moved a little since."""
    volumes, tumour = phantom()
    folder = tmp_path_factory.mktemp("case")
    first = a_move(volumes[Sequence.T1CE], 3, 5, seed=20)
    matrices = {
        Sequence.T1: a_move(volumes[Sequence.T1], 10, 12, seed=21),
        Sequence.T1CE: first,
        Sequence.T2: a_move(volumes[Sequence.T2], 12, 9, seed=22),
        Sequence.FLAIR: a_move(volumes[Sequence.FLAIR], 2, 3, seed=23) @ first,
    }
    spacing = {Sequence.T1: (1.5, 1.5, 5.0), Sequence.T1CE: (2.0, 2.0, 2.0),
               Sequence.T2: (1.5, 1.5, 5.0), Sequence.FLAIR: (2.0, 2.0, 2.0)}  # fmt: skip
    seen = {s: scan(v, matrices[s], spacing[s], seed=30) for s, v in volumes.items()}
    shape, affine = seen[Sequence.T1CE].data.shape, seen[Sequence.T1CE].affine.copy()
    affine[:3, 3] += 1  # on one grid, stripped scans would be taken to lie on each other
    flair = scans.on_grid(volumes[Sequence.FLAIR], matrices[Sequence.FLAIR], shape, affine)
    seen[Sequence.FLAIR] = Volume(flair, affine)
    paths = scans.write(folder, seen)
    on_t2 = seen[Sequence.T2]
    drawn = scans.on_grid(tumour, matrices[Sequence.T2], on_t2.data.shape, on_t2.affine) >= 0.5
    scans.write_volume(folder / "mask.nii", Volume(drawn.astype(np.uint8), on_t2.affine))
    brain = (seen[Sequence.T1CE].data > 0).astype(np.uint8)
    scans.write_volume(folder / "brain.nii", Volume(brain, seen[Sequence.T1CE].affine))
    case = Case("P", "here", "P", paths, folder / "mask.nii", Labels(), brain=folder / "brain.nii")
    return Written(case, matrices, scans.brain_points(volumes[Sequence.T1CE]))


@pytest.fixture(scope="module")
def entry(written):
    """The whole recipe with the settings a study has by itself, on larger voxels."""
    return prepare_case(written.case, GridConfig(spacing_mm=(2.0, 2.0, 2.0)), PreparationConfig())


@pytest.mark.slow
def test_the_whole_recipe_lays_every_sequence_on_the_reference(written, entry) -> None:
    assert (entry.brain, entry.reference) == ("given", Sequence.T1CE)
    assert entry.present == (True,) * 4
    to_network = {
        s: np.linalg.inv(p.matrix) @ written.matrices[s] for s, p in entry.placements.items()
    }
    for sequence in (Sequence.T1, Sequence.T2, Sequence.FLAIR):
        pair = to_network[sequence], to_network[Sequence.T1CE]
        assert scans.apart(*pair, written.points) < 1, sequence


@pytest.mark.slow
def test_a_mask_comes_back_to_the_grid_it_was_drawn_on(written, entry) -> None:
    drawn = read_nifti(written.case.mask).data > 0
    np.testing.assert_array_equal(entry.mask_placement.matrix, entry.placements[Sequence.T2].matrix)
    prediction = Prediction(entry.mask.astype(np.float32), entry.affine, {})
    back = mask_on_scan(prediction, entry.mask_placement)
    assert back.shape == drawn.shape
    assert dice(back, drawn) > 0.95
    there = mask_on_scan(prediction, entry.placements[Sequence.T1CE])
    _, tumour = phantom()
    reference = read_nifti(written.case.images[Sequence.T1CE])
    to_tumour = np.linalg.inv(written.matrices[Sequence.T1CE]) @ reference.affine
    truth = resample_mask(tumour.data > 0, tumour.affine, reference.data.shape, to_tumour)
    assert dice(there, truth) > 0.9


@pytest.mark.slow
def test_the_brain_lies_on_that_of_the_template(entry) -> None:
    assert entry.measures.template_dice > QualityConfig().template_dice
    template, _ = mni152()
    middle = apply_affine(entry.affine, (np.array(entry.image.shape[1:]) - 1) / 2)
    np.testing.assert_allclose(middle, scans.middle(template), atol=10)
    assert set(entry.measures.alignment) == set(Sequence) - {Sequence.T1CE}
    assert min(entry.measures.alignment.values()) > QualityConfig().alignment


RIGID_ONLY = PreparationConfig(brain="auto", register=True, space="scanner", bias=False)
SMALL = GridConfig(spacing_mm=(4.0, 4.0, 4.0))


def test_a_brain_mask_on_no_sequence_s_grid_is_refused(written, tmp_path) -> None:
    brain = read_nifti(written.case.brain)
    scans.write_volume(tmp_path / "b.nii", Volume(brain.data[1:].astype(np.uint8), brain.affine))
    case = dataclasses.replace(written.case, brain=tmp_path / "b.nii")
    with pytest.raises(
        DataError,
        match=r"here/P: the brain mask .*b\.nii is not on the grid of any of its sequences",
    ):
        prepare_case(case, SMALL, RIGID_ONLY)


@pytest.mark.slow
def test_the_brain_given_decides_which_sequence_is_the_reference(written, tmp_path) -> None:
    """T1CE is finer, but the brain was drawn on the thick T1."""
    thick = read_nifti(written.case.images[Sequence.T1])
    brain = (thick.data > 0).astype(np.uint8)
    scans.write_volume(tmp_path / "b.nii", Volume(brain, thick.affine))
    images = {s: written.case.images[s] for s in (Sequence.T1, Sequence.T1CE)}
    case = dataclasses.replace(written.case, images=images, brain=tmp_path / "b.nii")
    found = prepare_case(case, SMALL, RIGID_ONLY)
    assert (found.brain, found.reference) == ("given", Sequence.T1)
    ways = [np.linalg.inv(found.placements[s].matrix) @ written.matrices[s]
            for s in (Sequence.T1, Sequence.T1CE)]  # fmt: skip
    assert scans.apart(*ways, written.points) < 1


@pytest.mark.slow
def test_flair_alone_and_without_a_brain_mask(written) -> None:
    only = {Sequence.FLAIR: written.case.images[Sequence.FLAIR]}
    case = dataclasses.replace(written.case, images=only, brain=None, mask=None)
    found = prepare_case(case, SMALL, PreparationConfig())
    assert (found.brain, found.reference) == ("stripped", Sequence.FLAIR)
    assert found.present == (False, False, False, True)
    assert not found.image[:3].any()
    assert found.image[3].any()
    assert found.mask is None
    assert found.mask_placement is None
    assert found.measures.alignment == {}
    assert found.measures.template_dice > QualityConfig().template_dice


@pytest.mark.parametrize("brain", ["given", "auto"])
def test_stripped_scans_of_one_grid_are_left_where_they_lie(written, tmp_path, brain) -> None:
    """That is how sets are published; the two are apart here, and stay so."""
    case = of_one_grid(written, tmp_path, skull=0)
    case = case if brain == "given" else dataclasses.replace(case, brain=None)
    placed = prepare_case(case, SMALL, RIGID_ONLY).placements
    np.testing.assert_array_equal(placed[Sequence.FLAIR].matrix, placed[Sequence.T1CE].matrix)


@pytest.mark.slow
def test_heads_of_one_grid_are_laid_on_each_other(written, tmp_path) -> None:
    """No voxel is 0, so these look like heads, and people move."""
    placed = prepare_case(of_one_grid(written, tmp_path, skull=5), SMALL, RIGID_ONLY).placements
    apart = np.linalg.inv(placed[Sequence.FLAIR].matrix) @ placed[Sequence.T1CE].matrix
    assert np.linalg.norm(apart[:3, 3]) > 2  # mm, of 4


def of_one_grid(written: Written, folder, skull: float) -> Case:
    """T1CE, and the same two voxels (4 mm) further as FLAIR. skull: added everywhere."""
    volume = read_nifti(written.case.images[Sequence.T1CE])
    moved = np.roll(volume.data, 2, axis=0)
    images = scans.write(folder, {
        Sequence.T1CE: Volume(volume.data + skull, volume.affine),
        Sequence.FLAIR: Volume(moved + skull, volume.affine),
    })  # fmt: skip
    return dataclasses.replace(written.case, images=images, mask=None)


@pytest.mark.slow
def test_without_t1_the_finest_of_the_others_is_the_reference(written) -> None:
    images = {s: written.case.images[s] for s in (Sequence.T2, Sequence.FLAIR)}
    case = dataclasses.replace(written.case, images=images, brain=None)
    found = prepare_case(case, SMALL, RIGID_ONLY)
    assert found.reference is Sequence.FLAIR
    assert found.present == (False, False, True, True)
    ways = [np.linalg.inv(found.placements[s].matrix) @ written.matrices[s] for s in images]
    assert scans.apart(*ways, written.points) < 1
    assert found.mask.any()


def test_a_flat_sequence_is_named(written, tmp_path) -> None:
    flat = read_nifti(written.case.images[Sequence.T2])
    scans.write_volume(tmp_path / "flat.nii", Volume(np.full_like(flat.data, 5), flat.affine))
    kept = written.case.images[Sequence.T1CE]
    images = {Sequence.T1CE: kept, Sequence.T2: tmp_path / "flat.nii"}
    case = dataclasses.replace(written.case, images=images, mask=None)
    with pytest.raises(DataError, match=r"here/P: .*flat\.nii cannot be registered to t1ce\.nii"):
        prepare_case(case, SMALL, RIGID_ONLY)


def test_an_empty_brain_mask_is_named(written, tmp_path) -> None:
    brain = read_nifti(written.case.brain)
    scans.write_volume(tmp_path / "b.nii", Volume(np.zeros_like(brain.data), brain.affine))
    case = dataclasses.replace(written.case, brain=tmp_path / "b.nii")
    with pytest.raises(DataError, match=r"here/P: no brain in .*b\.nii"):
        prepare_case(case, SMALL, RIGID_ONLY)
