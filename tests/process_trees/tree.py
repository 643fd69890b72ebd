"""Grows a tree of processes that are hard to end; each writes `label pid start` to the given file.

usage: tree.py LOG [MEMBER...]
"""

import os
import signal
import sys

log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def report(label):
    with open("/proc/self/stat") as stat:
        start = stat.read().rsplit(")", 1)[1].split()[19]
    os.write(log, f"{label} {os.getpid()} {start}\n".encode())


def double():
    if os.fork():
        os._exit(0)


def deaf():
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def silent():
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def stopped():
    pass


STEPS = {
    "child": [],
    "group": [os.setpgrp],
    "double": [double],
    "session": [os.setsid],
    "deaf": [deaf],
    "bare": [],
    "silent": [silent],
    "stopped": [],
    "escaped": [double, os.setsid, double, deaf, silent],
    "escaped-bare": [double, os.setsid, double, deaf, silent],
    # Never the same process for longer than a fork takes; reports once.
    "comet": [double],
    "comet-session": [double],
}


def live(label):
    if label.startswith("comet"):
        if os.fork() == 0:
            while True:
                if os.fork():
                    os._exit(0)
                if label == "comet-session":
                    os.setsid()
    if label.endswith("bare"):
        os.execve("/bin/sleep", ["sleep", "1000"], {})
    if label == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    while True:
        signal.pause()


for member in sys.argv[2:]:
    if os.fork() == 0:
        for step in STEPS[member]:
            step()
        report(member)
        live(member)
report("leader")
live("leader")
