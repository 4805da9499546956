"""Compares two reports of autobahn.py, but for some cases; prints each difference and exits 1 if
there is one."""

import json
import sys

if len(sys.argv) < 3:
    sys.exit("usage: compare.py A.json B.json [CASE...]")
a, b = (json.load(open(path)) for path in sys.argv[1:3])
for report in (a, b):
    for case in sys.argv[3:]:
        del report["cases"][case]
differences = [
    f"{key}: {a.get(key)!r} | {b.get(key)!r}"
    for key in sorted((a.keys() | b.keys()) - {"cases"})
    if a.get(key) != b.get(key)
]
for case in sorted(a["cases"].keys() | b["cases"].keys(), key=lambda c: [*map(int, c.split("."))]):
    one, other = (r["cases"].get(case) for r in (a, b))
    if one is None or other is None:
        differences.append(f"{case}: only in {sys.argv[2] if one is None else sys.argv[1]}")
        continue
    for key in sorted(one.keys() | other.keys()):
        if one.get(key) != other.get(key):
            differences.append(f"{case} {key}: {one.get(key)!r} | {other.get(key)!r}")
print("\n".join(differences) or f"equal: {len(a['cases'])} cases")
sys.exit(1 if differences else 0)
