"""One session with Orthanc, run in a network namespace of its own: it listens on every address.

    unshare -rn python tests/orthanc_session.py SOURCE WORK [MODEL]

sends SOURCE by C-STORE, then takes it in by DICOMweb into WORK/web and by C-STORE from Orthanc into
WORK/sent; WORK/key is the key. With a model's folder, it also answers the study, in WORK/answers.
Prints one line of JSON.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.sop_class import MRImageStorage

import gliofed
from gliofed.errors import DataError
from gliofed.runtime.progress import NoProgress

PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
ADDRESS = "http://127.0.0.1:8042/dicom-web"
LOGIN = "reader:se:cret"


def main(source: Path, work: Path, model: Path | None) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    config = {
        "StorageDirectory": str(work / "store"), "IndexDirectory": str(work / "store"), "Plugins": [PLUGIN],
        "DicomPort": 4242, "HttpPort": 8042, "RemoteAccessAllowed": False, "AuthenticationEnabled": True,
        "RegisteredUsers": {"reader": "se:cret"}, "DicomAlwaysAllowStore": True, "DicomCheckCalledAet": False,
        "DicomModalities": {"gliofed": ["GLIOFED", "127.0.0.1", 11112]},
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    (work / "orthanc.json").write_text(json.dumps(config))
    server = subprocess.Popen(
        ["/usr/sbin/Orthanc", str(work / "orthanc.json")],
        stdout=(work / "orthanc.log").open("wb"), stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        wait()
        print(json.dumps(talk(source, work, model)))
    finally:
        server.terminate()
        server.wait()


def ask(path: str, body: object = None):
    request = urllib.request.Request(f"http://127.0.0.1:8042{path}")
    request.add_header("Authorization", "Basic " + base64.b64encode(LOGIN.encode()).decode())
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(request, data, timeout=60) as answer:
        return json.loads(answer.read())


def wait() -> None:
    for _ in range(300):
        try:
            ask("/system")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("Orthanc did not start")


def listening() -> None:
    """Wait for this process's own DICOM port; a connection to try it would count as one."""
    for _ in range(300):
        ports = psutil.Process().net_connections("inet")
        if any(c.laddr.port == 11112 and c.status == psutil.CONN_LISTEN for c in ports):
            return
        time.sleep(0.1)
    raise RuntimeError("the receiver does not listen")


def talk(source: Path, work: Path, model: Path | None) -> dict[str, object]:
    files = [p for p in sorted(source.rglob("*")) if p.is_file()]
    entity = AE(ae_title="SCANNER")
    entity.add_requested_context(MRImageStorage, dcmread(files[0]).file_meta.TransferSyntaxUID)
    link = entity.associate("127.0.0.1", 4242, ae_title="ORTHANC")
    stored = [link.send_c_store(dcmread(p)).Status for p in files]
    link.release()
    head = dcmread(files[0], stop_before_pixels=True)
    secret = work / "secret"
    secret.write_text(LOGIN)
    secret.chmod(0o600)
    key = work / "key"
    out: dict[str, object] = {"stored": stored}
    asked = {
        "web": gliofed.DicomWebServer(studies=(head.StudyInstanceUID,), secret_file=secret),
        "again": gliofed.DicomWebServer(patient=head.PatientID, secret_file=secret),
        "unknown": gliofed.DicomWebServer(patient="nobody", secret_file=secret),
        "wild": gliofed.DicomWebServer(patient="*", secret_file=secret),
        "whole": gliofed.DicomWebServer(secret_file=secret),
        "locked": gliofed.DicomWebServer(studies=(head.StudyInstanceUID,)),
    }
    for name, pacs in asked.items():
        try:
            out[name] = gliofed.intake(
                gliofed.IngestRequest(ADDRESS, work / name, key=key, pacs=pacs), NoProgress()
            ).status
        except DataError as error:
            out[name] = str(error)
    if model is not None:
        cases = gliofed.predict(
            ADDRESS, work / "answers", gliofed.PredictOptions(model, server=asked["web"])
        )
        out["answers"] = [case.status for case in cases]
    thread = threading.Thread(
        target=gliofed.receive,
        args=(work / "got", gliofed.ListenAddress(11112, peers=("ORTHANC",), idle=2.0)),
    )
    thread.start()
    listening()
    ask("/modalities/gliofed/store", ask("/series"))
    thread.join()
    out["sent"] = gliofed.intake(
        gliofed.IngestRequest(str(work / "got"), work / "sent", key=key), NoProgress()
    ).status
    return out


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
