"""Coverage-guided fuzzing of the readers of all messages between server and sites.

    pip install atheris
    PYTHONPATH=src:tests python fuzz/messages.py Update -max_total_time=600

The first argument is a key of `gliofed.federated.message_table.MESSAGES`, or "note". An input is
read as it is. If it has a header with a note, it is read again with the digest that fits it, as a
site that lies computes it. Half of the mutations are of one field. Any exception but UpdateError is
a finding, as is a peak of more than `MOST_MIB` above the start. Further arguments are libFuzzer's.
The peak is printed at the end.
"""

import atexit
import resource
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["gliofed"]):
    from made_up_messages import samples

    from gliofed.errors import UpdateError
    from gliofed.federated import wire

SHARED = Path("/dev/shm")
ROOT = Path(tempfile.mkdtemp(dir=SHARED if SHARED.is_dir() else None))
MOST_MIB = 512
NAME = sys.argv.pop(1)
SAMPLE = samples(ROOT)[NAME]


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


START_MIB = peak_mib()


def signed(data: bytes) -> bytes | None:
    """The same tensors and note with the digest that fits them; None where it has no such form."""
    with suppress(UpdateError, UnicodeEncodeError):
        header = wire._read_header(data)
        return wire.pack(wire._tensors(data), header.note)
    return None


def one(data: bytes) -> None:
    for message in (data, None if NAME == "note" else signed(data)):
        if message is not None:
            with suppress(UpdateError):
                SAMPLE.read(message)
    assert peak_mib() - START_MIB < MOST_MIB, f"{peak_mib():.0f} MiB"


ODD = (
    *(None, True, -1, 0, 1, 1.5, 1e31, 10**400, 2**63, float("nan"), float("inf")),
    *("", "idh", "x" * 300, "\ud800"),
    *([], {}, [[]], {"idh": None}, [0] * 300, [[0.5] * 3] * 3),
)


def change_field(value: object, random: Random) -> object:
    """The JSON value with one place in it replaced by an odd value, removed or doubled."""
    places = (
        sorted(value)
        if isinstance(value, dict)
        else range(len(value))
        if isinstance(value, list)
        else ()
    )
    if not places or random.random() < 0.2:
        return random.choice(ODD)
    at = random.choice(list(places))
    copied = dict(value) if isinstance(value, dict) else list(value)
    if random.random() < 0.1:
        del copied[at]
    elif random.random() < 0.1 and isinstance(copied, list):
        copied.append(copied[at])
    else:
        copied[at] = change_field(copied[at], random)
    return copied


def mutate(data: bytes, longest: int, seed: int) -> bytes:
    """Half of the time another field with a digest that fits it, else libFuzzer's mutation."""
    if NAME != "note" and seed % 2:
        with suppress(UpdateError, UnicodeEncodeError):
            header = wire._read_header(data)
            note = change_field(header.note, Random(seed))
            if isinstance(note, dict):
                return wire.pack(wire._tensors(data), note)[:longest]
    return atheris.Mutate(data, longest)


if __name__ == "__main__":
    corpus = ROOT / "corpus"
    corpus.mkdir()
    (corpus / "valid").write_bytes(SAMPLE.data)
    atexit.register(lambda: print(f"peak {peak_mib():.0f} MiB, {START_MIB:.0f} at the start"))
    atheris.Setup(
        [*sys.argv, f"-max_len={2 * len(SAMPLE.data) + 4096}", str(corpus)],
        one,
        custom_mutator=mutate,
    )
    atheris.Fuzz()
