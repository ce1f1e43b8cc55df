"""The policy file of a new kit, with every default and what it means."""

from __future__ import annotations

from typing import Final

DEFAULT_POLICY_TOML: Final = """\
# Limits on what leaves this hospital. No study and no server can change them. The file is yours.
# gliofed reads it again whenever a study starts. If it changes after a study was approved, the
# study needs a new approval. A missing line has the value it has here.

# The site does not take part with fewer training cases than this. A model trained on a few
# patients may reproduce them.
min_cases = 10

# With federation.method = "synchronous", what leaves in a round is a gradient of a few training
# cases. A gradient of one patient reveals the patient's labels and much of the scan. With fewer
# cases than this, no gradient leaves: the site takes part in fewer rounds, with more cases in each.
min_batch = 4

# A count of cases from 1 to below this number does not leave; it is sent as 0. A count from which
# such a number could be derived is lowered. Labels of a class with so few cases are not used for
# training, since they could be read from what leaves. 5 suits partners bound by an agreement; the
# US Centers for Medicare and Medicaid Services require 11 for published tables.
smallest_count = 5

# Markers whose labels may be used. The labels of a marker that is not listed are unknown to
# training: they influence nothing that leaves.
markers = ["idh", "codel_1p19q", "mgmt", "grade"]

# Whether training statistics (sums over all cases) leave, once a pass over the cases or once a
# round. Without them the lead cannot see whether training goes well.
round_statistics = true

# Which figures may leave: "losses" and "dice" of training samples, "scores" of test cases.
metrics = ["losses", "dice", "scores"]

# How this site's patients may be compared with those of other sites, before training: by "id",
# by "image", both, or [] for not at all. Only keyed tokens leave; the server has no key for them.
# Without the comparison, a patient of this site may also be in another site's test.
overlap_by = ["id", "image"]

# The largest change of one round (L2 norm), as a share of the model's own norm. A larger change is
# not sent: training failed, or the change may reveal too much of a few cases.
max_change = 2.0

# The largest L2 norm of a gradient, with federation.method = "synchronous". Those of a network in
# training are mostly between 1 and 100. A larger one is not sent, for the same reasons.
max_gradient = 1000.0

# With federation.privacy = "secure-sum", the server learns sums over sites only. This site helps
# to open no sum of fewer sites than this. With two sites, each could compute the other's part.
min_sites = 3

# Studies with [privacy] add noise to every gradient, so that epsilon bounds what one patient's data
# can change in all that leaves. This is the largest epsilon at privacy_delta, over all studies
# together. What has been spent is in privacy-ledger.json beside this file. A smaller epsilon
# protects more. privacy_delta must stay below 1 / number of patients.
privacy_epsilon = 10.0
privacy_delta = 1e-5

# Whether a study without [privacy], whose gradients or weights leave without noise, is refused.
require_privacy = false

# Public keys of those who may approve a study. Make a key with: gliofed approve --new-key KEY
# Without a key, everyone who can use this kit can approve.
approvers = []
"""
