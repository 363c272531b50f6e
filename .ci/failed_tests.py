# SPDX-License-Identifier: MIT
"""Names the tests of a testlog.json of meson's that did not pass, each with the tail of what it printed."""

import json
import sys

TAIL_LINES = 40

for line in open(sys.argv[1], encoding="utf-8"):
    test = json.loads(line)
    if test["result"] == "OK":
        continue
    print(f"--- {test['result']}: {test['name']} ({test['duration']:.0f} s)")
    said = (test.get("stdout") or "") + (test.get("stderr") or "")
    print("\n".join(said.splitlines()[-TAIL_LINES:]))
