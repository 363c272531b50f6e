#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""rooms.py ROOT RULES: fails with every #include under runtime/ and include/ that RULES does not allow.

RULES has two kinds of lines. `room: path ...` says which files belong to a room: a path that ends with / is a folder, any other
is a header without its extension. `room < room ...` says what a room may include besides itself. # begins a comment."""
import pathlib
import re
import sys

INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"]+)"|<(tokengate/[^>]+)>)', re.MULTILINE)


def read_rules(path):
    homes, allowed = {}, {}
    for line in path.read_text().splitlines():
        line = line.split("#")[0].strip()
        if ":" in line:
            room, paths = line.split(":")
            homes.update((each, room.strip()) for each in paths.split())
        elif "<" in line:
            room, below = line.split("<")
            allowed[room.strip()] = {room.strip(), *below.split()}
    unknown = {room for below in allowed.values() for room in below} - set(homes.values())
    if unknown:
        sys.exit(f"{path}: no path belongs to {', '.join(sorted(unknown))}")
    return homes, allowed


def room_of(file, homes):
    stem = file.rsplit(".", 1)[0]
    if stem in homes:
        return homes[stem]
    folders = [each for each in homes if each.endswith("/") and file.startswith(each)]
    return homes[max(folders, key=len)] if folders else None


def main(root, rules):
    homes, allowed = read_rules(rules)
    faults, edges = [], 0
    files = [each for top in ("include", "runtime") for each in (root / top).rglob("*") if each.suffix in (".hpp", ".cpp")]
    for path in sorted(files):
        file = path.relative_to(root).as_posix()
        room = room_of(file, homes)
        if room is None:
            faults.append(f"{file} is in no room")
            continue
        for match in INCLUDE.finditer(path.read_text()):
            places = [path.parent / match[1], root / "runtime" / match[1]] if match[1] else [root / "include" / match[2]]
            found = next((each for each in places if each.is_file()), None)
            if not found:
                faults.append(f"{file} includes {match[1] or match[2]}, which is not there")
                continue
            target = found.relative_to(root).as_posix()
            edges += 1
            below = room_of(target, homes)
            if room in allowed and below not in allowed[room]:
                faults.append(f"{file} ({room}) includes {target} ({below})")
    print(*faults, sep="\n", end="\n" if faults else "")
    print(f"{len(files)} files, {edges} includes, {len(faults)} against the rule")
    return 1 if faults or not edges else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])))
