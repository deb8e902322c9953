"""Signals while training: the first is a request, a second SIGINT or SIGTERM ends at once, SIGHUP may come twice."""

import signal

import pytest

from train.loop.interrupt import catch_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_a_request(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with catch_signals() as request:
        signal.raise_signal(number)
        assert request.signal_name == number.name
        signal.raise_signal(signal.SIGHUP)  # a closed terminal
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(number) is before


def test_under_nohup_a_closed_terminal_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with catch_signals() as request:
            signal.raise_signal(signal.SIGHUP)
            assert request.signal_name is None
    finally:
        signal.signal(signal.SIGHUP, before)
