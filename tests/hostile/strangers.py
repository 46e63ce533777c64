#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Peers without any right, in a process of their own: strangers.py PORT LISTENER COUNT SOURCE SECONDS.

A quarter each sends garbage, drips a handshake (router) or header fields (controller) byte by byte, sends without end, stops in the
middle of a genuine handshake. Whoever is turned away comes again, for SECONDS; then nobody does, and the last line of output says in JSON
how many connections were made and how many the listener still kept open 15 seconds later. `flood PORT PATH COUNT SOURCE
SECONDS`: COUNT uploads of 1 GiB in chunks at a time; the status codes that they read, 0 where none came."""
import asyncio
import json
import os
import random
import ssl
import sys

RECORD = b"\x16\x03\x01\x40\x00" + b"\x01\x00\x3f\xfc" + b"\x00" * 16380
GIVE_UP_S = 15
OPEN = 0
MADE = 0


def context():
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname = False
    c.verify_mode = ssl.CERT_NONE
    return c


def client_hello(listener):
    c = context()
    c.set_alpn_protocols(["sally-edge/1" if listener == "router" else "sally-ctrl/1"])
    out = ssl.MemoryBIO()
    try:
        c.wrap_bio(ssl.MemoryBIO(), out).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


async def garbage(read, write, _):
    write.write(os.urandom(random.randrange(1, 8192)))


async def drip(read, write, listener):
    if listener == "controller":
        write.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ")
        piece = b"a"
    else:
        write.write(b"\x16\x03\x01\x02\x00\x01")
        piece = b"\x00"
    while not read.at_eof():
        write.write(piece)
        await write.drain()
        await asyncio.sleep(0.3)  # NOLINT(sally-sleep): how slow it is


async def endless(read, write, listener):
    piece = b"X-Field: " + b"a" * 1000 + b"\r\n" if listener == "controller" else RECORD
    if listener == "controller":
        write.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
    while not read.at_eof():
        write.write(piece)
        await write.drain()
        await asyncio.sleep(0.02)  # NOLINT(sally-sleep): how slow it is


async def half_open(read, write, listener):
    write.write(client_hello(listener))


KINDS = (garbage, drip, endless, half_open)


async def stranger(kind, port, listener, source, until):
    global OPEN, MADE
    loop = asyncio.get_running_loop()
    await asyncio.sleep(random.random())  # NOLINT(sally-sleep): they do not come at once
    over_tls = listener == "controller" and kind in (drip, endless)
    while loop.time() < until:
        try:
            read, write = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0), ssl=context() if over_tls else None), 5)
        except (OSError, TimeoutError, ssl.SSLError):
            await asyncio.sleep(0.3)  # NOLINT(sally-sleep): turned away, it comes again
            continue
        OPEN += 1
        MADE += 1
        attack = asyncio.create_task(kind(read, write, listener))
        try:
            while await read.read(65536):
                pass
        except (OSError, ssl.SSLError):
            pass
        OPEN -= 1
        attack.cancel()
        try:
            await attack
        except (asyncio.CancelledError, OSError, ssl.SSLError):
            pass
        write.transport.abort()
        await asyncio.sleep(0.3)  # NOLINT(sally-sleep): the next one of it


async def crowd(port, listener, count, source, seconds):
    until = asyncio.get_running_loop().time() + seconds
    all_of_them = [asyncio.create_task(stranger(KINDS[i % len(KINDS)], port, listener, source, until)) for i in range(count)]
    await asyncio.wait(all_of_them, timeout=seconds + GIVE_UP_S)
    print(json.dumps({"made": MADE, "left": OPEN}))


async def upload(port, path, source, answers):
    chunk = b"10000\r\n" + b"a" * 65536 + b"\r\n"
    for _ in range(100):
        try:
            read, write = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0), ssl=context()), 10)
            break
        except (OSError, TimeoutError, ssl.SSLError):
            await asyncio.sleep(0.2)  # NOLINT(sally-sleep): turned away, it comes again
    else:
        return answers.append("never connected")
    try:
        write.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range((1 << 30) // 65536):
            write.write(chunk)
            await write.drain()
            if read.at_eof():
                break
            await asyncio.sleep(0)  # NOLINT(sally-sleep): the others have their turn
    except (OSError, ssl.SSLError):
        pass
    try:
        status = (await asyncio.wait_for(read.read(100), 20)).split(b" ")
        answers.append(int(status[1]) if len(status) > 1 else 0)
    except (OSError, ssl.SSLError, TimeoutError, ValueError):
        answers.append(0)
    write.transport.abort()


async def flood(port, path, count, source, seconds):
    answers = []
    until = asyncio.get_running_loop().time() + seconds

    async def again():
        while asyncio.get_running_loop().time() < until:
            await upload(port, path, source, answers)
            await asyncio.sleep(0.2)  # NOLINT(sally-sleep): the next one of it

    await asyncio.gather(*(again() for _ in range(count)))
    print(json.dumps(answers))


if __name__ == "__main__":
    os.nice(19)
    if sys.argv[1] == "flood":
        asyncio.run(flood(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5], float(sys.argv[6])))
    else:
        asyncio.run(crowd(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], float(sys.argv[5])))
