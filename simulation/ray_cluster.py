"""Finds the Ray cluster that RAY_ADDRESS names, if it names one."""

import os
import socket

SECONDS_TO_CONNECT = 5.0


def cluster_address() -> str:
    """Give what RAY_ADDRESS says; nothing where Ray is to be started on this machine."""
    return os.environ.get("RAY_ADDRESS", "")


def knock(address: str) -> None:
    """Connect to HOST:PORT once, since Ray itself would try for minutes, and not even end on Ctrl-C meanwhile.

    An address without a port, such as ``auto``, is left to Ray.

    Raises
    ------
    OSError
        If nobody answers.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), SECONDS_TO_CONNECT).close()
