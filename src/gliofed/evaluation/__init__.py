"""Scores with n and an interval: from predictions by case, or from the sums of sites."""
