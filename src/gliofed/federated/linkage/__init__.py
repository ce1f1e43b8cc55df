"""Record linkage: patients who are at two hospitals, found by keyed tokens."""
