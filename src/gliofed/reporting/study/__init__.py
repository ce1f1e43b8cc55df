"""The results page and model card of a study, and the page of scored predictions."""
