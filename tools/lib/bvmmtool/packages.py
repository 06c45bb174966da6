# SPDX-License-Identifier: MIT OR Apache-2.0
"""An image from Debian packages, by mmdebstrap, from this machine's own package sources."""

import email.utils
import os
import re
import subprocess

from . import common
from .common import ToolError

INDEX_FORMAT = "$(ORIGIN)\t$(SOURCESENTRY)\t$(RELEASE)\t$(COMPONENT)\t$(CODENAME)\t$(FILENAME)"
PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?(=[A-Za-z0-9.+:~-]+)?(/[a-z0-9-]+)?")
# What would differ from machine to machine, or is of no use in a guest without a network.
CLEAN_UP = ('rm -f "$1"/etc/resolv.conf "$1"/etc/hostname "$1"/etc/apt/sources.list '
            '"$1"/etc/apt/sources.list.d/* "$1"/var/log/apt/* "$1"/var/log/*.log '
            '"$1"/etc/machine-id "$1"/var/lib/dbus/machine-id "$1"/var/cache/ldconfig/aux-cache '
            '"$1"/etc/apt/apt.conf.d/99mmdebstrap')


def os_release(key):
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8") as file:
                for line in file:
                    name, _, value = line.strip().partition("=")
                    if name == key:
                        return value.strip("\"'")
        except FileNotFoundError:
            continue
    return None


def machine_indexes():
    """The package indexes of this machine's own distribution, as apt knows them."""
    output = common.run_child(
        ["apt-get", "indextargets", "--format", INDEX_FORMAT, "Created-By: Packages"],
        doing="listing the machine's package sources", stdout=subprocess.PIPE,
        env=dict(os.environ, LC_ALL="C"))
    names = ("origin", "entry", "release", "component", "codename", "file")
    rows = [dict(zip(names, line.split("\t"))) for line in output.decode().splitlines()]
    distribution = (os_release("ID") or "").lower()
    return [row for row in rows if row["origin"].lower() == distribution]


def sources_of(indexes):
    """The files of apt sources that the indexes come from, with their keys and options."""
    return sorted({row["entry"].rpartition(":")[0] for row in indexes})


def newest_release_s(indexes):
    """When the newest of the indexes was published: no file in their packages is younger. That
    makes it a time that goes with the input and not with the moment of the call."""
    newest = 0
    for row in indexes:
        base = row["file"].split("_" + row["component"] + "_")[0]
        for name in (base + "_InRelease", base + "_Release"):
            try:
                with open(name, encoding="utf-8", errors="replace") as file:
                    for line in file:
                        if line.startswith("Date:"):
                            when = email.utils.parsedate_to_datetime(line[5:].strip())
                            newest = max(newest, int(when.timestamp()))
                            break
            except (OSError, ValueError):
                continue
    return newest


def build_tar(packages, target, options, config_file, epoch, scratch, progress):
    """Run mmdebstrap. options: suite, sources (a file), variant, arch, mode."""
    for package in packages:
        if not PACKAGE_NAME.fullmatch(package):
            raise ToolError(f"{package!r}: not the name of a Debian package")
    indexes = [] if options.sources else machine_indexes()
    suite = options.suite or os_release("VERSION_CODENAME")
    if options.sources:
        sources = [os.path.abspath(options.sources)]
        if not os.path.isfile(sources[0]):
            raise ToolError(f"{options.sources}: --sources: no such file: expected apt sources")
    else:
        wanted = [row for row in indexes if suite in row["release"].split("-")
                  or row["codename"] == suite or row["codename"].startswith(f"{suite}-")]
        if not wanted:
            raise ToolError(f"this machine has no package source for {suite}: run apt-get update, "
                            "or name a file of apt sources with --sources")
        indexes = wanted
        sources = sources_of(wanted)
    if epoch is None:
        epoch = newest_release_s(indexes)
    env = dict(os.environ, SOURCE_DATE_EPOCH=str(epoch), TMPDIR=scratch.path, LC_ALL="C.UTF-8")
    hook = f'mkdir -p "$1"/etc/bvmm && cp {config_file} "$1"/etc/bvmm/image.json ' \
        '&& chmod 644 "$1"/etc/bvmm/image.json'
    # The last stage that the variant has: "extract" ends before the others would run.
    stage = "extract-hook" if options.variant == "extract" else "customize-hook"
    argv = ["mmdebstrap", f"--variant={options.variant}", f"--mode={options.mode}",
            f"--include={','.join(packages)}", "--format=tar",
            "--aptopt=APT::Sandbox::User \"root\"",  # _apt could not enter our work directory
            f"--{stage}={CLEAN_UP}", f"--{stage}={hook}"]
    if options.arch:
        argv.append(f"--architectures={options.arch}")
    progress.step(f"installing {len(packages)} packages of {suite} and what they need")

    def on_line(line):
        if line.startswith("I: "):
            progress.update(line[3:])

    common.run_child(argv + [suite, target, *sources], doing="installing packages", env=env,
                     on_line=on_line, death_signal="TERM")
    return epoch
