# SPDX-License-Identifier: MIT OR Apache-2.0
"""What strace wrote of a run of bvmm, held against the tables of `bvmm sandbox --print --json`: each call that a thread or the
launcher makes in its filter is in its table, and which rows they used. For test_trace.py, and for tests/e2e."""

import re

STRACE = ["strace", "-f", "-y", "-X", "raw", "-qq", "-e", "signal=none", "-o"]  # and the file
PR_SET_NAME, PR_SET_SECCOMP = 15, 22
CALL = re.compile(r"^(\d+) +(\w+)\((.*)$")
# What the names in the tables stand for, as strace shows descriptors.
KINDS = {
    "own interrupt eventfd": r"anon_inode:\[eventfd", "the event that cancels": r"anon_inode:\[eventfd",
    "own doorbell": r"anon_inode:\[eventfd",
    "doorbells of those it sends to, and of those that wait for room": r"anon_inode:\[eventfd",
    "own image": r"/image", "own vCPU": r"anon_inode:kvm-vcpu", "deadline timer": r"anon_inode:\[timerfd",
    "signalfd": r"anon_inode:\[signalfd", "the VM process (a pidfd)": r"anon_inode:\[pidfd|pidfd:",
    "socket to the VM process": r"socket|UNIX",
    "the job's kernel": r"\.kernel",
    "list of what the bridge sleeps on": r"anon_inode:\[eventpoll",
    "socket to the bridge's actor": r"socket|UNIX", "directory of the VM's control group": r"cgroup",
    "counters of the VM's control group": r"cgroup", "directories of the report and of large outputs": r"/",
}


def split_arguments(text):
    """Those at the top level; the last may be cut."""
    found, depth, start, quoted = [], 0, 0, False
    for at, char in enumerate(text):
        if char == '"' and text[at - 1] != "\\":
            quoted = not quoted
        elif not quoted and char in "([{<":
            depth += 1
        elif not quoted and char in ")]}>" and text[at - 1] != "=":
            depth -= 1
            if depth < 0:
                return [*found, text[start:at].strip()]
        elif char == "," and depth == 0 and not quoted:
            found.append(text[start:at].strip())
            start = at + 1
    return [*found, text[start:].strip()]


NUMBER = r"-?(?:0x[0-9a-f]+|\d+)"


def number(argument):
    """Of an argument's text; None: it is none. A socket's type comes in two parts."""
    match = re.match(rf"{NUMBER}(?:\|{NUMBER})*", argument)
    if argument.startswith("NULL"):
        return 0
    if not match:
        return None
    value = 0
    for text in match[0].split("|"):
        # strace writes modes in octal
        value |= int(text, 8) if re.match(r"0[0-7]+$", text) else int(text, 0)
    return value


def name_of(row):
    words = [str(arg.get("number", arg["is"])) for arg in row["args"]]
    return " ".join([row["call"], *words])


UNFINISHED = "<unfinished ...>"
RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$", re.DOTALL)


def whole_lines(lines):
    """With the two halves of a call put together that another thread's came between; last, those that never returned."""
    begun = {}
    for line in lines:
        if line.rstrip().endswith(UNFINISHED):
            begun[line.split()[0]] = line.rstrip()[:-len(UNFINISHED)]
        elif match := RESUMED.match(line):
            yield begun.pop(match[1], f"{match[1]} ") + match[2]
        else:
            yield line
    yield from begun.values()


class Trace:
    """What strace wrote of one run."""

    def __init__(self, path, tables):
        self.tables, self.names, self.filters, self.launcher = tables, {}, {}, None
        self.used, self.wrong, self.readers, self.calls = set(), [], {}, []
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in whole_lines(file):
                if match := CALL.match(line):
                    self.take(int(match[1]), match[2], split_arguments(match[3]))
        self.judge()

    def take(self, pid, call, args):
        self.launcher = self.launcher or pid
        holder = self.holder(pid)
        if holder:
            self.calls.append((holder, call, args))
            if call == "read" and "eventfd" in args[0]:
                self.readers.setdefault(number(args[0]), set()).add(holder)
            elif call == "ppoll":
                for fd in re.findall(r"fd=(\d+)<anon_inode:\[eventfd", args[0]):
                    self.readers.setdefault(int(fd), set()).add(holder)
        if call == "prctl" and number(args[0]) == PR_SET_NAME:
            self.names[pid] = args[1].strip('"')
        elif call == "prctl" and number(args[0]) == PR_SET_SECCOMP:
            self.filters[pid] = self.filters.get(pid, 0) + 1

    def holder(self, pid):
        """Whose table holds for the thread now."""
        count = self.filters.get(pid, 0)
        if pid == self.launcher:
            return [None, "launcher_waiting", "launcher_writing"][count]
        return re.sub(r"^(vcpu|blk)\d+$", r"\1", self.names.get(pid, "?")) if count else None

    def fits(self, holder, wanted, argument):
        value, kind = number(argument), wanted["is"]
        if kind == "constant":
            return value is not None and value & 0xffffffff == wanted["number"] & 0xffffffff
        if kind == "own doorbell" and holder not in self.readers.get(value, ()):
            return False
        if kind.startswith("doorbells") and value not in self.readers:
            return False
        if kind == "own interrupt eventfd" and value in self.readers:
            return False
        return kind not in KINDS or re.search(KINDS[kind], argument) is not None

    def judge(self):
        for holder, call, args in self.calls:
            found = self.row_of(holder, call, args)
            if found:
                self.used.add(found)
            else:
                self.wrong.append(f"{holder}: {call}({', '.join(args)})")
            # A filter cannot be taken off: the first is asked as well.
            if holder == "launcher_writing":
                found = self.row_of("launcher_waiting", call, args)
                if found:
                    self.used.add(found)
                else:
                    self.wrong.append(f"launcher_waiting, under the second filter: {call}({', '.join(args)})")

    def row_of(self, holder, call, args):
        """The name of the row that allows the call; None: there is none."""
        rows = [row for row in self.tables[holder] if row["call"] == call and
                all(arg["index"] < len(args) and self.fits(holder, arg, args[arg["index"]]) for arg in row["args"])]
        # the most special row is the one that it needs
        return f"{holder} {name_of(max(rows, key=lambda row: len(row['args'])))}" if rows else None


def tables_of(printed):
    """Of the parsed JSON: holder's name to rows; and each row's name, with the holder's before it."""
    tables = {table["name"]: table["rows"] for table in printed["tables"]}
    return tables, [f"{holder} {name_of(row)}" for holder, table in tables.items() for row in table]
