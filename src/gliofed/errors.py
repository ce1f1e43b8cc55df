"""Every error that gliofed raises on purpose.

    GliofedError
    ├── StudyError        the study or federation file: unknown key, wrong kind, settings at odds
    ├── DataError         a data set: missing file or column, unreadable image, unknown label
    │   └── OverlapError  one patient on both sides of a line that must not be crossed
    ├── StoreError        a prepared store: damaged, or made by another recipe
    │   └── UnwritableError  its disk is full, or it may not be written to
    ├── UpdateError       an update refused by the gate before it is merged
    ├── ModelError        a model folder: damaged, changed, or of a format that is not known
    ├── CheckpointError   a run's saved state: damaged, or of another study
    ├── TransferError     a file between server and site that did not come through whole
    │   └── LinkError     the server does not answer the lead
    ├── StoppedError      work that was told to stop; what it had committed stays
    ├── QuorumError       too few sites gave an update that could be merged
    └── KitError          a federation's kit: of another role, unsafe, expired or not made

A message says what is wrong, which case and file, what was expected, and how to cure it.
"""

from __future__ import annotations


class GliofedError(Exception):
    """The root; catching it catches everything below."""


class StudyError(GliofedError):
    """The study file, or the federation file, cannot be used as written."""


class DataError(GliofedError):
    """A data set or one of its files cannot be used as found."""


class OverlapError(DataError):
    """One patient stands at two sites, or in both training and test."""


class StoreError(GliofedError):
    """A prepared store is damaged or was made by another recipe."""


class UnwritableError(StoreError):
    """A store, or a folder beside it, cannot be written to."""


class UpdateError(GliofedError):
    """An update was refused; the message names the site and the failed check."""


class PolicyError(GliofedError):
    """The hospital's policy forbids what was asked, or its file cannot be used as written."""


class ApprovalError(GliofedError):
    """A study, or the approval of one, is not what somebody at the hospital agreed to."""


class AuditError(GliofedError):
    """An audit log was changed behind gliofed's back, or a field has no place in one."""


class ModelError(GliofedError):
    """A model folder cannot be used as it lies there."""


class CheckpointError(GliofedError):
    """A run's saved state cannot be continued."""


class TransferError(GliofedError):
    """A file did not come through from the other side."""


class LinkError(TransferError):
    """The server does not answer the lead."""


class StoppedError(GliofedError):
    """The work was told to stop."""


class QuorumError(GliofedError):
    """Too few sites answered for a round to be committed."""


class KitError(GliofedError):
    """A start-up kit cannot be used as it lies there, or could not be made."""
