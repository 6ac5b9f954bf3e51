"""Kept for installations whose command still starts here."""
