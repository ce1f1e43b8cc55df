"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

StudyFile: TypeAlias = Annotated[Path, typer.Argument(help="The study file (TOML).")]
RunStore: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="Folder of prepared cases [default: runs/<study file's name>/store]."),
]
DatasetFolder: TypeAlias = Annotated[Path, typer.Argument(help="The data set's folder.")]
DatasetFormat: TypeAlias = Annotated[
    str, typer.Option("--format", help="Its format: bids, ucsf_pdgm, upenn_gbm, tcga, ...")
]
SiteName: TypeAlias = Annotated[
    str, typer.Option(help="Name of the hospital [default: the folder's name].")
]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Who: TypeAlias = Annotated[str, typer.Option(help="Who approves [default: the login's name].")]

DicomStudies: TypeAlias = Annotated[
    list[str] | None, typer.Option(help="DICOMweb: a StudyInstanceUID; may be repeated.")
]
DicomPatient: TypeAlias = Annotated[str, typer.Option(help="DICOMweb: a patient id.")]
SecretFile: TypeAlias = Annotated[
    Path | None, typer.Option(help="DICOMweb: file of user:password or Bearer TOKEN.")
]
SecretVariable: TypeAlias = Annotated[
    str, typer.Option(help="DICOMweb: environment variable that holds the same.")
]
CertificateFile: TypeAlias = Annotated[
    Path | None, typer.Option(help="DICOMweb: certificates of the server's authority.")
]
PlainHttp: TypeAlias = Annotated[
    bool, typer.Option("--plain", help="DICOMweb: allow http to another machine.")
]
