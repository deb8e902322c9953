"""Listings that are filtered, sorted and counted by columns of the index: only the records that are shown are composed."""
