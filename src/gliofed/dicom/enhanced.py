"""The attributes of each frame of an enhanced multi-frame MR image, under classic names.

Functional groups: DICOM PS3.3 C.7.6.16, those of MR C.8.13.5; what frames share: C.8.13.4 (pulse
sequence) and C.7.6.4b (contrast).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pydicom.dataset import Dataset

ENHANCED: Final = ("1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4")
"""Enhanced MR Image Storage, and Legacy Converted Enhanced MR Image Storage."""
_ECHOES: Final = {"SPIN": ("SE",), "GRADIENT": ("GR",), "BOTH": ("SE", "GR")}
_PLAIN: Final = ("MAGNITUDE", "UNKNOWN", "")


def as_classic(data: Dataset) -> Iterator[Dataset]:
    """For each frame the attributes of its groups, of the shared ones and of the image, flat.

    Empty where the image is not enhanced, or does not describe as many frames as it has. Private
    groups are not read.
    """
    frames = data.get("PerFrameFunctionalGroupsSequence") or []
    if data.get("SOPClassUID") not in ENHANCED or len(frames) != (data.get("NumberOfFrames") or 1):
        return
    common = _elements(data)
    for group in data.get("SharedFunctionalGroupsSequence") or []:
        common |= _attributes(group)
    agents = data.get("ContrastBolusAgentSequence") or []
    for group in frames:
        flat = Dataset(common | _attributes(group))
        _rename(flat)
        if agents:
            _tell_agent(flat, agents)
        yield flat


def _elements(data: Dataset) -> dict[Any, Any]:
    """Elements as read from the file: an unused damaged element is not decoded."""
    return {tag: data.get_item(tag) for tag in list(data.keys())}


def _attributes(group: Dataset) -> dict[Any, Any]:
    """Those of the first item of each sequence in a functional group, which has but one."""
    public = [e for e in group if e.VR == "SQ" and not e.tag.is_private]
    found: dict[Any, Any] = {}
    for sequence in public:
        found |= _elements(sequence.value[0]) if sequence.value else {}
    return found | {s.tag: s for s in public if s.keyword == "ContrastBolusUsageSequence"}


def _rename(flat: Dataset) -> None:
    """Enhanced attributes that classic images have under another name or in another form."""
    image_types = (_upper(flat, n) for n in ("ComplexImageComponent", "AcquisitionContrast"))
    if "FrameType" in flat:
        flat.ImageType = [*_many(flat, "FrameType"), *(t for t in image_types if t not in _PLAIN)]
    if "EffectiveEchoTime" in flat:
        flat.EchoTime = _decimal(flat.EffectiveEchoTime)
    inversion = _upper(flat, "InversionRecovery")
    times = _many(flat, "InversionTimes")
    if inversion == "NO":
        flat.InversionTime = None
    elif times:
        flat.InversionTime = _decimal(times[0])
    if "EchoPulseSequence" in flat:
        planar = _upper(flat, "EchoPlanarPulseSequence") == "YES"
        flat.ScanningSequence = [
            *_ECHOES.get(_upper(flat, "EchoPulseSequence"), ()),
            *(["EP"] if planar else []),
            *(["IR"] if inversion == "YES" else []),
        ]
    if "YES" in (_upper(flat, "TimeOfFlightContrast"), _upper(flat, "PhaseContrast")):
        flat.AngioFlag = "Y"
    if not flat.get("DiffusionBValue") and _upper(flat, "AcquisitionContrast") != "DIFFUSION":
        flat.DiffusionBValue = None  # some scanners write 0 for whatever is not diffusion


def _tell_agent(flat: Dataset, agents: Any) -> None:
    """Contrast as classic images have it; NONE where this frame was taken without."""
    usage = flat.get("ContrastBolusUsageSequence")
    used = {
        u.get("ContrastBolusAgentNumber")
        for u in usage or []
        if _upper(u, "ContrastBolusAgentAdministered") != "NO"
    }
    names = [
        str(a.get("CodeMeaning") or a.get("CodeValue") or "unnamed")
        for a in agents
        if usage is None or a.get("ContrastBolusAgentNumber") in used
    ]
    flat.ContrastBolusAgent = ", ".join(names) or "NONE"
    starts = [
        p.ContrastBolusStartTime
        for a in agents
        for p in a.get("ContrastAdministrationProfileSequence") or []
        if p.get("ContrastBolusStartTime")
    ]
    if starts:
        flat.ContrastBolusStartTime = min(starts)


def _many(data: Dataset, name: str) -> list[Any]:
    found = data.get(name)
    if found is None:
        return []
    return [found] if isinstance(found, str | float) else list(found)


def _upper(data: Dataset, name: str) -> str:
    return str(data.get(name) or "").upper()


def _decimal(number: float | None) -> str | None:
    """Within the 16 characters of a decimal string (PS3.5 6.2)."""
    return None if number is None else f"{number:.10g}"
