# SPDX-License-Identifier: MIT OR Apache-2.0
"""Errors, signals, child processes, scratch directories and progress for bvmm's tools."""

import errno
import fcntl
import glob
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile

# Which Debian package brings a program that we call.
APT_PACKAGE = {
    "skopeo": "skopeo",
    "umoci": "umoci",
    "mksquashfs": "squashfs-tools",
    "unsquashfs": "squashfs-tools",
    "mmdebstrap": "mmdebstrap",
    "apt-get": "apt",
    "zstd": "zstd",
    "gzip": "gzip",
    "xz": "xz-utils",
    "bzip2": "bzip2",
    "setpriv": "util-linux",
}

# What a child's standard error may add to our own message, at most.
CHILD_MESSAGE_LINES = 6


# Modes of files that go into an image must not depend on the caller's umask; modes of the image do.
user_umask = os.umask(0o022)


class ToolError(Exception):
    """Something that the user is told in one message, without a traceback."""


class Interrupted(BaseException):
    """A signal that ends the tool. Not an Exception, so that no handler swallows it."""

    def __init__(self, signum):
        super().__init__(signum)
        self.signum = signum


ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def install_signal_handlers():
    """Turn the first SIGINT, SIGTERM or SIGHUP into Interrupted; further ones are ignored, so
    that the clean-up that follows the first is not cut short."""

    def on_signal(signum, _frame):
        for other in ENDING_SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(signum)

    for signum in ENDING_SIGNALS:
        if signal.getsignal(signum) != signal.SIG_IGN:  # nohup stays nohup
            signal.signal(signum, on_signal)


def run_main(name, main, failure_status=1):
    """Run main(argv) as the whole program: errors become one message, signals 128+n."""
    install_signal_handlers()
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except ToolError as error:
        print(f"{name}: {error}", file=sys.stderr)
        code = failure_status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter complains at its exit
        code = 128 + signal.SIGPIPE
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"{name}: {where}{error.strerror or error}", file=sys.stderr)
        code = failure_status
    except Interrupted as interrupt:
        print(f"{name}: stopped by {signal.Signals(interrupt.signum).name}", file=sys.stderr)
        code = 128 + interrupt.signum
    sys.exit(code)


class Progress:
    """A status line on a terminal; nothing elsewhere. Verbose: one line per step anywhere."""

    def __init__(self, name, quiet=False, verbose=False):
        self.name = name
        self.tty = sys.stderr.isatty() and not quiet
        self.verbose = verbose
        self._last_len = 0

    def step(self, text):
        if self.verbose:
            print(f"{self.name}: {text}", file=sys.stderr)
        elif self.tty:
            self._show(text)

    def update(self, text):
        if self.tty and not self.verbose:
            self._show(text)

    def note(self, text):
        """Something that the user should know even when all goes well."""
        self.clear()
        print(f"{self.name}: note: {text}", file=sys.stderr)

    def clear(self):
        if self._last_len:
            sys.stderr.write("\r" + " " * self._last_len + "\r")
            sys.stderr.flush()
            self._last_len = 0

    def _show(self, text):
        width = shutil.get_terminal_size().columns - 1
        line = f"{self.name}: {text}"[:width]
        sys.stderr.write("\r" + line.ljust(self._last_len))
        sys.stderr.flush()
        self._last_len = len(line)


def find_bvmm(tools_directory):
    """The bvmm to run: $BVMM, the one beside this tool, the newest build of the source tree that
    this tool is in, or the one in PATH."""
    chosen = os.environ.get("BVMM")
    if chosen:
        path = shutil.which(chosen)
        if path is None:
            raise ToolError(f"BVMM={chosen}: is no program that can be run")
        return path
    beside = os.path.join(tools_directory, "bvmm")
    if os.access(beside, os.X_OK) and os.path.isfile(beside):
        return beside
    builds = glob.glob(os.path.join(tools_directory, "..", "build", "*", "src", "bvmm"))
    if builds:
        return os.path.realpath(max(builds, key=os.path.getmtime))
    path = shutil.which("bvmm")
    if path is None:
        raise ToolError("bvmm is not installed: build it, or say where it is: BVMM=/path/to/bvmm")
    return path


def human_bytes(count):
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("not reached")


def need_program(name):
    """The full path of a program, or an error that says which package has it."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None:
        package = APT_PACKAGE.get(name, name)
        raise ToolError(f"{name} is needed and not installed: apt-get install {package}")
    return path


def _limits(max_file_bytes):
    if max_file_bytes is None:
        return None

    def apply():
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        limit = max_file_bytes if hard == resource.RLIM_INFINITY else min(max_file_bytes, hard)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return apply


def child_argv(argv, death_signal="KILL"):
    """argv with its program found, made to die with us even when we are killed by SIGKILL."""
    found = [need_program(argv[0])] + list(argv[1:])
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", death_signal, "--"] + found if setpriv else found


def _stop(process, death_signal):
    process.send_signal(getattr(signal, "SIG" + death_signal))
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run_child(argv, *, doing, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, on_line=None,
              env=None, max_file_bytes=None, death_signal="KILL", cwd=None):
    """Run a program to its end. Its standard error is read line by line (on_line may watch it) and
    its last lines are part of the message when it fails. stdout=PIPE returns what it printed."""
    process = subprocess.Popen(
        child_argv(argv, death_signal), stdin=stdin, stdout=stdout, stderr=subprocess.PIPE,
        env=env, cwd=cwd, preexec_fn=_limits(max_file_bytes))
    tail = []
    output = tempfile.TemporaryFile() if stdout == subprocess.PIPE else None
    try:
        if output is not None:  # small outputs only: stdout is drained before stderr is
            shutil.copyfileobj(process.stdout, output)
        for raw in process.stderr:
            line = raw.decode("utf-8", "replace").rstrip()
            if on_line is not None:
                on_line(line)
            if line.strip():
                tail = (tail + [line])[-CHILD_MESSAGE_LINES:]
        process.wait()
    except BaseException:
        _stop(process, death_signal)
        raise
    finally:
        process.stderr.close()
        if process.stdout:
            process.stdout.close()
    if process.returncode != 0:
        raise ToolError(child_failure(argv[0], doing, process.returncode, tail))
    if output is None:
        return b""
    output.seek(0)
    return output.read()


def child_failure(program, doing, returncode, tail):
    if returncode == -signal.SIGXFSZ:
        how = "a file grew over the limit (--max-bytes, or the free space of the work directory)"
    elif returncode < 0:
        how = f"was killed by {signal.Signals(-returncode).name}"
    else:
        how = f"exit status {returncode}"
    said = "".join("\n    " + line for line in tail)
    return f"{doing} failed: {program}: {how}{said}"


SCRATCH_SUFFIX = ".bvmm-scratch"  # with the prefix, a name that nobody else gives to a directory


class Scratch:
    """A private directory that goes away with us. When we are killed so that we cannot remove it,
    the next one made with the same parent and prefix does: each holds a lock on its own directory
    for as long as its maker lives."""

    def __init__(self, parent, prefix):
        self.parent = parent
        self.prefix = prefix
        self.path = None
        self._fd = -1

    def __enter__(self):
        sweep_scratch(self.parent, self.prefix)
        try:
            self._in_one_piece(self._make)
        except BaseException:
            self._in_one_piece(self._remove)
            raise
        return self

    def __exit__(self, *_exc):
        try:
            self._in_one_piece(self._remove)
        finally:
            self._in_one_piece(self._remove)  # a signal may have come before the first had begun

    @staticmethod
    def _in_one_piece(step):
        """A signal that ends us is heard afterwards. No second one is: see install_signal_handlers()."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
        try:
            step()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _make(self):
        while True:
            self.path = tempfile.mkdtemp(SCRATCH_SUFFIX, self.prefix, self.parent)
            try:
                self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # a sweeper was faster, between mkdtemp and open: take another
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.stat(self.path).st_ino == os.fstat(self._fd).st_ino:
                    return
            except (BlockingIOError, FileNotFoundError):
                pass  # a sweeper was faster, between mkdtemp and flock: take another
            os.close(self._fd)
            self._fd = -1

    def _remove(self):
        """Does nothing the second time."""
        if self.path is not None:
            remove_tree(self.path)
            self.path = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def file(self, name):
        return os.path.join(self.path, name)


def sweep_scratch(parent, prefix):
    """Remove scratch directories of ours whose maker is dead."""
    try:
        names = [n for n in os.listdir(parent)
                 if n.startswith(prefix) and n.endswith(SCRATCH_SUFFIX)]
    except OSError:
        return
    for name in names:
        path = os.path.join(parent, name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            info = os.fstat(fd)
            if info.st_uid != os.geteuid() or stat.S_IMODE(info.st_mode) != 0o700:
                continue
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(path)
        except BlockingIOError:
            pass
        finally:
            os.close(fd)


def remove_tree(path):
    """rm -rf that copes with directories without write permission; never follows a link."""

    def again(function, where, info):
        error = info[1]
        if isinstance(error, FileNotFoundError):
            return
        parent = os.path.dirname(where)
        for directory in (parent, where):
            try:
                if stat.S_ISDIR(os.lstat(directory).st_mode):
                    os.chmod(directory, 0o700)
            except OSError:
                pass
        try:
            if stat.S_ISDIR(os.lstat(where).st_mode):
                shutil.rmtree(where, ignore_errors=True)
            else:
                os.unlink(where)
        except OSError:
            pass

    shutil.rmtree(path, onerror=again)


def fsync_path(path):
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without fsync for directories
            raise
    finally:
        os.close(fd)


# ---- files that the user names for output -------------------------------------------------------

KINDS_OF_FILES = ((stat.S_ISREG, "a regular file"), (stat.S_ISDIR, "a directory"),
                  (stat.S_ISLNK, "a symbolic link"), (stat.S_ISCHR, "a character device"),
                  (stat.S_ISBLK, "a block device"), (stat.S_ISFIFO, "a pipe"),
                  (stat.S_ISSOCK, "a socket"))


def kind_of_file(mode):
    return next((text for is_it, text in KINDS_OF_FILES if is_it(mode)), "a file of unknown kind")


def is_stream(path):
    """A character device or a pipe, also behind a link (/dev/stdout, /dev/fd/63 of a shell): what
    is put there is written into it."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def check_replaceable(path):
    """A finished file takes the place of a regular file, or of nothing. A rename over a device, as
    root, would be a disaster for the whole machine; over a link or a pipe it is not what was
    meant. bvmm is as strict with its report_path."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise ToolError(f"{path}: is {kind_of_file(mode)}: expected a regular file, which is "
                        "replaced, or a new name")


def check_new_file(path):
    """Refuse, before any work is done, a path at which no file could be made afterwards."""
    directory, name = os.path.split(path)
    directory = directory or "."
    if name in ("", ".", ".."):
        raise ToolError(f"{path or repr(path)}: expected the name of a file")
    if not os.path.isdir(directory):
        raise ToolError(f"{path}: {directory}: no such directory: make it first")
    _check_writable(path, directory)
    check_replaceable(path)


def check_output(path):
    """The same for an output that may be a stream too."""
    if not is_stream(path):
        check_new_file(path)
    elif not os.access(path, os.W_OK, effective_ids=True):
        raise ToolError(f"{path}: may not be written to")


def check_output_directory(path):
    """The same for a directory that is made if it is not there."""
    place = os.path.abspath(path)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        raise ToolError(f"{path}: {place} is no directory")
    _check_writable(path, place)


def _check_writable(path, directory):
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        raise ToolError(f"{path}: no file can be made in {directory}: it may not be written to")


def write_output(path, data):
    """Put bytes where check_output() found that they can go. An OSError names the path."""
    if not is_stream(path):
        write_file_atomically(path, data)
        return
    with open(os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC), "wb", buffering=0) as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISCHR(mode) and not stat.S_ISFIFO(mode):
            raise ToolError(f"{path}: was a stream and is now {kind_of_file(mode)}")
        view = memoryview(data)
        try:
            while view:
                view = view[file.write(view):]
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None


def rename_into_place(source, target):
    """Publish a finished file: whole and on disk, or not there at all."""
    check_replaceable(target)
    fsync_path(source)
    os.rename(source, target)
    fsync_path(os.path.dirname(os.path.abspath(target)))


def write_file_atomically(path, data, mode=0o666):
    """Write bytes so that a reader sees all of them or the previous file. An OSError names the path
    that the caller knows."""
    check_replaceable(path)
    directory = os.path.dirname(os.path.abspath(path))
    try:
        fd, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)[:50]}.", dir=directory)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), mode & ~user_umask)
                os.fsync(file.fileno())
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        fsync_path(directory)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def json_bytes(value):
    """JSON as we write it everywhere: sorted, so that equal values are equal bytes."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=True) + "\n").encode()


def read_json(path, what):
    try:
        with open(path, "rb") as file:
            return json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise ToolError(f"{path}: {what} is not valid JSON: {error}") from None


def own_private_directory(path):
    """Make a directory, or check that nobody else can change what is in it."""
    os.makedirs(path, mode=0o755, exist_ok=True)
    info = os.stat(path)
    if info.st_uid != os.geteuid() or info.st_mode & 0o022:
        raise ToolError(
            f"{path}: owned by uid {info.st_uid}, mode {stat.S_IMODE(info.st_mode):04o}: expected "
            f"a directory that only uid {os.geteuid()} can write; chmod go-w it, or set BVMM_CACHE")
