"""Votes to strengths with intervals, exact tests, and a verdict."""
