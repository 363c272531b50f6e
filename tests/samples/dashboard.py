#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The dashboard shows its load, lets only those who know the token turn its gate, and ends with 0, also when it is paused.

dashboard.py PROGRAM
"""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

SECRET = "0123456789abcdef" * 2
PATIENCE = 60


class Dashboard:
    def __init__(self, *options, **how):
        self.process = subprocess.Popen([sys.argv[1], "--port", "0", "--cores", "2", *options], text=True,
                                        stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": folder}, **how)
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http://127.0.0.1:"), self.url

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=PATIENCE) as answer:
            return answer.read().decode()

    def snapshot(self):
        return json.loads(self.get("snapshot.json"))

    def operation(self, name):
        return {one["operation"]: one for one in self.snapshot()["operations"]}.get(name)

    def turn(self, action, operation, token=SECRET):
        """The status, and what the console says."""
        headers = {"Authorization": "Bearer " + token} if token else {}
        body = json.dumps({"operation": operation}).encode()
        request = urllib.request.Request(self.url + "gate/" + action, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, json.loads(refused.read())

    def started(self, name):
        return self.operation(name)["started"]

    def runs_on(self, name):
        before = self.started(name)
        until(lambda: self.started(name) > before, f"{name} runs on")

    def end(self, by=signal.SIGTERM):
        if by:
            self.process.send_signal(by)
        status = self.process.wait(PATIENCE)
        assert status == 0, f"it ended with {status}"
        left = os.listdir(folder)
        assert left == [], f"it left {left}"


def until(true, what):
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"it did not come: {what}"
        time.sleep(0.05)


def refused(*options):
    ended = subprocess.run([sys.argv[1], "--port", "0", *options], capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 2 and ended.stdout == "", ended
    return ended.stderr


def shows_its_load(running):
    assert "<title>TokenGate</title>" in running.get("")
    expected = {"crunch", "transform", "sort", "hash", "visit", "import_batch", "parse", "index_row", "write_note",
                "write_page", "write_archive", "fetch", "charge", "guess"}
    until(lambda: expected <= {one["operation"] for one in running.snapshot()["operations"]}, "all operations")
    until(lambda: running.operation("guess")["failed"] > 0, "a failure")
    until(lambda: running.operation("fetch")["retries"] > 0, "a retry")
    until(lambda: running.operation("guess")["grade"] != "unknown", "a grade")
    assert "tokengate_operation_started_total{operation=\"hash\"" in running.get("metrics")
    assert json.loads(running.get("tokens.json"))["total"] > 0
    assert json.loads(running.get("trace.json"))["traceEvents"]


def is_turned(running):
    assert running.turn("pause", "sort", token="f" * 32)[0] == 401
    assert not running.operation("sort")["paused"]
    assert running.turn("pause", "nothing")[0] == 404

    assert running.snapshot()["held"] == 0
    status, answer = running.turn("pause", "sort")
    assert status == 200 and answer["changed"], answer
    assert running.operation("sort")["paused"]
    # What has passed the gate starts; then none does, while what comes is held, and others run on.
    until(lambda: running.snapshot()["held"] > 10, "held")
    until(lambda: stands_still(running, "sort"), "sort stands still")

    assert running.turn("resume", "sort")[0] == 200
    assert not running.operation("sort")["paused"]
    running.runs_on("sort")

    status, answer = running.turn("drain", "transform")
    assert status == 202, answer
    until(lambda: running.operation("transform")["paused"], "drained, and paused")
    assert running.turn("resume", "transform")[0] == 200
    running.runs_on("transform")


def stands_still(running, name):
    """While another has begun some."""
    before, other = running.started(name), running.started("hash")
    until(lambda: running.started("hash") > other + 10, "others run on")
    return running.started(name) == before


with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as apart:
    token_file = os.path.join(apart, "token")
    with open(token_file, "w") as file:
        file.write(SECRET + " \r\nand more\n")

    running = Dashboard("--token-file", token_file)
    try:
        shows_its_load(running)
        is_turned(running)
        running.turn("pause", None)
        until(lambda: running.snapshot()["paused"], "paused")
        running.end()
    finally:
        running.process.kill()

    running = Dashboard("--seconds", "1")  # read-only
    try:
        assert running.turn("pause", None, token=None)[0] == 403
        assert running.turn("pause", None)[0] == 403
        assert not running.snapshot()["controls"]
        running.end(by=None)
    finally:
        running.process.kill()

    running = Dashboard()
    try:
        running.end(signal.SIGINT)
    finally:
        running.process.kill()

    assert "cannot be read" in refused("--token-file", os.path.join(apart, "nowhere"))
    open(token_file, "w").close()
    assert token_file in refused("--token-file", token_file)
