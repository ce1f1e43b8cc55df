"""Options of the verbs that may ask a PACS over DICOMweb."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Studies = Annotated[
    list[str] | None, typer.Option(help="DICOMweb: a StudyInstanceUID; may be repeated.")
]
Patient = Annotated[str, typer.Option(help="DICOMweb: a patient id.")]
SecretFile = Annotated[
    Path | None, typer.Option(help="DICOMweb: file of user:password or Bearer TOKEN.")
]
SecretName = Annotated[
    str, typer.Option(help="DICOMweb: environment variable that holds the same.")
]
Authority = Annotated[
    Path | None, typer.Option(help="DICOMweb: certificates of the server's authority.")
]
Plain = Annotated[bool, typer.Option("--plain", help="DICOMweb: allow http to another machine.")]
