"""Readers of boot logs and the analysis of what they show."""
