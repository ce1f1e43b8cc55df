"""Commands for a federation: kits, processes, commands of the lead, approval, audit."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

import gliofed
from gliofed.cli import options
from gliofed.cli.kits import kit
from gliofed.cli.terminal import TerminalProgress, needs_extra, one_line_errors
from gliofed.runtime.processes import end_with_starter

if TYPE_CHECKING:
    from gliofed import RunStatus

GROUP: Final = "Federation"
GOES_ON: Final = "the same command goes on"
NEEDS_A_PERSON: Final = 78
"""EX_CONFIG of sysexits.h. A service that ends with it is not started again."""

LeadKit = Annotated[Path, typer.Option(help="The lead's kit.")]

federation = typer.Typer(
    no_args_is_help=True,
    help="Try a federation on this machine, or have the sites of one test a model.",
)
audit = typer.Typer(no_args_is_help=True, help="Check and read the audit logs of a federation.")


def add_to(app: typer.Typer) -> None:
    """Register the commands of this group."""
    for command in (
        provision,
        serve,
        join,
        approve,
        start,
        extend,
        status,
        stop,
        withdraw,
        readmit,
    ):
        app.command(rich_help_panel=GROUP)(command)
    app.add_typer(kit, name="kit", rich_help_panel=GROUP)
    app.add_typer(audit, name="audit", rich_help_panel=GROUP)
    app.add_typer(federation, name="federation", rich_help_panel=GROUP)


def provision(
    federation: Annotated[Path, typer.Argument(help="The federation file (TOML).")],
    out: Annotated[Path, typer.Option(help="Folder of the kits.")],
) -> None:
    """Make a start-up kit for the server, the lead and each hospital of a federation.

    Run it again with more sites in the file: only theirs are made, for the same federation.
    """
    after = "no kit was made; the same command starts again"
    with one_line_errors(after), needs_extra("federation"):
        kits = gliofed.provision(federation, out)
        for name in kits.made:
            typer.echo(f"made {kits.out / name}")
        for name in kits.kept:
            typer.echo(f"unchanged: {name}, made before")
        typer.echo(
            "Hand over each kit separately, over a channel that only its receiver can read. "
            f"Keep {kits.out / 'authority'} private: its owner can make a kit for any name."
        )


def serve(kit: Annotated[Path, typer.Argument(help="The server's kit.")]) -> None:
    """Run a federation's server, in the foreground, until interrupted."""
    end_with_starter()
    with one_line_errors(after=GOES_ON), needs_extra("federation"):
        typer.echo("serving; Ctrl-C ends it")
        gliofed.serve(kit, lambda line: typer.echo(line, err=True))


def join(
    kit: Annotated[Path, typer.Argument(help="This hospital's kit.")],
    data: Annotated[Path, typer.Option(help="Folder of the hospital's data set.")],
    store: Annotated[Path, typer.Option(help="Folder of its prepared cases.")],
    format_id: options.DatasetFormat = "bids",
    study: Annotated[
        Path | None, typer.Option(help="The study, where the kit proposes none.")
    ] = None,
    approval: Annotated[
        Path | None, typer.Option(help="An approval of this study, signed elsewhere.")
    ] = None,
    who: options.Who = "",
    yes: options.Yes = False,
) -> None:
    """Join a federation: check the data, read what a study does with it, approve, take part.

    Runs in the foreground until interrupted. The hospital opens no port. Ends with status 78 where
    a person is needed before it can start: for the kit, the data, or the approval.
    """
    end_with_starter()
    with one_line_errors(after=GOES_ON, status=NEEDS_A_PERSON), needs_extra("federation"):
        with TerminalProgress() as progress:
            paths = gliofed.SiteDataPaths(data, store, format_id)
            proposal = gliofed.propose(kit, paths, study, progress)
        _show_consent(proposal.runs, "What leaves this hospital:", proposal.leaves)
        who = who or getpass.getuser()
        approved = proposal.agreed or approval is not None or yes
        if not approved and not _confirmed(f"Approve this as {who}?"):
            typer.echo("the study was not approved; nothing is sent", err=True)
            raise typer.Exit(NEEDS_A_PERSON)
    with one_line_errors(after=GOES_ON), needs_extra("federation"):
        typer.echo(f"taking part as {proposal.kit.name}; Ctrl-C ends it")
        gliofed.join(proposal, who, approval, lambda line: typer.echo(line, err=True))


def _confirmed(question: str) -> bool:
    """The answer to a question; False where nobody can answer, as in a service."""
    try:
        return typer.confirm(question)
    except typer.Abort:
        return False


def _show_consent(runs: tuple[str, ...], title: str, leaves: tuple[str, ...]) -> None:
    typer.echo("What runs at the site:")
    typer.echo("\n".join(f"  {line}" for line in runs))
    typer.echo(title)
    typer.echo("\n".join(f"  {line}" for line in leaves))


def approve(
    study: Annotated[Path | None, typer.Argument(help="The study file (TOML).")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File for the approval, or the approvals folder of a kit [default: approval.json]."
        ),
    ] = None,
    who: options.Who = "",
    key: Annotated[
        Path | None, typer.Option(help="Sign with this private key of an approver.")
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            help="The site's policy; the approval is for this policy alone [default: the policy "
            "of a new kit]."
        ),
    ] = None,
    new_key: Annotated[
        Path | None, typer.Option(help="Make an approver's key in this file, and nothing else.")
    ] = None,
    yes: options.Yes = False,
) -> None:
    """Read what a study runs and sends, and approve it on behalf of a hospital."""
    if (study is None) == (new_key is None):
        raise typer.BadParameter("give a study file to approve, or --new-key, and not both")
    with one_line_errors(after="the study was not approved"):
        if new_key is not None:
            public = gliofed.new_approver_key(new_key)
            typer.echo(
                f"wrote {new_key}: keep it secret, it signs approvals in your name\n"
                f"for approvers in a site's policy.toml: {public}"
            )
        elif study is not None:
            form = gliofed.consent(study, policy)
            rules = f"the policy {policy}" if policy else "the default policy; a site may differ"
            _show_consent(form.runs, f"What leaves it, under {rules}:", form.leaves)
            who = who or getpass.getuser()
            if not yes and not typer.confirm(f"Approve this as {who}?"):
                typer.echo("the study was not approved")
                raise typer.Exit(1)
            out = out or Path("approval.json")
            approval = gliofed.approve(form, who, out, key)
            target = out / f"{approval.study}.json" if out.is_dir() else out
            typer.echo(f"wrote {target} ({'signed' if approval.signature else 'not signed'})")


def start(
    study: options.StudyFile,
    kit: LeadKit,
    segment: Annotated[
        int, typer.Option("--rounds-per-job", help="Rounds of one job.", min=1)
    ] = 500,
    test_again: Annotated[
        bool,
        typer.Option("--test-again", help="Test and calibrate a complete run's model once more."),
    ] = False,
) -> None:
    """Run a study at the sites of a federation, from its last commit.

    Ends with status 1 where it could not be completed. The same command goes on later.
    """
    from gliofed.cli.screens.federation import StatusLines, show_status

    end_with_starter()
    after = "the present job continues to its end; the same command resumes"
    with one_line_errors(after), needs_extra("federation"):
        limits = gliofed.RetryLimits(rounds=segment)
        end = gliofed.start(study, kit, StatusLines(kit).show, limits, test_again)
        show_status(end)
        if end.state not in ("completed", "stopped"):
            typer.secho(f"{end.state}: {end.why}", fg="red", err=True)
            raise typer.Exit(1)


def extend(
    study: options.StudyFile,
    kit: LeadKit,
    epochs: Annotated[int, typer.Option(help="Passes over all cases, in all.", min=1)],
    out: Annotated[Path, typer.Option(help="The new study file.")],
) -> None:
    """Write the study that gives a finished run more rounds; every hospital approves it anew."""
    with one_line_errors(after="no study was written"), needs_extra("federation"):
        longer = gliofed.extend(study, kit, epochs, out)
        typer.echo(f"wrote {out}: it continues run {longer.federation.continues}")
        typer.echo(
            f"Send it to the hospitals, which join with --study {out.name} and approve it; then: "
            f"gliofed start {out} --kit {kit}"
        )


def status(
    kit: Annotated[Path, typer.Argument(help="The kit of the lead, the server or a hospital.")],
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it until the run is over; not at a hospital.")
    ] = False,
) -> None:
    """Show the state of a study: rounds, sites, seconds, bytes, losses, and missing sites.

    With a hospital's kit: its own rounds, seconds, failures and metrics.
    """
    from gliofed.cli.screens.federation import page_line, show_status, watch_status
    from gliofed.cli.screens.site import show_progress
    from gliofed.deployment.kit import open_any

    with one_line_errors(after="the run continues"), needs_extra("federation"):
        if open_any(kit).role == "site":
            if watch:
                raise typer.BadParameter("--watch is for the kit of the lead or of the server")
            show_progress(*gliofed.site_progress(kit))
        elif watch:
            watch_status(lambda: gliofed.status(kit))
        else:
            show_status(gliofed.status(kit))
            typer.echo(page_line(kit))


def stop(kit: Annotated[Path, typer.Argument(help="The lead's kit.")]) -> None:
    """Stop a study after its present round; `gliofed start` resumes it."""
    with one_line_errors(), needs_extra("federation"):
        run = gliofed.stop(kit)
        if run.model:
            typer.echo(f"{run.study} stops after its present job")
            return
        typer.echo(f"{run.study} stops after its present round; {run.done} are committed")


def withdraw(
    site: Annotated[str, typer.Argument(help="The site's name.")],
    kit: LeadKit,
) -> None:
    """Exclude a site from the next round on; `gliofed readmit` takes it back."""
    with one_line_errors(), needs_extra("federation"):
        run: RunStatus = gliofed.withdraw(kit, site)
        if run.model:
            typer.echo(f"{site} is excluded from the next request on")
            return
        typer.echo(
            f"{site} is excluded from the next round on; the model still contains its updates of "
            f"rounds up to {run.done}"
        )
        if run.state == "completed":
            typer.echo("gliofed start writes the model card on the server again, without its name")


def readmit(
    site: Annotated[str, typer.Argument(help="The site's name.")],
    kit: LeadKit,
) -> None:
    """Take the withdrawal of a site back."""
    with one_line_errors(), needs_extra("federation"):
        run: RunStatus = gliofed.readmit(kit, site)
        typer.echo(f"{site} takes part again from the next round on, once it is connected")
        if run.state == "completed" and not run.model:
            typer.echo("gliofed start writes the model card on the server again, with its name")


@federation.command("try")
def try_out(
    out: Annotated[Path, typer.Option(help="Folder of everything.")] = Path("federation"),
) -> None:
    """Try a federation: server, lead and four phantom hospitals, a process each, over TLS.

    It can be interrupted: the same command goes on from the last committed round.
    """
    with one_line_errors(after=GOES_ON), needs_extra("federation"):
        with TerminalProgress() as progress:
            end = gliofed.try_out(out, progress.line, progress)
        if end.state != "completed":
            raise typer.Exit(1)
        typer.echo(f"Kits, logs and audit logs of every party: {out}")


@federation.command("validate")
def validate(
    model: Annotated[Path, typer.Argument(help="The model folder.")],
    study: Annotated[
        Path, typer.Argument(help="The study of the validation; written where there is none yet.")
    ],
    kit: LeadKit,
    site: Annotated[
        list[str] | None,
        typer.Option(help="A site that takes part; give it once for each [default: all]."),
    ] = None,
    test_again: Annotated[
        bool, typer.Option("--test-again", help="Test once more what was tested before.")
    ] = False,
) -> None:
    """Have every site of a federation test a model on its own cases; nothing is trained.

    Without the file STUDY it is written, for the hospitals to approve. With it, the same command
    runs it, and goes on later. Ends with status 1 where it could not be completed.
    """
    from gliofed.cli.screens.federation import StatusLines, show_status

    end_with_starter()
    if not study.exists():
        with one_line_errors(after="no study was written"), needs_extra("federation"):
            written = gliofed.propose_validation(model, kit, study, site or ())
            typer.echo(
                f"wrote {study}: {', '.join(written.data.external)} test model "
                f"{written.federation.validates}\nSend it to the hospitals, which join with "
                f"--study {study.name} and approve it; then repeat this command"
            )
            return
    if site:
        raise typer.BadParameter(f"{study} names its sites already; leave out --site")
    after = "the present job continues to its end; the same command resumes"
    with one_line_errors(after), needs_extra("federation"):
        shown = StatusLines(kit).show
        end = gliofed.validate_at_sites(model, study, kit, shown, test_again)
        show_status(end)
        if end.state not in ("completed", "stopped"):
            typer.secho(f"{end.state}: {end.why}", fg="red", err=True)
            raise typer.Exit(1)


@audit.command()
def verify(
    log: Annotated[Path, typer.Argument(help="The audit log.")],
    against: Annotated[
        Path | None,
        typer.Option(
            help="The other side's log: the server's for a site, a site's for the server."
        ),
    ] = None,
    site: Annotated[
        str, typer.Option(help="The name under which --against noted this log's heads.")
    ] = "",
) -> None:
    """Check that no line of a log was changed, dropped, added or moved since it was written.

    Ends with status 0 where it is sound, 1 where it is not.
    """
    from gliofed.cli.screens.federation import verdict_lines

    if (against is None) != (not site):
        raise typer.BadParameter("--against and --site go together")
    with one_line_errors():
        verdict = gliofed.verify_log(log, against, site)
        typer.echo("\n".join(verdict_lines(log, verdict)))
    sys.exit(0 if verdict.sound else 1)


@audit.command()
def show(log: Annotated[Path, typer.Argument(help="The audit log.")]) -> None:
    """Print the lines of a log up to the first fault."""
    from gliofed.cli.screens.federation import log_line

    with one_line_errors():
        for line in gliofed.read_log(log):
            typer.echo(log_line(line))
