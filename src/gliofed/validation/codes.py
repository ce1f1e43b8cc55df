"""Every code that `gliofed check` can give: one row each, stable once released."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gliofed.data.masks import FAULTS


class Severity(enum.StrEnum):
    """error: the file cannot or must not be used. warning: check it. note: for information."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Code:
    """One kind of fault: what it means in a few words, and how to cure it."""

    id: str
    severity: Severity
    title: str
    cure: str


_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE
_COPY: Final = "copy the file again from its source and compare checksums"
_EXPORT: Final = "export or convert the series again"
_AFFINE: Final = "convert the series again from DICOM so that the affine is written"
_LOOK: Final = (
    "look at the case on the page of `gliofed check --sheet`; correct the file or its name"
)

CODES: Final[tuple[Code, ...]] = (
    # A file as such
    Code("FILE-NOTHING", _E, "nothing to check", "give a BIDS folder, a folder of such folders, a "
         "folder of case folders, an image or a table"),
    Code("FILE-UNREADABLE", _E, "file cannot be opened", "correct its permissions or its link"),
    Code("FILE-EMPTY", _E, "file is empty (0 bytes)", _COPY),
    Code("FILE-MEMORY", _E, "reading needed too much memory", _EXPORT),
    Code("FILE-TIME", _E, "reading took too long", "check the disk, then " + _EXPORT),
    Code("FILE-CRASH", _E, "the reading process crashed", _EXPORT),
    # gzip
    Code("NII-GZIP-NAME", _E, "name and compression disagree", "rename: .nii.gz if and only if "
         "the file is compressed"),
    Code("NII-GZIP-CUT", _E, "compressed file is truncated", _COPY),
    Code("NII-GZIP-CORRUPT", _E, "compressed data are damaged", _COPY),
    Code("NII-GZIP-CRC", _E, "gzip checksum or length is wrong", _COPY),
    Code("NII-GZIP-EXTRA", _W, "bytes after the end of the gzip data", _COPY),
    Code("NII-BOMB", _E, "unpacks to far more than its header declares", "do not open it; check "
         "its source"),
    # The NIfTI header
    Code("NII-TOO-LARGE", _E, "header declares an image above the size limit", "crop or resample "
         "it, or store it in a smaller type"),
    Code("NII-HEADER-CUT", _E, "shorter than a NIfTI header", _COPY),
    Code("NII-NOT-NIFTI", _E, "not a NIfTI file", "convert it to NIfTI, for example with dcm2niix"),
    Code("NII-ANALYZE", _E, "ANALYZE 7.5 header: left and right unknown", _AFFINE),
    Code("NII-TWO-FILES", _E, "header of a .hdr/.img pair", "save it as one .nii file"),
    Code("NII-DIMS", _E, "invalid number or length of axes", _EXPORT),
    Code("NII-ZERO-SIZE", _E, "an axis of length 0", _EXPORT),
    Code("NII-NOT-3D", _E, "fewer than three axes", _EXPORT),
    Code("NII-4D", _E, "more than one volume", "save the intended volume alone"),
    Code("NII-THIN", _W, "fewer than 8 slices", "check that the complete series was converted"),
    Code("NII-DATATYPE", _E, "voxel type is unknown or not a plain number", "save it as integer "
         "or float of 8 to 64 bits"),
    Code("NII-BITPIX", _W, "bits per voxel do not match the voxel type", _EXPORT),
    Code("NII-OFFSET", _E, "voxel data start at an invalid offset", _EXPORT),
    Code("NII-SCALING", _E, "intensity scaling is not finite", _EXPORT),
    Code("NII-TRUNCATED", _E, "fewer bytes than the header declares", _COPY),
    Code("NII-EXTRA-BYTES", _W, "more bytes than the header declares", _EXPORT),
    Code("NII-EXTENSION", _W, "header extensions are malformed", _EXPORT),
    # Geometry
    Code("NII-NO-AFFINE", _E, "neither sform nor qform", _AFFINE),
    Code("NII-FORM-CODE", _E, "unknown sform_code or qform_code", _AFFINE),
    Code("NII-AFFINE-NAN", _E, "affine is not finite", _AFFINE),
    Code("NII-AFFINE-SINGULAR", _E, "affine is singular", _AFFINE),
    Code("NII-IDENTITY", _W, "affine is the identity, as where it was lost: left, right and voxel "
         "size may be wrong", _AFFINE),
    Code("NII-QFORM", _E, "quaternion is not a rotation", _AFFINE),
    Code("NII-FORMS-DIFFER", _W, "sform and qform disagree", "set both to the same affine; "
         "gliofed uses the sform, other programs may use the qform"),
    Code("NII-FORMS-MIRROR", _E, "sform and qform are mirror images", "find out which side is "
         "left, then set both to that affine"),
    Code("NII-SHEAR", _W, "axes are not at right angles", "resample to a grid without shear"),
    Code("NII-SPACING-ZERO", _E, "voxel size is 0", _AFFINE),
    Code("NII-SPACING-NEGATIVE", _E, "voxel size is negative", _AFFINE),
    Code("NII-SPACING-ABSURD", _E, "voxel size is implausible or not finite", "correct unit or "
         "voxel size"),
    Code("NII-SPACING-DIFFERS", _W, "voxel sizes of header and affine disagree", _AFFINE),
    Code("NII-ANISOTROPY", _W, "voxels are more than 12 times as long as wide", "check the slice "
         "spacing"),
    Code("NII-UNITS", _E, "lengths are in metres or micrometres", "convert to millimetres"),
    Code("NII-FIELD-OF-VIEW", _W, "field of view is implausible for a head", "check the voxel "
         "size"),
    Code("NII-ORIGIN", _W, "image is more than 1 m from the origin", _AFFINE),
    # Privacy in header text
    Code("NII-PATIENT", _E, "patient fields in header text", "blank the text, then check for more"),
    Code("NII-NAME", _W, "header text may hold a name", "blank the text if it is a person"),
    Code("NII-DATE", _W, "header text holds a date", "blank the text"),
    Code("NII-NUMBER", _W, "header text holds a long number", "blank it if it is a patient's"),
    Code("NII-DICOM", _E, "a DICOM header inside the NIfTI header", "remove the extension"),
    # Voxels
    Code("IMG-NAN", _E, "voxels that are not a number", _EXPORT),
    Code("IMG-INF", _E, "infinite voxels", _EXPORT),
    Code("IMG-EMPTY", _E, "every voxel is 0", _EXPORT),
    Code("IMG-CONSTANT", _E, "every voxel has the same value", _EXPORT),
    Code("IMG-FEW-VALUES", _W, "as few distinct values as a mask", _LOOK),
    Code("IMG-BACKGROUND", _W, "background is not 0", "set everything outside the brain to 0"),
    # A case
    Code("SET-NO-IMAGES", _E, "no image of any of the four sequences", "add the images, or remove "
         "the folder"),
    Code("SET-SEQUENCE-MISSING", _W, "a sequence that other cases here have is missing", "add it "
         "if it was scanned"),
    Code("SET-SEQUENCE-NEVER", _N, "no case here has this sequence", "nothing, if it was never "
         "scanned"),
    Code("SET-SEQUENCE-TWICE", _E, "two files for one sequence", "keep one"),
    Code("SET-UNKNOWN-IMAGE", _N, "image of no known sequence", "rename it if it is one of the "
         "four sequences"),
    Code("SET-WRONG-FOLDER", _E, "file of one subject in the folder of another", "move or rename "
         "it"),
    Code("SET-SESSIONS", _N, "more than one session", "check that the first by name is "
         "preoperative"),
    Code("SET-SAME-IMAGE", _E, "the same image for two sequences", "replace it by the right file"),
    Code("SET-SCAN-TWICE", _E, "the same image in two cases", "find out whose it is; keep it once"),
    Code("SET-SWAPPED", _W, "T1 and T1 with contrast may be swapped", _LOOK),
    Code("SET-GRIDS", _N, "sequences on different grids", "nothing, if all are in scanner space"),
    Code("SET-FRAME", _W, "sequences in different frames of reference", "check on the images that "
         "they lie on each other; if not, register them or convert all from DICOM in one way"),
    Code("SET-APART", _E, "sequences do not overlap in space", "register them, or replace one by "
         "the right file"),
    Code("SET-MISALIGNED", _W, "two sequences are misaligned", "register them"),
    Code("SET-NO-BRAIN", _E, "almost only background", _LOOK),
    Code("SET-VOLUME", _W, "brain volume is implausibly large", "check the slice spacing"),
    Code("SET-PARTIAL", _W, "no background around the brain: less than a head was scanned", "use "
         "scans of the whole head"),
    Code("SET-NOT-STRIPPED", _W, "image is not skull-stripped", "nothing where gliofed "
         'extracts the brain ([prepare] brain = "auto", "deepbet" or "hd-bet"; `gliofed predict`); '
         "else strip the skull"),
    Code("SET-FACE", _W, "a face may be recognisable", "remove skull or face before sharing"),
    # A mask
    Code("SET-MASK-MISSING", _N, "no tumour mask", "nothing, if no mask was drawn"),
    Code("SET-MASK-TWICE", _E, "more than one tumour mask of one kind", "keep one"),
    Code("SET-MASK-ORPHAN", _W, "mask of a subject without images", "add the images, or remove it"),
    Code("SET-MASK-EMPTY", _E, *FAULTS["SET-MASK-EMPTY"]),
    Code("SET-MASK-FRACTION", _E, *FAULTS["SET-MASK-FRACTION"]),
    Code("SET-MASK-NEGATIVE", _E, *FAULTS["SET-MASK-NEGATIVE"]),
    Code("SET-MASK-LABELS", _W, "labels other than 0 to 4", "check that every label above 0 is "
         "tumour"),
    Code("SET-MASK-CAVITY", _W, "labels 3 and 4 together", "check that none is a resection cavity"),
    Code("SET-MASK-SPECK", _W, "mask of fewer than 10 voxels", _LOOK),
    Code("SET-MASK-GRID", _N, "mask on another grid than the images", "nothing, if it is in "
         "scanner space"),
    Code("SET-MASK-OUTSIDE", _E, *FAULTS["SET-MASK-OUTSIDE"]),
    Code("SET-MASK-EDGE", _W, "part of the mask lies outside the brain", _LOOK),
    Code("SET-MASK-WHOLE", _W, "mask covers half the brain", _LOOK),
    Code("SET-MASK-MIRROR", _W, "the mask may be mirrored", _LOOK),
    Code("SET-MASK-DARK", _W, "FLAIR is darker inside the mask than outside", _LOOK),
    # Tables
    Code("TAB-MISSING", _E, "no participants.tsv", "add one, with one row a subject"),
    Code("TAB-EMPTY", _E, "table without rows", "add one row a subject"),
    Code("TAB-NOT-TEXT", _E, "not a text file", "save it as text, separated by tabs"),
    Code("TAB-ENCODING", _E, "not UTF-8", "save it as UTF-8"),
    Code("TAB-DELIMITER", _E, "delimiter does not match the file name", "separate by tabs in "
         ".tsv, by commas in .csv"),
    Code("TAB-QUOTES", _E, "a quotation mark is not closed", "close or remove it"),
    Code("TAB-COLUMN-TWICE", _E, "two columns of one name", "remove or rename one"),
    Code("TAB-NO-ID", _E, "no participant_id column", "name the column of ids participant_id"),
    Code("TAB-COLUMN-UNKNOWN", _N, "column that gliofed does not read", "nothing"),
    Code("TAB-COLUMN-ALIKE", _W, "unread column with a name like a known one", "rename it as in "
         "the documentation, if it has the same meaning"),
    Code("TAB-COLUMN-PRIVATE", _W, "column of names, birth dates or numbers", "remove it"),
    Code("TAB-ROW-LENGTH", _E, "row and header differ in length", "correct the row"),
    Code("TAB-ID-EMPTY", _E, "row without id", "add the id, or remove the row"),
    Code("TAB-ID-FORM", _E, "id is not sub- with letters and digits", "write it as its folder"),
    Code("TAB-ID-TWICE", _E, "one id in two rows", "keep one row a subject"),
    Code("TAB-PATIENT-TWICE", _W, "two ids that differ only in spelling", "keep one if they are "
         "one patient"),
    Code("TAB-PATIENT-SITES", _W, "one id at two hospitals", "keep one if they are one patient"),
    Code("TAB-NO-ROW", _E, "images without a row", "add a row; labels may be n/a"),
    Code("TAB-NO-CASE", _N, "row without images", "nothing, or add the images"),
    Code("TAB-VALUE", _E, "unknown value of a marker", "write a documented value, or n/a"),
    Code("TAB-AGE", _E, "impossible or unreadable age", "write years, or n/a"),
    Code("TAB-CHILD", _N, "patient under 18", "check that the glioma is of adult type"),
    Code("TAB-SEX", _E, "unreadable sex", "write F, M or n/a"),
    Code("TAB-DATE", _W, "cell holds a date", "remove it, or write an age"),
    Code("TAB-CODEL-WILDTYPE", _W, "1p/19q co-deletion with IDH-wildtype", "check both tests: WHO "
         "2021 has no such type"),
    Code("TAB-CODEL-GRADE", _W, "1p/19q co-deletion with grade 4", "check both: oligodendroglioma "
         "is grade 2 or 3"),
    Code("TAB-ONE-CLASS", _N, "marker with one class only", "nothing"),
)  # fmt: skip

BY_ID: Final[Mapping[str, Code]] = {c.id: c for c in CODES}
