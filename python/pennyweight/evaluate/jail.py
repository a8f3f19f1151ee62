# SPDX-License-Identifier: Apache-2.0
"""The inside of the sandbox: one process that shuts itself in, runs one program, and says how it went.

Run by ``sandbox.py`` as a script of its own (``python -I jail.py``); imports nothing but the standard library, so that
it starts in a few milliseconds. It reads one order from stdin, as JSON, and writes lines of JSON to stdout:
``{"token", "why"}`` from the program's process when the program has run to its end (``why`` is empty) or raised, and
``{"status"}`` from its parent. A program that exits early, crashes or is killed leaves no token, and so never passes.

The processes, with the order ``"full": true``:

    sandbox.py ── launcher ─────── init (process 1 of its own namespace) ── the program
                  unshares user,   builds the view of the file system,       no capabilities, no new privileges,
                  mount, network,  waits; when it ends the kernel kills      limits on time, memory, processes,
                  process, IPC     all that is left inside                   files; stdin, stdout, stderr: /dev/null

- File system: an empty tmpfs as root, the libraries of the system and of this Python read-only, a private /tmp of
  limited size, /dev/{null,zero,random,urandom}. No /etc, no home, no /proc.
- Network: a namespace with no interface that is up.
- Processes: `RLIMIT_NPROC`, which the kernel does not apply to the machine's own root: run by root, the program becomes
  `nobody`. Process 1 takes no signals from inside, so that killing the parent does nothing.
- No further user namespaces, which would give the program mounts, and so memory, of its own.

With ``"full": false`` only the limits hold: the program can read what its user can read, and reach the network.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any, NoReturn

NOBODY = 65534
NAMESPACES = (
    0x00020000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000
)  # mount, UTS, IPC, process, network
NEW_USER = 0x10000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
MNT_DETACH = 2
ATTR_READ_ONLY, ATTR_NOSUID, ATTR_NODEV, AT_RECURSIVE = 1, 2, 4, 0x8000
SYS_MOUNT_SETATTR = 442  # the same number on every architecture
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
DEVICES = ("null", "zero", "random", "urandom")

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    done = libc.mount(
        source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode() or None
    )
    check(done, f"mount {target}")


def read_only(path: str, flags: int) -> None:
    attributes = (ctypes.c_uint64 * 4)(ATTR_READ_ONLY | ATTR_NOSUID | (ATTR_NODEV if flags else 0))
    done = libc.syscall(
        SYS_MOUNT_SETATTR, -100, path.encode(), flags, ctypes.byref(attributes), ctypes.sizeof(attributes)
    )
    check(done, f"make {path} read-only")


def die_with_parent(parent: int) -> None:
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() not in (parent, 0):  # it ended before the line above; 0: it is outside this namespace
        os._exit(1)


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def map_users(process: str, uid: int, gid: int) -> None:
    """Root inside is the user outside; run by root, `nobody` exists inside too."""
    extra = f"\n{NOBODY} {NOBODY} 1" if uid == 0 else ""
    if uid != 0:
        write(f"/proc/{process}/setgroups", "deny")
    write(f"/proc/{process}/gid_map", f"0 {gid} 1{extra}")
    write(f"/proc/{process}/uid_map", f"0 {uid} 1{extra}")


def enter_namespaces() -> None:
    uid, gid, me = os.getuid(), os.getgid(), os.getpid()
    if uid != 0:
        check(libc.unshare(NEW_USER | NAMESPACES), "unshare")
        map_users("self", uid, gid)
    else:  # a map of two users must be written from outside
        inner, outer = os.pipe()
        helper = os.fork()
        if helper == 0:
            try:
                os.close(outer)
                if os.read(inner, 1):
                    map_users(str(me), uid, gid)
                    os._exit(0)
            finally:
                os._exit(1)
        os.close(inner)
        try:
            check(libc.unshare(NEW_USER | NAMESPACES), "unshare")
            os.write(outer, b"1")
        finally:
            os.close(outer)
            failed = os.waitpid(helper, 0)[1] != 0
        if failed:
            raise OSError("the users of the new namespace could not be mapped")
        os.setgroups([])
    write("/proc/sys/user/max_user_namespaces", "0")  # of this namespace: none inside it


def libraries() -> list[str]:
    """The folders of shared libraries and Python modules."""
    bases = dict.fromkeys((sys.prefix, sys.base_prefix, "/", "/usr", "/usr/local"))
    found = [os.path.join(base, name) for base in bases for name in ("lib", "lib32", "lib64")]
    return [path for path in found if os.path.isdir(path)]


def build_view(root: str, disk_bytes: int) -> None:
    """Make `root`, an empty folder, the root of this process, as the head of this file draws it."""
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    os.mkdir(root + "/tmp")
    mount("tmpfs", root + "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, f"size={disk_bytes},nr_inodes=1k,mode=1777")
    for path in libraries():  # some may lie under /tmp
        inside = root + path
        if os.path.lexists(inside):
            continue  # it lies in one that is there
        os.makedirs(os.path.dirname(inside), exist_ok=True)
        if os.path.islink(path):
            os.symlink(os.readlink(path), inside)
        else:
            os.mkdir(inside)
            mount(path, inside, "", MS_BIND | MS_REC)
            read_only(inside, AT_RECURSIVE)
    os.mkdir(root + "/dev")
    for name in DEVICES:
        write(f"{root}/dev/{name}", "")
        mount(f"/dev/{name}", f"{root}/dev/{name}", "", MS_BIND)
    os.chdir(root)
    check(libc.pivot_root(b".", b"."), "pivot_root")
    check(libc.umount2(b".", MNT_DETACH), "detach the outside")
    os.chdir("/")
    read_only("/", 0)
    os.chdir("/tmp")


def drop_privileges() -> None:
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    if os.getuid() == 0 and has_nobody():
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
    libc.capset(ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def has_nobody() -> bool:
    try:
        os.setresgid(-1, NOBODY, -1)
        os.setresgid(-1, 0, -1)
    except OSError:
        return False
    return True


def set_limits(limits: dict[str, Any]) -> None:
    seconds = max(1, round(limits["seconds"]))
    for kind, most in (
        (resource.RLIMIT_CPU, seconds + 2),
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["disk_bytes"]),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead
    signal.setitimer(signal.ITIMER_REAL, limits["seconds"])  # SIGALRM ends it


def say(answer: int, **words: object) -> None:
    os.write(answer, json.dumps(words).encode() + b"\n")


def run_program(order: dict[str, Any], answer: int) -> NoReturn:
    program, token = order["program"], order["token"]
    why = ""
    try:
        exec(compile(program, "<sample>", "exec"), {"__name__": "sample"})
    except BaseException as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    say(answer, token=token, why=why)
    os._exit(0)


def supervise(program: int, seconds: float, answer: int) -> NoReturn:
    """Wait for the program's process, end it where it outlives its own alarm, and say how it ended."""

    def end(number: int, frame: object) -> None:
        os.kill(program, signal.SIGKILL)
        say(answer, status=-signal.SIGALRM)
        os._exit(0)

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds + 1)
    while True:
        child, status = os.wait()  # orphans come here too
        if child == program:
            say(answer, status=os.waitstatus_to_exitcode(status))
            os._exit(0)


def main() -> NoReturn:
    order = json.load(sys.stdin.buffer)
    die_with_parent(order["parent"])
    answer = os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)
    try:
        write("/proc/self/oom_score_adj", "1000")  # short of memory, the machine ends this first
        if order["full"]:
            enter_namespaces()
            launcher = os.getpid()
            init = os.fork()
            if init:
                os.waitpid(init, 0)
                os._exit(0)
            die_with_parent(launcher)
            build_view(order["root"], order["limits"]["disk_bytes"])
        else:
            os.chdir(order["root"])
        program = os.fork()
        if program:
            supervise(program, order["limits"]["seconds"], answer)
        os.setsid()  # else what it sends to its group would reach those above it
        drop_privileges()
        set_limits(order["limits"])
    except OSError as error:
        say(answer, refused=str(error))
        os._exit(1)
    run_program(order, answer)


if __name__ == "__main__":
    main()
