"""A few lines of test harness: named cases, one after the other, counted at the end."""

import asyncio
import inspect
import os
import sys
import time
import traceback

_cases = []


def case(body):
    """Registers a case; its name is the function's."""
    _cases.append(body)
    return body


def until(probe, what, timeout=60.0):
    """Waits until `probe` is true and returns its value."""
    end = time.monotonic() + timeout
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"timed out: {what}")
        time.sleep(0.02)


async def until_async(probe, what, timeout=60.0):
    """`until` for an async program."""
    end = time.monotonic() + timeout
    while True:
        value = probe()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"timed out: {what}")
        await asyncio.sleep(0.02)


def raises(kinds, call):
    """The exception of one of `kinds` that `call` raises."""
    try:
        call()
    except kinds as error:
        return error
    raise AssertionError(f"no {kinds}")


async def raises_async(kinds, awaitable):
    """`raises` for an async program."""
    try:
        await awaitable
    except kinds as error:
        return error
    raise AssertionError(f"no {kinds}")


def _report(name, start, error):
    took = (time.monotonic() - start) * 1000
    name = name.replace("_", " ")
    if error is None:
        print(f"ok      {name} ({took:.0f} ms)", flush=True)
        return 0
    text = "".join(traceback.format_exception(error)).replace("\n", "\n        ")
    print(f"not ok  {name}\n        {text}", flush=True)
    return 1


def _leave(failed):
    """Ends without the interpreter's tear-down: the client's native threads may still run, and
    some of its releases abort when they meet a half-gone interpreter."""
    sys.stdout.flush()
    os._exit(1 if failed else 0)


def run(clean_up=lambda: None):
    """Runs the registered cases, cleans up, exits with 1 if one failed."""
    failed = 0
    for body in _cases:
        start, error = time.monotonic(), None
        try:
            body()
        except Exception as raised:
            error = raised
        failed += _report(body.__name__, start, error)
    clean_up()
    print(f"{len(_cases) - failed} of {len(_cases)} cases passed")
    _leave(failed)


def run_async(set_up=None, clean_up=None):
    """The same for async cases; each gets what `set_up` gave, where there is one."""

    async def main():
        failed = 0
        fixture = [await set_up()] if set_up else []
        for body in _cases:
            start, error = time.monotonic(), None
            try:
                await body(*fixture)
            except Exception as raised:
                error = raised
            failed += _report(body.__name__, start, error)
        if clean_up:
            await clean_up(*fixture)
        print(f"{len(_cases) - failed} of {len(_cases)} cases passed")
        return failed

    _leave(asyncio.run(main()))
