# SPDX-License-Identifier: MIT
"""Tokens of TokenGate, seen from gdb: of a live process that it has stopped, or of a core file.

    (gdb) source tokengate.py
    (gdb) tokengate tokens              # every token alive: id, state, core, age, who awaits it, its domain
    (gdb) tokengate tokens --all        # and those that have ended and are kept by their handles
    (gdb) tokengate token 1099511627777 # one, by sequence or id: who awaits it up to the root, where it is suspended
    (gdb) tokengate runtimes            # runtimes and their executors

Nothing is called in the process and nothing is written. Ages count up to now, or up to the time of the core file.

It needs gdb 12 or later. The tokens need debug information of the program or of the library; cores (instead of
positions) and the runtimes need that of the library. Structures are read by the names of their fields, whatever their
layout is.
"""

import operator
import os
import re
import struct
import time

import gdb

NAMESPACE = "tokengate::detail::"
NOBODY = "-"
PROMISE_OFFSET = 2  # words: both compilers put the promise behind the two function pointers that start a frame
NO_POSITION = 0xFFFF
# What the debug information says of enumerators goes before these: it may leave out what the program does not name.
STATES = ("none", "created", "waiting", "admitted", "executing", "completed", "failed", "killed", "timeout")
ALIVE = {"created", "waiting", "admitted", "executing"}
IN_DOMAIN = 1
OWNERS = {0: "handle", 1: "handle", 2: "detached"}  # unclaimed, done, dropped


# ---- types -------------------------------------------------------------------------------------------------------


def type_of(name):
    try:
        found = gdb.lookup_type(name).strip_typedefs()
    except gdb.error:
        found = None
    if found is None or (found.code == gdb.TYPE_CODE_STRUCT and not found.fields()):
        raise gdb.GdbError(
            f"tokengate: there is no debug information of {name}: build the program or the library with -g, "
            "or install its debug symbols"
        )
    return found


def data_fields(kind):
    """Base classes and members; static members and empty bases take no place."""
    return [
        field
        for field in kind.fields()
        if hasattr(field, "bitpos") and not (field.is_base_class and not has_data(field.type.strip_typedefs()))
    ]


def has_data(kind):
    return kind.code not in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION) or bool(data_fields(kind))


def find_field(kind, name):
    """(offset, type) of a member, or of a base's member; None if there is none."""
    for field in data_fields(kind):
        if field.is_base_class:
            inherited = find_field(field.type.strip_typedefs(), name)
            if inherited:
                return field.bitpos // 8 + inherited[0], inherited[1]
        elif field.name == name:
            return field.bitpos // 8, field.type.strip_typedefs()
    return None


class Field:
    """Where a scalar lies in a structure: `Field("token_record", "sequence")`. What wraps it (relaxed, std::atomic, any
    class with a single member) is seen through."""

    def __init__(self, structure, *path):
        kind = type_of(NAMESPACE + structure)
        self.offset = 0
        for name in path:
            found = find_field(kind, name)
            if not found:
                raise gdb.GdbError(
                    f"tokengate: {kind} has no {name}: this script and the library are of different versions"
                )
            self.offset += found[0]
            kind = found[1]
        while kind.code == gdb.TYPE_CODE_STRUCT and len(data_fields(kind)) == 1:
            only = data_fields(kind)[0]
            self.offset += only.bitpos // 8
            kind = only.type.strip_typedefs()
        self.size = kind.sizeof
        self.type = kind

    def of(self, memory, at=0):
        """The value, in bytes that have been read, of the structure that begins at `at`."""
        begin = at + self.offset
        return int.from_bytes(memory[begin : begin + self.size], BYTE_ORDER)

    def at(self, address):
        """The value, in the process, of the structure at an address."""
        return int.from_bytes(read(address + self.offset, self.size), BYTE_ORDER)


FIELDS = {}  # for one command: programs and libraries may be loaded again between two


def field(structure, *path):
    key = (structure, *path)
    if key not in FIELDS:
        FIELDS[key] = Field(*key)
    return FIELDS[key]


BYTE_ORDER = "little"
WORD = struct.Struct("<Q")


def read(address, size):
    return gdb.selected_inferior().read_memory(address, size).tobytes()


def word_at(address):
    return WORD.unpack(read(address, 8))[0]


def text_at(address):
    return gdb.Value(address).cast(gdb.lookup_type("char").pointer()).string(errors="replace")


def global_pointer(name):
    """The value of one of the library's globals, which needs no debug information."""
    try:
        where = int(gdb.parse_and_eval(f"(unsigned long)&'{NAMESPACE}{name}'"))
    except gdb.error:
        raise gdb.GdbError(
            f"tokengate: there is no {NAMESPACE}{name}: is this a program that uses TokenGate, and has it begun?"
        ) from None
    return word_at(where)


def without_last_parentheses(text):
    depth = 0
    for at in range(len(text) - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(text[at], 0)
        if depth == 0:
            return text[:at]
    return text


def function_at(address):
    """The name of the function and, where known, its place in the source."""
    said = gdb.execute(f"info symbol {address:#x}", to_string=True).strip()
    name = said.split(" in section ")[0]
    if said.startswith("No symbol"):
        name = f"{address:#x}"
    name = re.sub(r" \[clone [^]]*\]", "", name)
    name = re.sub(r" \+ \d+$", "", name)
    if re.search(r"::_Z\S*Frame ?\*\)$", name):  # g++: what resumes f(int) is f(f(int)::_Z1fi.Frame*)
        name = without_last_parentheses(name)
    line = gdb.find_pc_line(address)
    return name, f"{line.symtab.filename}:{line.line}" if line.symtab and line.line else None


# ---- the frame pool ----------------------------------------------------------------------------------------------


class Frames:
    """Every slot of the pool that was ever handed out, as frame_pool::for_each_slot sees them."""

    def __init__(self):
        head = type_of(NAMESPACE + "slab").sizeof
        older, kind, slot_size, carved = (field("slab", name) for name in ("older", "kind", "slot_size", "carved"))
        self.slabs = []  # address of the first slot, size of a slot, number of slots
        self.unreadable = set()
        at = global_pointer("newest_slab")
        seen = set()
        while at and at not in seen:
            seen.add(at)
            if kind.at(at) == 0:  # slab_kind::frame
                self.slabs.append((at + head, slot_size.at(at), carved.at(at)))
            at = older.at(at)

    def __iter__(self):
        """(address, memory, offset in the memory) of each slot. Slabs are read one after the other and not kept."""
        for first, slot_size, carved in self.slabs:
            try:
                memory = read(first, carved * slot_size)
            except gdb.MemoryError:
                self.unreadable.add(first)
                continue
            for at in range(0, len(memory), slot_size):
                yield first + at, memory, at


# ---- tokens ------------------------------------------------------------------------------------------------------


class Operation:
    def __init__(self, address):
        self.name = text_at(field("operation_record", "name").at(address))


class Domain:
    def __init__(self, address, operations):
        lead = operations(field("domain", "lead").at(address)).name
        self.sequence = field("domain", "lead_sequence").at(address)
        self.lead = f"{lead}_{field('domain', 'lead_created_ns').at(address)}_{self.sequence}"
        self.pending = field("domain", "pending").at(address)


class Token:
    """What a record says. `core` is a number, "control", or None where the token has not been routed."""

    READ = ("operation", "sequence", "created_ns", "awaited_by", "position", "runtime", "flags", "owner", "anchor",
            "stop")  # fmt: skip
    __slots__ = (*READ, "frame", "record", "state", "admitted", "domain", "core")

    def __init__(self, frame, record, state, raw):
        self.frame, self.record, self.state = frame, record, state
        (self.operation, self.sequence, self.created_ns, self.awaited_by, self.position, self.runtime, self.flags,
         self.owner, self.anchor, self.stop) = raw  # fmt: skip

    @property
    def alive(self):
        return self.state in ALIVE

    @property
    def id(self):
        return f"{self.operation.name}_{self.created_ns}_{self.sequence}"


class Process:
    """Everything alive, as it is now. Made anew by each command: a live process goes on between them."""

    def __init__(self):
        if not gdb.selected_inferior().threads():
            raise gdb.GdbError("tokengate: there is no process and no core file to look into")
        FIELDS.clear()
        self.runtimes = {runtime.slot: runtime for runtime in living_runtimes()}
        self.frames = Frames()
        self.states = state_names()
        self.in_domain = flag_bits().get("in_domain", IN_DOMAIN)
        self.operations = Memo(Operation)
        self.domains = Memo(lambda address: Domain(address, self.operations))
        self.unreadable = self.frames.unreadable  # places; said below the list
        self.tokens = sorted(self.find_tokens(), key=lambda token: (token.created_ns, token.sequence))
        self.by_sequence = {token.sequence: token for token in self.tokens}
        self.by_frame = {token.frame: token for token in self.tokens}
        self.now, self.now_is = self.find_now()

    def find_tokens(self):
        record = field("promise_base", "token")
        offset = PROMISE_OFFSET * 8 + record.offset
        state = field("token_record", "state")
        rest = several([field("token_record", name) for name in Token.READ])
        for frame, memory, at in self.frames:
            # `state` alone tells whether a slot holds a token: the rest may be anything before it is looked at.
            number = state.of(memory, at + offset)
            if number == 0:
                continue
            token = Token(frame, frame + offset, self.states.get(number, str(number)), rest(memory, at + offset))
            if token.operation == 0:
                continue
            try:
                token.operation = self.operations(token.operation)
                token.admitted = token.runtime != 0
                # An ended token has left its domain, which may be gone; before admission these two are not set.
                in_domain = token.alive and token.flags & self.in_domain
                token.domain = self.domains(token.anchor) if in_domain else None
                token.core = self.core_of(token) if token.admitted else None
                if not token.admitted:
                    token.awaited_by = 0
            except (gdb.MemoryError, UnicodeError):
                self.unreadable.add(frame)
                continue
            yield token

    def core_of(self, token):
        if token.position == NO_POSITION:
            return None
        runtime = self.runtimes.get(token.runtime)
        return runtime.core_of(token.position) if runtime else f"position {token.position}"

    def find_now(self):
        newest = max([token.created_ns for token in self.tokens] + [r.newest_ns for r in self.runtimes.values()] + [0])
        core_file = core_file_name()
        if not core_file:
            return max(time.time_ns(), newest), "now"
        try:
            written = os.stat(core_file).st_mtime_ns
        except OSError:
            written = 0
        # A time before what the file contains is not that of its making.
        if written >= newest:
            return written, "the time of the core file"
        return newest, "the newest time in the core file"

    def awaiter_of(self, token):
        """The awaiting token, or a word in brackets for what is none."""
        if token.awaited_by:
            return self.by_sequence.get(token.awaited_by, f"(#{token.awaited_by}, which is gone)")
        if not token.admitted:
            return "(handle)"
        waiter = self.waiter_of(token)
        return f"({waiter if isinstance(waiter, str) else waiter.kind})"

    def waiter_of(self, token):
        if token.owner in OWNERS:
            return OWNERS[token.owner]
        return Waiter(token.owner)

    def cells(self, token):
        awaiter = self.awaiter_of(token)
        return (
            token.id,
            token.state,
            NOBODY if token.core is None else str(token.core),
            duration(self.now - token.created_ns),
            awaiter if isinstance(awaiter, str) else awaiter.id,
            token.domain.lead if token.domain else NOBODY,
        )

    def coroutines(self, token):
        """The frames of a token's body, from its own to the innermost plain task that it awaits."""
        inner = {}
        continuation = field("promise_base", "continuation")
        is_token = field("promise_base", "is_token")
        for frame, memory, at in self.frames:
            promise = at + PROMISE_OFFSET * 8
            awaiting = continuation.of(memory, promise)
            # A free slot begins with a link to another or with null, an ended coroutine with null: neither is code.
            if awaiting and not is_token.of(memory, promise) and code_at(WORD.unpack_from(memory, at)[0]):
                inner[awaiting] = frame
        frame = token.frame
        found = []
        while frame and frame not in found:
            found.append(frame)
            frame = inner.get(frame)
        return found


def several(fields):
    """A function that reads several fields of one structure at once: there may be millions of them."""
    order = sorted(range(len(fields)), key=lambda index: fields[index].offset)
    layout, end = "<", 0
    for each in (fields[index] for index in order):
        layout += f"{each.offset - end}x" + {1: "B", 2: "H", 4: "I", 8: "Q"}[each.size]
        end = each.offset + each.size
    read_in_order = struct.Struct(layout).unpack_from
    back = operator.itemgetter(*(order.index(index) for index in range(len(fields))))
    return lambda memory, at: back(read_in_order(memory, at))


class Memo:
    def __init__(self, make):
        self.make = make
        self.made = {}

    def __call__(self, key):
        if key not in self.made:
            self.made[key] = self.make(key)
        return self.made[key]


class Waiter:
    """Who hears of a token's end, if it is no word of token_record::owner."""

    def __init__(self, address):
        self.address = address
        # What no token awaits is either submitted, and heard of wherever it ends, or the main coroutine.
        self.kind = "run" if field("waiter", "home").at(address) else "future"

    def group(self):
        """How many of a group have not ended; None if this is no group."""
        done = field("waiter", "done").at(self.address)
        if done == 0 or "group_done" not in function_at(done)[0]:
            return None
        size, begun, here, routed, elsewhere = (
            field("token_group", name).at(self.address) for name in ("size", "begun", "here", "routed", "elsewhere")
        )
        if begun == size:
            return here + elsewhere
        # Both counters have more than there are tokens until all have begun: for the child at hand, and for the rest.
        return here + size - begun + (elsewhere - (size + 1 - routed) if routed else 0)


def code_at(address):
    if address == 0:
        return False
    try:
        return gdb.block_for_pc(address) is not None or not gdb.execute(
            f"info symbol {address:#x}", to_string=True
        ).startswith("No symbol")
    except (gdb.error, RuntimeError):
        return False


def enumerators(name):
    try:
        kind = gdb.lookup_type(name).strip_typedefs()
    except gdb.error:
        return {}
    return {field.name.rpartition("::")[2]: field.enumval for field in kind.fields()} if kind.fields() else {}


def state_names():
    names = dict(enumerate(STATES))
    names.update({number: name for name, number in enumerators("tokengate::token_state").items()})
    return names


def flag_bits():
    return enumerators(NAMESPACE + "token_flags")


def core_file_name():
    said = gdb.execute("info files", to_string=True)
    found = re.search(r"core dump file:\s+`(.*?)'", said)
    return found.group(1) if found else None


def duration(ns):
    """As people read it: 1.234 s; three digits behind the point of the largest unit that is used."""
    if ns < 0:
        ns = 0
    for unit, length in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if ns >= length:
            return f"{ns / length:.3f} {unit}"
    return f"{ns} ns"


# ---- runtimes ----------------------------------------------------------------------------------------------------


class Executor:
    def __init__(self, address):
        self.position = field("executor", "position_").at(address)
        self.busy_ns = field("executor", "busy_ns_").at(address)
        context = field("executor", "hosted_by_").at(address)
        self.hosted = context != 0
        holder, where = (context, ("core_context", "counts")) if context else (address, ("executor", "counts_"))
        for name in ("admitted", "in_place", "ended", "live_domains"):
            setattr(self, name, field(*where, name).at(holder))
        self.current = field("core_context", "current").at(context) if context else 0
        self.turn_ns = field("core_context", "turn_ns").at(context) if context else 0
        self.thread = self.gdb_thread(address)

    @staticmethod
    def gdb_thread(address):
        """gdb's number of the thread; none for the control loop under `run`, and where libthread_db cannot help."""
        try:
            handle = read(address + field("executor", "thread_").offset, 8)
            found = gdb.selected_inferior().thread_from_handle(handle) if any(handle) else None
        except (gdb.error, gdb.GdbError):
            return None
        return found.num if found else None


class Runtime:
    def __init__(self, address):
        self.address = address
        self.slot = field("shared_state", "slot").at(address)
        self.cores = field("shared_state", "loads", "layout_", "cores").at(address)
        self.workers_per_core = field("shared_state", "loads", "layout_", "workers_per_core").at(address)
        self.stopped = bool(field("runtime_core", "stopped_").at(address))
        # A vector of unique_ptr is three words, of which the first two bound an array of words.
        vector = address + field("shared_state", "executors").offset
        begin, end = word_at(vector), word_at(vector + 8)
        # One that is being made may have none yet.
        whole = end - begin == 8 * (self.cores * self.workers_per_core + 1)
        self.executors = [Executor(word_at(at)) for at in range(begin, end, 8)] if whole else []
        self.newest_ns = max((each.turn_ns for each in self.executors), default=0)

    def core_of(self, position):
        return "control" if position >= self.cores * self.workers_per_core else position // self.workers_per_core


def living_runtimes():
    """Newest first; none where the library has no debug information."""
    try:
        older = field("shared_state", "older")
        type_of(NAMESPACE + "runtime_core")
    except gdb.GdbError:
        return
    at = global_pointer("newest_runtime")
    seen = set()
    while at and at not in seen:
        seen.add(at)
        yield Runtime(at)
        at = older.at(at)


# ---- commands ----------------------------------------------------------------------------------------------------


def print_table(head, rows):
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    # In one piece: gdb's own printing is slow.
    print("\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines))


class Command(gdb.Command):
    def invoke(self, argument, from_tty):
        self.dont_repeat()
        try:
            self.run(gdb.string_to_argv(argument))
        except gdb.MemoryError as error:
            raise gdb.GdbError(f"tokengate: {error}: the core file has not all of the process's memory") from None


class Tokengate(gdb.Command):
    """Tokens and runtimes of a TokenGate process or core file."""

    def __init__(self):
        super().__init__("tokengate", gdb.COMMAND_DATA, prefix=True)


class Tokens(Command):
    """tokengate tokens [--all]: every token alive; with --all also those that have ended and still have a frame."""

    def __init__(self):
        super().__init__("tokengate tokens", gdb.COMMAND_DATA)

    def run(self, arguments):
        if arguments not in ([], ["--all"]):
            raise gdb.GdbError("tokengate tokens [--all]")
        process = Process()
        listed = [token for token in process.tokens if arguments or token.alive]
        head = ("TOKEN", "STATE", "CORE", "AGE", "AWAITED BY", "DOMAIN")
        print_table(head, [process.cells(token) for token in listed])
        counts = {}
        for token in listed:
            counts[token.state] = counts.get(token.state, 0) + 1
        summary = ", ".join(f"{count} {state}" for state, count in counts.items())
        print(f"{len(listed)} tokens{': ' if summary else ''}{summary}; ages up to {process.now_is}")
        if process.unreadable:
            print(f"INCOMPLETE: {len(process.unreadable)} places could not be read (a core file without all memory?)")


class OneToken(Command):
    """tokengate token SEQUENCE: one token, by its sequence or its whole id."""

    def __init__(self):
        super().__init__("tokengate token", gdb.COMMAND_DATA)

    def run(self, arguments):
        asked = re.search(r"(\d+)$", arguments[0]) if len(arguments) == 1 else None
        if not asked:
            raise gdb.GdbError("tokengate token SEQUENCE (the last number of an id), or an id")
        process = Process()
        token = process.by_sequence.get(int(asked.group(1)))
        if not token:
            raise gdb.GdbError(f"tokengate: no token has the sequence {asked.group(1)}")
        _, state, core, age, _, domain = process.cells(token)
        print(token.id)
        flags = " ".join(name for name, bit in flag_bits().items() if token.flags & bit) or NOBODY
        rows = [("state", state), ("core", core), ("age", age), ("domain", domain)]
        if token.domain:
            rows.append(("pending", f"{token.domain.pending} tokens of the domain"))
        rows += [("flags", flags), ("stop", "asked" if token.stop else "not asked"), ("frame", f"{token.frame:#x}")]
        for name, value in rows:
            print(f"  {name:<8}  {value}")
        self.print_awaiters(process, token)
        self.print_frames(process, token)

    @staticmethod
    def print_awaiters(process, token):
        print("awaited by")
        seen = set()
        while isinstance(token, Token) and token.sequence not in seen:
            seen.add(token.sequence)
            waiter = process.waiter_of(token) if token.admitted else None
            awaiter = process.awaiter_of(token)
            how = ""
            left = waiter.group() if isinstance(waiter, Waiter) else None
            if left is not None:
                how = f", in a group of which {left} have not ended"
            print(f"  {awaiter if isinstance(awaiter, str) else f'{awaiter.id}, {awaiter.state}'}{how}")
            token = awaiter

    @staticmethod
    def print_frames(process, token):
        running = {each.current: each for runtime in process.runtimes.values() for each in runtime.executors}
        if token.record in running:
            on = running[token.record]
            thread = f"thread {on.thread}" if on.thread else "its thread"
            print(f"runs on position {on.position}: see the backtrace of {thread}; its coroutines")
        else:
            print("suspended in")
        for depth, frame in enumerate(reversed(process.coroutines(token))):
            resumes = word_at(frame)
            if resumes == 0:
                print(f"  #{depth} {frame:#x} at its end")
                continue
            name, line = function_at(resumes)
            print(f"  #{depth} {frame:#x} {name}{f' at {line}' if line else ''}{suspension_point(resumes, frame)}")


def suspension_point(resumes, frame):
    """Which of a coroutine's suspension points it is at, as its compiler counts them."""
    try:
        block = gdb.block_for_pc(resumes)
        while block and not block.function:
            block = block.superblock
        for symbol in block or ():
            kind = symbol.type
            if kind.code == gdb.TYPE_CODE_PTR:
                kind = kind.target()
            if kind.code != gdb.TYPE_CODE_STRUCT:
                continue
            for index in ("_Coro_resume_index", "__coro_index"):
                found = find_field(kind, index)
                if found:
                    number = int.from_bytes(read(frame + found[0], found[1].sizeof), BYTE_ORDER)
                    return f", suspension point {number // 2 if index.startswith('_C') else number}"
    except (gdb.error, RuntimeError):
        pass
    return ""


class Runtimes(Command):
    """tokengate runtimes: the runtimes of the process, and their executors."""

    def __init__(self):
        super().__init__("tokengate runtimes", gdb.COMMAND_DATA)

    def run(self, arguments):
        if arguments:
            raise gdb.GdbError("tokengate runtimes takes no argument")
        type_of(NAMESPACE + "runtime_core")
        process = Process()
        by_record = {token.record: token for token in process.tokens}
        for runtime in process.runtimes.values():
            admitted = sum(each.admitted for each in runtime.executors)
            print(
                f"runtime {runtime.slot} at {runtime.address:#x}: {runtime.cores} cores, {runtime.workers_per_core} "
                f"workers per core{', stopped' if runtime.stopped else ''}, {admitted} tokens admitted"
            )
            rows = []
            for each in runtime.executors:
                current = by_record.get(each.current)
                rows.append(
                    (
                        f"  {each.position}",
                        str(runtime.core_of(each.position)),
                        str(each.thread or NOBODY),
                        "yes" if each.hosted else "no",
                        str(each.admitted),
                        str(each.in_place),
                        str(each.ended),
                        str(each.live_domains),
                        duration(each.busy_ns),
                        current.id if current else NOBODY,
                    )
                )
            print_table(
                ("  POSITION", "CORE", "THREAD", "HOSTED", "ADMITTED", "IN PLACE", "ENDED", "DOMAINS", "BUSY", "RUNS"),
                rows,
            )
        if not process.runtimes:
            print("no runtime lives")


Tokengate()
Tokens()
OneToken()
Runtimes()
