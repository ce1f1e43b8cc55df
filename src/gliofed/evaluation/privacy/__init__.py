"""What attacks on models and updates find out, measured from arrays alone; no network here."""
