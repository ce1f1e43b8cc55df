"""The cohort table of a study, merged from each hospital's counts as in a federation."""

from __future__ import annotations

import csv
import io
import json

from gliofed.data.formats.registry import read_sites
from gliofed.federated.cohort.table import (
    CohortTable,
    count_cohort,
    merge_cohorts,
    pack_cohort,
    read_cohort,
)
from gliofed.study import Study

HIDDEN = "hidden"


def cohort_table(study: Study) -> CohortTable:
    """Check and merge the counts of every site; small ones are suppressed. No image is opened."""
    most = study.federation.max_cases
    sums = {s: pack_cohort(count_cohort(c), s) for s, c in read_sites(study.data).items()}
    return merge_cohorts({site: read_cohort(site, data, most) for site, data in sums.items()})


def cohort_csv(table: CohortTable) -> str:
    """One line a count; site `all` is the total of the sites shown."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("variable", "category", "site", "count"))
    for row in table.rows:
        count = HIDDEN if row.count is None else row.count
        writer.writerow((row.variable, row.category, row.site or "all", count))
    return out.getvalue()


def cohort_json(table: CohortTable) -> str:
    """The same as JSON; a suppressed count is null, as is the site of a total."""
    rows = [vars(row) for row in table.rows]
    table_values = {"sites": dict(table.sites), "left_out": table.left_out, "rows": rows}
    return json.dumps(table_values, indent=1) + "\n"
