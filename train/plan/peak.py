"""Traces of memory, as the plans of training take them."""

from registry.budget.peak import Trace, backward, trace

__all__ = ["Trace", "backward", "trace"]
