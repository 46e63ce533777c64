# SPDX-License-Identifier: Apache-2.0
"""Somebody honest beside the attacks."""
import socket
from contextlib import contextmanager
from multiprocessing import get_context

from harness import echo_server


@contextmanager
def healthy_flow(net, meter, *more):
    """An echo through the overlay, measured by `meter(socket, pipe, *more)` in a process of its own: attackers in this one do not slow it.
    Gives our end of the pipe and the device that dials."""
    server, device = net.device("server"), net.device("pump", ["sensors"])
    with echo_server() as target:
        net.expose(target, "plant", server, "#sensors")
        with socket.create_connection(("127.0.0.1", device.forward("plant"))) as s:
            s.settimeout(10)
            ours, theirs = get_context("fork").Pipe()
            process = get_context("fork").Process(target=meter, args=(s, theirs, *more), daemon=True)
            process.start()
            try:
                yield ours, device
            finally:
                process.kill()
                process.join()
