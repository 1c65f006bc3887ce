#!/usr/bin/env python3
"""Runs the storage tests on disks that really fail.

Each disk is an image file in a temporary folder; no device that was there before is touched. The driver of a scenario
is a test of `cargo test --test storage` or `--test streaming`; what it has been told is acknowledged stays in its
memory, off that disk. A scenario for which this machine lacks something is skipped with the name of what is missing.

  kill        kill -9 of a process that publishes, again and again
  damage      bits flipped in, and ends cut off, files of every kind
  power       power cut: what was not flushed is lost with the disk's volatile cache
  writes      writes fail with EIO for a while
  flushes     writes succeed and flushes fail with EIO for a while
  full        a file system of 64 MiB is filled, by the store and by another file
  full-tmpfs  the same on a tmpfs
  streaming   power cuts while a client of the streaming service publishes
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MIB = 1 << 20


class Missing(Exception):
    """Something that a scenario needs is not there."""


def run(*command):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stdout.strip()}")
    return done.stdout.strip()


def wait_for(what, condition):
    for _ in range(500):
        if condition():
            return
        time.sleep(0.02)
    raise RuntimeError(f"{what}: not after ten seconds")


# ---- what is needed

PACKAGES = {
    "nbdkit": "nbdkit", "nbdfuse": "libnbd-bin", "fusermount3": "fuse3", "mkfs.ext4": "e2fsprogs",
    "losetup": "mount", "mount": "mount",
}


def need_root():
    if os.geteuid() != 0:
        raise Missing("root")


def need_programs(*names):
    for name in names:
        if shutil.which(name) is None:
            raise Missing(f"{name} (apt install {PACKAGES[name]})")


def need_loop():
    need_root()
    need_programs("losetup", "mkfs.ext4", "mount")
    if not os.path.exists("/dev/loop-control"):
        raise Missing("/dev/loop-control (modprobe loop)")


def need_nbd():
    need_loop()
    need_programs("nbdkit", "nbdfuse", "fusermount3")
    if not os.path.exists("/dev/fuse"):
        raise Missing("/dev/fuse (modprobe fuse)")
    for name in ("cache", "error"):
        if subprocess.run(["nbdkit", f"--filter={name}", "null", "--dump-plugin"], capture_output=True).returncode != 0:
            raise Missing(f"the filter {name} of nbdkit")


# ---- disks

class Disks:
    """Images, what serves them, and mounts. All of it goes when this is closed, whatever has happened."""

    def __init__(self):
        self.stack = contextlib.ExitStack()
        self.folder = pathlib.Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="leat-faults-")))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stack.close()

    def image(self, name, mib):
        path = self.folder / name
        with open(path, "wb") as file:
            file.truncate(mib * MIB)
        return path

    @contextlib.contextmanager
    def loop(self, file):
        device = run("losetup", "--find", "--show", file)
        try:
            yield device
        finally:
            run("losetup", "--detach", device)

    @contextlib.contextmanager
    def mounted(self, device, *options):
        point = self.folder / "disk"
        point.mkdir(exist_ok=True)
        run("mount", *options, device, point)
        try:
            yield point
        finally:
            # Whoever has it open is a child that was killed just now.
            wait_for(f"umount {point}", lambda: subprocess.run(["umount", point], capture_output=True).returncode == 0)


class NbdDisk:
    """A disk that nbdkit serves from an image, through nbdfuse and a loop device, with ext4 on it."""

    def __init__(self, disks, filters, parameters, journal=None):
        """`journal`: a device for ext4's journal, where that is not to fail with the rest."""
        self.disks, self.filters, self.parameters, self.journal = disks, filters, parameters, journal
        self.image = disks.image("image", 1024)
        self.failing = disks.folder / "failing"
        self.parts = contextlib.ExitStack()
        disks.stack.callback(self.down)

    def up(self):
        """Returns the device."""
        folder = self.disks.folder
        address, point = folder / "socket", folder / "nbd"
        address.unlink(missing_ok=True)
        point.mkdir(exist_ok=True)
        self.server = subprocess.Popen(
            ["nbdkit", "--foreground", "--unix", address, *(f"--filter={name}" for name in self.filters),
             "file", self.image, *self.parameters], stderr=subprocess.DEVNULL)
        self.parts.callback(self.cut)
        wait_for("nbdkit", address.exists)
        # Its complaints about a server that is gone are what is wanted.
        client = subprocess.Popen(["nbdfuse", point, "--unix", address], stderr=subprocess.DEVNULL)
        self.parts.callback(client.wait)
        self.parts.callback(subprocess.run, ["fusermount3", "-u", "-z", point], stderr=subprocess.DEVNULL)
        wait_for("nbdfuse", (point / "nbd").exists)
        return self.parts.enter_context(self.disks.loop(point / "nbd"))

    def mount(self):
        return self.parts.enter_context(self.disks.mounted(self.up()))

    def down(self):
        self.parts.close()

    def make_file_system(self):
        device = self.up()
        options = ["-J", f"device={self.journal}"] if self.journal else []
        run("mkfs.ext4", "-q", *options, device)
        self.down()

    # What a driver orders.

    def cut(self):
        self.server.send_signal(signal.SIGKILL)
        self.server.wait()

    def restore(self):
        self.down()
        self.mount()

    def fail(self):
        # The file system's own records are not to be what fails: it would be read-only from then on.
        run("sync", "--file-system", self.disks.folder / "disk")
        self.failing.touch()

    def heal(self):
        self.failing.unlink()


class Control:
    """Carries out what a driver orders, one word a line; see `Control` in tests/storage/disk.rs."""

    def __init__(self, disks, disk):
        self.path = disks.folder / "control"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        self.orders = {name: getattr(disk, name) for name in ("cut", "restore", "fail", "heal")}
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()
        disks.stack.callback(self.close)

    def serve(self):
        connection, _ = self.listener.accept()
        with connection, connection.makefile("rw") as lines:
            for line in lines:
                try:
                    self.orders[line.strip()]()
                    answer = "done"
                except Exception as error:  # The driver fails with it.
                    answer = str(error).replace("\n", "; ")
                lines.write(answer + "\n")
                lines.flush()

    def close(self):
        # Disks go only when nobody switches them any more.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(timeout=60)


# ---- scenarios

class Tests:
    """The binaries with the drivers, and how long they are to be."""

    def __init__(self, binaries, rounds, seed):
        self.binaries, self.rounds, self.seed = binaries, rounds, seed

    def __call__(self, *names, suite="storage", exact=True, **environment):
        settings = {"LEAT_STORAGE_SEED": self.seed, "LEAT_STORAGE_ROUNDS": self.rounds, **environment}
        settings = {name: str(value) for name, value in settings.items() if value is not None}
        command = [self.binaries[suite], "--nocapture", "--include-ignored", "--test-threads=1", *names]
        done = subprocess.run(command + ["--exact"] * exact, env={**os.environ, **settings}, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        output = done.stdout
        if done.returncode != 0:
            raise RuntimeError(output)
        # Behind the name of the test on the same line.
        told = [line[line.index("seed "):] for line in output.splitlines() if "seed " in line]
        if "running 0 tests" in output:
            raise RuntimeError(f"no such test: {names}")
        return "; ".join(told)


def kill(tests):
    return tests("kill::nothing_acknowledged_is_lost_when_the_process_is_killed")


def damage(tests):
    return tests("damage::", exact=False)


def power(tests):
    return power_fails(tests, "kill::nothing_acknowledged_is_lost_when_power_fails", "storage")


def streaming(tests):
    return power_fails(tests, "restart::no_acknowledged_message_is_lost_when_power_fails", "streaming")


def power_fails(tests, name, suite):
    need_nbd()
    with Disks() as disks:
        disk = NbdDisk(disks, ["cache"], ["cache=writeback"])
        loses_what_is_not_flushed(disk)
        disk.make_file_system()
        mount = disk.mount()
        control = Control(disks, disk)
        return tests(name, suite=suite, LEAT_STORAGE_DIR=mount, LEAT_STORAGE_CONTROL=control.path)


def loses_what_is_not_flushed(disk):
    """A disk that kept everything would show nothing."""
    content = os.urandom(MIB)

    def write(place, *how):
        command = ["dd", f"of={device}", "bs=1M", f"seek={place}", "iflag=fullblock", *how]
        subprocess.run(command, input=content, check=True, capture_output=True)

    device = disk.up()
    write(0, "oflag=direct", "conv=notrunc,fdatasync")
    write(1, "oflag=direct", "conv=notrunc")
    disk.cut()
    disk.down()
    with open(disk.up(), "rb") as file:
        found = file.read(2 * MIB)
    disk.down()
    if found != content + bytes(MIB):
        raise RuntimeError("this disk does not lose exactly what was not flushed")


def failing(tests, filters):
    need_nbd()
    with Disks() as disks:
        journal = disks.stack.enter_context(disks.loop(disks.image("journal", 64)))
        run("mke2fs", "-q", "-O", "journal_dev", "-b", "4096", journal)
        parameters = ["error=EIO", "error-pwrite-rate=100%", "error-zero-rate=100%", "error-trim-rate=100%"]
        parameters += [f"error-{what}-file={disks.folder / 'failing'}" for what in ("pwrite", "zero", "trim")]
        parameters += ["cache=writeback"] * ("cache" in filters)
        disk = NbdDisk(disks, filters, parameters, journal)
        disk.make_file_system()
        mount = disk.mount()
        control = Control(disks, disk)
        return tests("faults::nothing_is_acknowledged_while_writes_fail",
                     LEAT_STORAGE_DIR=mount, LEAT_STORAGE_CONTROL=control.path)


def writes(tests):
    return failing(tests, ["error"])


def flushes(tests):
    # What the cache takes reaches what fails only when it is flushed.
    return failing(tests, ["cache", "error"])


FULL = ["full::messages_are_refused_until_there_is_space", "full::another_file_takes_all_space_and_is_removed"]


def full(tests):
    need_loop()
    with Disks() as disks:
        image = disks.image("image", 64)
        run("mkfs.ext4", "-q", "-m", "0", image)
        mount = disks.stack.enter_context(disks.mounted(disks.stack.enter_context(disks.loop(image))))
        return full_twice(tests, mount)


def full_tmpfs(tests):
    need_root()
    need_programs("mount")
    with Disks() as disks:
        return full_twice(tests, disks.stack.enter_context(disks.mounted("tmpfs", "-t", "tmpfs", "-o", "size=64m")))


def full_twice(tests, mount):
    told, failures = [], []
    for name in FULL:
        try:
            told.append(tests(name, LEAT_STORAGE_DIR=mount))
        except RuntimeError as failure:
            failures.append(str(failure))
        for entry in mount.iterdir():
            if entry.is_file():
                entry.unlink()
            elif entry.name != "lost+found":
                shutil.rmtree(entry)
    if failures:
        raise RuntimeError("\n".join(told + failures))
    return "; ".join(told)


SCENARIOS = {"kill": kill, "damage": damage, "power": power, "writes": writes, "flushes": flushes, "full": full,
             "full-tmpfs": full_tmpfs, "streaming": streaming}
SUITES = ("storage", "streaming")


def build(debug):
    """The test binaries by suite."""
    command = ["cargo", "test", "--no-run", "--locked", "--message-format=json"]
    command += [word for suite in SUITES for word in ("--test", suite)]
    done = subprocess.run(command + ["--release"] * (not debug), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"the tests do not build: {' '.join(command)}")
    messages = map(json.loads, done.stdout.splitlines())
    return {message["target"]["name"]: message["executable"] for message in messages
            if message.get("reason") == "compiler-artifact" and message["target"]["name"] in SUITES}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="scenario", help="which ones (all)")
    parser.add_argument("--rounds", type=int, help="rounds of each (each has its own default)")
    parser.add_argument("--seed", type=int, default=random.getrandbits(32), help="where chance begins (anywhere)")
    parser.add_argument("--debug", action="store_true", help="use a debug build")
    parser.add_argument("--binary", nargs=2, action="append", metavar=("SUITE", "FILE"),
                        help="use this test binary for that suite (storage, streaming) and build none")
    options = parser.parse_args()
    for name in options.scenarios:
        if name not in SCENARIOS:
            parser.error(f"{name}: not one of {', '.join(SCENARIOS)}")
    # Ends as an error does, so that nothing stays mounted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    # nbdfuse aborts when its server has gone.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    tests = Tests(dict(options.binary or ()) or build(options.debug), options.rounds, options.seed)
    failed = False
    for name in options.scenarios or SCENARIOS:
        begun = time.monotonic()
        try:
            outcome = f"passed: {SCENARIOS[name](tests)}"
        except Missing as missing:
            outcome = f"skipped: {missing} is missing"
        except (RuntimeError, subprocess.CalledProcessError, OSError) as error:
            failed = True
            outcome = f"FAILED (--seed {options.seed}):\n{error}"
        print(f"{name}, {time.monotonic() - begun:.0f} s: {outcome}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
