"""Runs the Autobahn TestSuite's cases against a server and writes what came of each.

The report holds outcomes only, no times, so that the one of a server directly and the
one of the same server through the gateway can be compared by compare.py.
"""

import argparse
import asyncio
import hashlib
import json
import sys
import time
from collections import Counter
from importlib.metadata import version

from kosoku import FailureError, run_fuzzingclient
from kosoku.cases import CASES


def default_selection(case):
    """All of 1 to 10; of 12 and 13 (216 cases, 1000 compressed messages each, minutes in
    all) the smallest of each group, for the gateway sees only bytes there."""
    parts = case.split(".")
    return parts[0] not in ("12", "13") or parts[-1] == "1"


def outcome(result):
    # repr, not a picture of our own: text and binary stay apart, whatever kosoku holds them as.
    received = hashlib.sha256(repr(result.received).encode("utf-8", "surrogatepass")).hexdigest()
    return {
        "behavior": result.behavior.value,
        "behaviorClose": result.behavior_close.value,
        "result": result.result,
        "resultClose": result.result_close,
        "received": f"{len(result.received or [])} events, sha256 {received[:16]}",
        "remoteCloseCode": result.remote_close_code,
        "remoteCloseReason": result.remote_close_reason,
        "wasClean": result.was_clean,
        "closedByMe": result.closed_by_me,
        "failedByMe": result.failed_by_me,
        "droppedByMe": result.dropped_by_me,
    }


def overlook_pings():
    """A case takes every event for one of the server's, and none expects a Ping: those of the
    gateway are counted and not shown to it; kosoku answers them. Returns the count, in a list."""
    count = [0]

    def on_ping(_case, _payload):
        count[0] += 1

    for case in CASES.values():
        owner = next(kind for kind in case.__mro__ if "onPing" in vars(kind))
        owner.onPing = on_ping
    return count


async def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("url", help="ws://127.0.0.1:PORT/")
    args.add_argument("report", help="JSON file to write")
    args.add_argument("--all", action="store_true", help="all cases (minutes)")
    args.add_argument("--pinged", action="store_true", help="overlook Pings, but count them")
    args = args.parse_args()
    selected = [case for case in CASES if args.all or default_selection(case)]
    left_out = [case for case in CASES if case not in set(selected)]
    pings = overlook_pings() if args.pinged else [0]
    start = time.monotonic()
    try:
        results = await run_fuzzingclient(args.url, selected, concurrency=2)
    except FailureError as failure:
        # A server's own failures are part of its report: the comparison judges, not this run.
        results = failure.results
    cases = {result.case_id: outcome(result) for result in results}
    if missing := [case for case in selected if case not in cases]:
        sys.exit(f"no result for {missing}")
    with open(args.report, "w") as file:
        report = {"kosoku": version("kosoku"), "cases": cases, "left_out": left_out}
        json.dump(report, file, indent=1)
    verdicts = Counter(f"{c['behavior']} / {c['behaviorClose']}" for c in cases.values())
    print(json.dumps({
        "url": args.url, "cases": len(cases), "left_out": len(left_out), "verdicts": verdicts,
        "pings": pings[0],
        "failed": [result.case_id for result in results if not result.passed],
        "seconds": round(time.monotonic() - start, 1),
    }))
    # Nothing answered at all: two such reports are equal, and worth nothing.
    if not any(c["behavior"] == "OK" for c in cases.values()):
        sys.exit(f"no case passed at {args.url}: is a server there?")


asyncio.run(main())
