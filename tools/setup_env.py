"""Make .venv and install wassily with its developer tools into it; called by the Makefile.

Standard library only, and no syntax of newer Pythons: an unsuitable Python has to get as far as
saying so. Every failure is one line that names the remedy; what pip said is in the log.
"""

from __future__ import print_function

import os
import platform
import re
import signal
import subprocess
import sys
import time

OLDEST, NEWEST = (3, 10), (3, 13)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = ".venv"
VENV_PYTHON = os.path.join(VENV, "bin", "python")
LOG = os.path.join(VENV, "install.log")
# Stands while pip is at work. Found at the start, it tells that an install was cut off and
# that half a package may lie there: the environment is then made anew.
MARK = os.path.join(VENV, ".installing")

OFFLINE = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|Failed to establish"
    r"|Temporary failure in name resolution|Network is unreachable|Connection refused"
    r"|Connection aborted|ProxyError|RemoteDisconnected|Could not fetch URL"
)
CERTIFICATE = re.compile(r"SSLError|CERTIFICATE_VERIFY_FAILED")


class Failure(Exception):
    """What stopped the set-up, in one line."""


def suits():
    return OLDEST <= sys.version_info[:2] <= NEWEST


def check_python():
    if not suits():
        age = "old" if sys.version_info[:2] < OLDEST else "new"
        raise Failure(
            "Python %s (%s) is too %s: 3.10 to 3.13 is needed; install one, or name it: "
            "make PYTHON=/path/to/python3.12" % (platform.python_version(), sys.executable, age)
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        raise Failure(
            "Python %s (%s) lacks its module %s: install it (on Debian and Ubuntu: "
            "apt install python%d.%d-venv), or name another Python: "
            "make PYTHON=/path/to/python3.12"
            % ((platform.python_version(), sys.executable, error.name) + sys.version_info[:2])
        )


def environment():
    """Give pip our terms: no questions, and nothing of the caller that leads out of .venv."""
    env = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1", PYTHONUNBUFFERED="1")
    for name in ("PYTHONHOME", "PYTHONPATH", "PIP_USER", "PIP_TARGET", "PIP_PREFIX"):
        env.pop(name, None)
    return env


def venv_version():
    """Ask the Python of .venv for its version; None where it does not run or has no pip."""
    code = "import sys, pip; print('%d.%d' % sys.version_info[:2])"
    try:
        words = subprocess.check_output(
            [VENV_PYTHON, "-c", code], stderr=subprocess.DEVNULL, env=environment()
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return tuple(int(part) for part in words.decode().strip().split("."))


def usable(chosen):
    """Tell whether the .venv that is there can be kept."""
    if os.path.exists(MARK):
        return False
    version = venv_version()
    if chosen:
        return version == sys.version_info[:2]
    return version is not None and OLDEST <= version <= NEWEST


def make_venv(show):
    show.line("making %s with Python %s" % (VENV, platform.python_version()))
    process = subprocess.Popen(
        [sys.executable, "-m", "venv", "--clear", VENV],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(),
    )
    words = process.communicate()[0].decode("utf-8", "replace").strip()
    if process.returncode != 0:
        raise Failure(
            "%s could not be made (%s): check that the folder can be written and the disk has "
            "room, or name another Python: make PYTHON=/path/to/python3.12"
            % (VENV, last_line(words) or "no reason given")
        )


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


class Show(object):
    """Progress: short lines; on a terminal, a last one that is written over."""

    def __init__(self):
        self.terminal = sys.stdout.isatty()
        self.open = False

    def line(self, text):
        self.end()
        print("wassily: " + text)
        sys.stdout.flush()

    def passing(self, text):
        if self.terminal:
            sys.stdout.write("\r\033[K  " + text[:76])
            sys.stdout.flush()
            self.open = True

    def end(self):
        if self.open:
            sys.stdout.write("\r\033[K")
            sys.stdout.flush()
            self.open = False

    def pip(self, line):
        """Say in a few words what pip is doing."""
        word = line.split()
        if not word:
            return
        large = re.search(r"([\w.+-]+)\.whl.*\(([\d.]+) ([MG]B)\)", line)
        if large and (large.group(3) == "GB" or float(large.group(2)) >= 50):
            self.line("  %s, %s %s" % ((large.group(1).split("-")[0],) + large.group(2, 3)))
        elif word[0] in ("Collecting", "Downloading", "Processing", "Requirement"):
            name = word[3] if word[0] == "Requirement" and len(word) > 3 else word[-1]
            name = word[1] if word[0] == "Collecting" else name
            self.passing(os.path.basename(name.split("(")[0]))
        elif line.startswith("Installing collected packages:"):
            self.line("  packages to put in place: %d" % (line.count(",") + 1))
        elif "Retrying (" in line:
            self.passing("the package index does not answer; trying again")


def run_pip(arguments, log, show):
    """Run pip with its words in the log; return them and its exit status."""
    command = [VENV_PYTHON, "-m", "pip", "install", "--no-input", "--progress-bar", "off"]
    process = subprocess.Popen(
        command + arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(),
    )
    lines = []
    try:
        for raw in process.stdout:
            line = raw.decode("utf-8", "replace").rstrip()
            lines.append(line)
            log.write(raw)
            log.flush()
            show.pip(line)
        return process.wait(), lines
    except BaseException:
        process.terminate()
        process.wait()
        raise


def reason(lines):
    """Turn pip's last words into one line with a remedy."""
    text = "\n".join(lines)
    tail = "\n".join(lines[-60:])
    # Under a constraint, a package that was not found is reported as a conflict with it.
    missing = re.search(r"No matching distribution found for (\S+)", tail) or re.search(
        r"The user requested \(constraint\) (\S+)", tail
    )
    if "No space left on device" in tail:
        return "the disk is full: make room and run make again"
    if CERTIFICATE.search(text if missing else tail):
        return (
            "the package index's certificate is not trusted here: point PIP_CERT at your "
            "network's certificate file and run make again"
        )
    if OFFLINE.search(text if missing else tail):
        return (
            "the package index cannot be reached: connect this machine to the network (or set "
            "PIP_INDEX_URL to a mirror that it reaches) and run make again"
        )
    if missing:
        return (
            "pip finds no %s for Python %d.%d on %s %s where it looks: let it use a package index "
            "that has it (see PIP_INDEX_URL, PIP_NO_INDEX and `pip config list`), or name another "
            "Python: make PYTHON=/path/to/python3.12"
            % ((missing.group(1),) + sys.version_info[:2] + (platform.system(), platform.machine()))
        )
    errors = [line for line in lines if re.match(r"\s*(ERROR|\w+Error): ", line)]
    return "pip failed (%s)" % (errors[-1].strip() if errors else last_line(text))


def install(show):
    show.line("installing the tested versions (constraints.txt); pip's words go to " + LOG)
    # The build tool first and under the constraints too: pip would fetch its own, unpinned,
    # and would need the network for it even where nothing is left to install.
    steps = [["hatchling", "editables"], ["--no-build-isolation", "--editable", ".[dev]"]]
    with open(LOG, "wb") as log:
        for arguments in steps:
            status, lines = run_pip(["--constraint", "constraints.txt"] + arguments, log, show)
            if status < 0:
                raise Failure("pip was stopped by signal %d: run make again" % -status)
            if status != 0:
                if not any(line.startswith("Installing collected") for line in lines):
                    os.remove(MARK)  # nothing was touched, so .venv can be kept
                raise Failure("%s. What pip said: %s" % (reason(lines), LOG))


def set_up(stamp, chosen, show):
    check_python()
    if os.path.exists(stamp):
        os.remove(stamp)
    if not usable(chosen):
        make_venv(show)
    started = time.time()
    open(MARK, "w").close()
    install(show)
    open(stamp, "w").close()
    os.remove(MARK)
    show.line("ready in %.0f s: %s" % (time.time() - started, os.path.join(VENV, "bin", "wassily")))


def interrupt(signum, frame):
    raise KeyboardInterrupt


def main(arguments):
    if "--suits" in arguments:
        return 0 if suits() else 1
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, interrupt)
    show = Show()
    try:
        set_up(arguments[-1], "--chosen" in arguments, show)
    except KeyboardInterrupt:
        show.end()
        print("wassily: the set-up was interrupted; run make again to finish it", file=sys.stderr)
        return 130
    except (Failure, OSError) as failure:
        show.end()
        print("wassily: %s" % failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
