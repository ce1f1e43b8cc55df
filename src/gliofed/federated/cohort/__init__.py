"""The cohort table: counts by site, merged from sums, small counts suppressed."""
