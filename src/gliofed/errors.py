"""Every error that gliofed raises on purpose.

    GliofedError
    ├── StudyError        the study or federation file: unknown key, wrong type, contradiction
    ├── DataError         a data set: missing file or column, unreadable image, unknown label
    │   └── OverlapError  one patient at two hospitals, or in training and test
    ├── StoreError        a prepared store: damaged, or made by another recipe
    │   └── UnwritableError  its disk is full or write-protected
    ├── ModelError        a model folder: damaged, changed, or of an unknown format
    ├── CheckpointError   a run's saved state: damaged, of another study, or in use
    ├── UpdateError       an update refused by the gate before it is merged
    ├── QuorumError       too few sites sent an update that could be merged
    ├── PolicyError       a request that the hospital's policy forbids, or an unusable policy
    ├── ApprovalError     a study that is not approved, or an approval that does not fit it
    ├── AuditError        an audit log that was changed, or a field that it must not have
    ├── TransferError     a file that did not arrive complete between server and site
    │   └── LinkError     the lead cannot reach the server
    ├── KitError          a federation's kit: of another role, unsafe, expired or not made
    └── StoppedError      work that was stopped; what it had committed stays

A message says what is wrong, which case and file, what was expected, and how to cure it.
"""

from __future__ import annotations


class GliofedError(Exception):
    """The base class of all errors that gliofed raises."""


class StudyError(GliofedError):
    """The study file, or the federation file, cannot be used as written."""


class DataError(GliofedError):
    """A data set or one of its files cannot be used as found."""


class OverlapError(DataError):
    """One patient is at two sites, or in both training and test."""


class StoreError(GliofedError):
    """A prepared store is damaged or was made by another recipe."""


class UnwritableError(StoreError):
    """A store, or a folder beside it, cannot be written to."""


class UpdateError(GliofedError):
    """An update was refused; the message names the site and the failed check."""


class PolicyError(GliofedError):
    """The hospital's policy forbids a request, or its file cannot be used as written."""


class ApprovalError(GliofedError):
    """The hospital has not approved the study, or the approval does not fit it."""


class AuditError(GliofedError):
    """An audit log was changed, or a field is not allowed in one."""


class ModelError(GliofedError):
    """A model folder cannot be used."""


class CheckpointError(GliofedError):
    """A run's saved state cannot be continued."""


class TransferError(GliofedError):
    """A file did not arrive complete from the other side."""


class LinkError(TransferError):
    """The lead cannot reach the server."""


class StoppedError(GliofedError):
    """The work was stopped; what it had committed stays."""


class QuorumError(GliofedError):
    """Too few sites responded for a round to be committed."""


class KitError(GliofedError):
    """A start-up kit cannot be used, or could not be made."""
