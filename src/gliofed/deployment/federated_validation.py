"""The lead's commands for a validation between hospitals: write its study, and run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from gliofed.deployment.kit import open_kit
from gliofed.deployment.lead import supervise
from gliofed.deployment.run_status import RunStatus
from gliofed.deployment.supervisor import StartOptions
from gliofed.deployment.validated_model import check_validated, validation_study
from gliofed.errors import StudyError
from gliofed.models.folder import check_steps, model_files, read_model
from gliofed.runtime.files import write_text
from gliofed.study import Study, load_study, study_toml


def propose_validation(model: Path, kit: Path, out: Path, sites: Sequence[str] = ()) -> Study:
    """Write the study in which the sites of a federation test a model, for them to approve.

    kit: the lead's. out: the new study file. sites: all of the kit by default. Raises KitError;
    ModelError as `read_model` does; StudyError where `out` exists or the federation has no such
    site.
    """
    lead_kit = open_kit(kit, "lead")
    if unknown := sorted(set(sites) - set(lead_kit.sites)):
        raise StudyError(
            f"the federation has no site {unknown[0]!r}; it has {', '.join(lead_kit.sites)}"
        )
    if out.exists():
        raise StudyError(f"{out}: exists; choose another name for the study of the validation")
    given = read_model(model)
    check_steps(given)
    study = validation_study(given, sites or lead_kit.sites)
    write_text(out, study_toml(study))
    return study


def validate_at_sites(
    model: Path,
    study: Path,
    kit: Path,
    on_status: Callable[[RunStatus], None] = lambda status: None,
    test_again: bool = False,
) -> RunStatus:
    """Have the sites of `study` test `model`, which is not changed; the last status.

    on_status: called with the status whenever it changes. test_again: test once more where the
    validation is complete. Raises as `gliofed.deployment.lead.start`, and ModelError where the
    study is for another model.
    """
    proposed = load_study(study)
    if not proposed.federation.validates:
        raise StudyError(
            f"{study}: trains a model (it has no federation.validates); run gliofed start {study}, "
            "or give a new file name, to write the study of a validation"
        )
    check_validated(proposed, read_model(model))
    _, files = model_files(model)
    options = StartOptions(test_again=test_again, model=files)
    return supervise(proposed, kit, on_status, options)
