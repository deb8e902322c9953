"""Tests mirror the packages: tests/<room>/."""
