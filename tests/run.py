"""Runs every check and test of the repository and prints a summary with the count per language.

`make test` calls it after tests/setup.sh. Two steps run at a time, of different languages; the
steps of one language run in their order, those of LAST when all others are done. All steps run,
also after a failure; the exit status says whether all passed. Give parts of step names as
arguments to run only those: python3 tests/run.py rust c
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / "bindings" / "python"
ELIXIR = ROOT / "bindings" / "elixir"
NIF = ELIXIR / "native" / "sss_nif"
BIN = ROOT / ".venv" / "bin"


@dataclass
class Step:
    """One command. The patterns `passed` and `skipped` find the counts of tests in its output."""

    language: str
    name: str
    command: list[str]
    cwd: Path = ROOT
    passed: str = ""
    skipped: str = ""
    environment: dict[str, str] = field(default_factory=dict)


# These use what the steps of the other languages have built.
LAST = ("All", "Packages", "Docs")
# How many steps run at a time.
WORKERS = 2
# The whole output of steps that fail.
LOGS = ROOT / "target" / "test-logs"
# Lines that name a failure, of which only the end of the output would not tell.
FAILURE = r"^test .*FAILED$|panicked at|^FAIL |^FAILED |^  \d+\) test "
# Far more than any step takes.
LONGEST_S = 1200
HOST = f"{os.uname().machine}-unknown-linux-gnu"
CARGO_PASSED = r"test result: \w+\. (\d+) passed"
CARGO_SKIPPED = r"; (\d+) ignored;"
# Lines of any step that say what was not run, and why.
NOT_RUN = r"^(?:not run under |SKIPPED |(?:plug|telemetry|phoenix): .* SKIPPED |conformance: .* not applicable ).*"

# Tests of what no engine may do otherwise.
PYTHON_ON_EVERY_ENGINE = " ".join(
    f"tests/test_{name}.py" for name in ("conformance", "login", "results", "threads", "two_servers")
)
# The adapters of web frameworks.
FRAMEWORKS = " ".join(f"tests/frameworks/test_{name}.py" for name in ("adapters", "django", "flask"))
# What depends on the version of a framework as well.
OWN_SUITES = "tests/frameworks/test_starlette.py tests/frameworks/test_upstream_suites.py"
ELIXIR_ON_EVERY_ENGINE = " ".join(f"test/{name}_test.exs" for name in ("conformance", "store", "race"))
REDIS = ("redis", "redis-unix", "redis-tls", "redis-sentinel", "redis-cluster")


def with_redis(language: str, engine: str, command: str, passed: str, skipped: str, what: str = "tests") -> Step:
    """A shell command, in the root of the repository, with the servers of with_redis.rs."""
    return Step(
        language,
        f"{what} on {engine}",
        ["cargo", "test", "--quiet", "--locked", "--test", "processes", "--", "--with-redis", "sh", "-c", command],
        passed=passed,
        skipped=skipped,
        environment={"SSS_TEST_ENGINE": engine},
    )


CLIPPY_LIB = ["cargo", "clippy", "--locked", "--lib", "--no-default-features"]

STEPS = [
    Step("Rust", "rustfmt", ["cargo", "fmt", "--all", "--check"]),
    Step("Rust", "clippy", ["cargo", "clippy", "--locked", "--all-targets", "--", "-D", "warnings"]),
    # Each engine alone, and none but memory:.
    *(
        Step(
            "Rust",
            f"clippy, only {features or 'memory'}:",
            [*CLIPPY_LIB, f"--features={features}", "--", "-D", "warnings"],
        )
        for features in ("", "lmdb", "redis", "tls", "capi")
    ),
    Step("Rust", "documentation", ["cargo", "doc", "--locked", "--no-deps"]),
    Step("Rust", "tests", ["cargo", "test", "--locked", "--no-fail-fast"], passed=CARGO_PASSED, skipped=CARGO_SKIPPED),
    *(
        Step(
            "Rust",
            f"conformance on {engine}:",
            ["cargo", "test", "--locked", "--test", "it", "conformance::"],
            passed=CARGO_PASSED,
            skipped=CARGO_SKIPPED,
            environment={"SSS_TEST_ENGINE": engine},
        )
        for engine in ("lmdb", "lmdb-power", *REDIS)
    ),
    Step(
        "Rust",
        "races on redis:",
        ["cargo", "test", "--locked", "--test", "it", "races::"],
        passed=CARGO_PASSED,
        skipped=CARGO_SKIPPED,
        environment={"SSS_TEST_ENGINE": "redis-unix"},
    ),
    Step(
        "Rust",
        "model and races on lmdb:",
        ["cargo", "test", "--locked", "--test", "it", "--", "model::", "races::", "limits::", "store_api::"],
        passed=CARGO_PASSED,
        skipped=CARGO_SKIPPED,
        environment={"SSS_TEST_ENGINE": "lmdb"},
    ),
    # The sanitizers' runtimes come with rustc; only the flag is not stable yet.
    # The verifier is safe Rust, and its tests are long.
    Step(
        "Rust",
        "AddressSanitizer",
        ["cargo", "test", "--locked", "--lib", f"--target={HOST}", "--target-dir=target/asan", "--", "--skip=verify::"],
        passed=CARGO_PASSED,
        skipped=CARGO_SKIPPED,
        environment={"RUSTC_BOOTSTRAP": "1", "RUSTFLAGS": "-Zsanitizer=address"},
    ),
    Step("C", "library", ["make", "all"]),
    Step(
        "C",
        "shipped library",
        [str(BIN / "pytest"), "-q", "tests/packages", "--ignore=tests/packages/test_dist.py"],
        passed=r"(\d+) passed",
        skipped=r"(\d+) skipped",
    ),
    Step("C", "tests", ["make", "-C", "tests/c", "test"], passed=r"^C: (\d+) passed", skipped=r"^C: .*, (\d+) not run"),
    *(
        with_redis(
            "C",
            engine,
            "LD_LIBRARY_PATH=target/release tests/c/build/c99/conformance tests/conformance/*.txt",
            r"^conformance \(.*: (\d+) passed",
            r"^conformance \(.* (\d+) skipped",
        )
        for engine in REDIS
    ),
    Step(
        "Python",
        "ruff check",
        [
            str(BIN / "ruff"),
            "check",
            ".",
            "../../examples/python",
            "../../examples/django",
            "../../tests",
            "../../packaging",
        ],
        PYTHON,
    ),
    Step(
        "Python",
        "ruff format",
        [
            str(BIN / "ruff"),
            "format",
            "--check",
            ".",
            "../../examples/python",
            "../../examples/django",
            "../../tests",
            "../../packaging",
        ],
        PYTHON,
    ),
    Step(
        "Python",
        "mypy",
        [
            str(BIN / "mypy"),
            "--strict",
            "src",
            "tests",
            "../../examples/python",
            "../../examples/django",
            "../../tests",
            "../../packaging",
        ],
        PYTHON,
    ),
    Step("Python", "tests", [str(BIN / "pytest"), "-q"], PYTHON, r"(\d+) passed", r"(\d+) skipped"),
    *(
        Step(
            "Python",
            f"tests on {engine}:",
            [str(BIN / "pytest"), "-q", *PYTHON_ON_EVERY_ENGINE.split()],
            PYTHON,
            r"(\d+) passed",
            r"(\d+) skipped",
            {"SSS_TEST_ENGINE": engine},
        )
        for engine in ("lmdb", "lmdb-power")
    ),
    *(
        with_redis(
            "Python",
            engine,
            f"cd bindings/python && pytest -q {PYTHON_ON_EVERY_ENGINE}",
            r"(\d+) passed",
            r"(\d+) skipped",
        )
        for engine in REDIS
    ),
    Step(
        "Python",
        "oldest versions of the frameworks",
        [str(BIN / "pytest"), "-q", *FRAMEWORKS.split(), *OWN_SUITES.split()],
        PYTHON,
        r"(\d+) passed",
        r"(\d+) skipped",
        {"PYTHONPATH": str(ROOT / ".venv" / "oldest")},
    ),
    Step(
        "Python",
        "frameworks on lmdb:",
        [str(BIN / "pytest"), "-q", *FRAMEWORKS.split()],
        PYTHON,
        r"(\d+) passed",
        r"(\d+) skipped",
        {"SSS_TEST_ENGINE": "lmdb"},
    ),
    with_redis(
        "Python",
        "redis-unix",
        f"cd bindings/python && pytest -q {FRAMEWORKS}",
        r"(\d+) passed",
        r"(\d+) skipped",
        "frameworks",
    ),
    Step("Elixir", "rustfmt", ["cargo", "fmt", "--check"], NIF),
    Step(
        "Elixir", "clippy", ["cargo", "clippy", "--release", "--locked", "--all-targets", "--", "-D", "warnings"], NIF
    ),
    Step("Elixir", "format", ["mix", "format", "--check-formatted"], ELIXIR),
    Step("Elixir", "compile", ["mix", "compile", "--warnings-as-errors"], ELIXIR),
    Step("Elixir", "module cycles", ["mix", "xref", "graph", "--format", "cycles", "--fail-above", "0"], ELIXIR),
    Step("Elixir", "dialyzer", ["bash", "tests/dialyzer.sh"]),
    Step("Elixir", "tests", ["mix", "test"], ELIXIR, r"^Elixir: (\d+) passed", r"^Elixir: .* (\d+) skipped"),
    *(
        Step(
            "Elixir",
            f"tests on {engine}:",
            ["mix", "test", *ELIXIR_ON_EVERY_ENGINE.split()],
            ELIXIR,
            r"^Elixir: (\d+) passed",
            r"^Elixir: .* (\d+) skipped",
            {"SSS_TEST_ENGINE": engine},
        )
        for engine in ("lmdb", "lmdb-power")
    ),
    *(
        with_redis(
            "Elixir",
            engine,
            f"cd bindings/elixir && mix test {ELIXIR_ON_EVERY_ENGINE} test/redis_test.exs",
            r"^Elixir: (\d+) passed",
            r"^Elixir: .* (\d+) skipped",
        )
        for engine in REDIS
    ),
    Step(
        "All", "Python, Elixir and C together", [sys.executable, "tests/interop.py"], passed=r"^interop: (\d+) passed"
    ),
    Step("Packages", "make dist", ["make", "dist"]),
    Step("Packages", "tests", [str(BIN / "pytest"), "-q", "tests/packages/test_dist.py"], passed=r"(\d+) passed"),
    Step("Docs", "site", ["make", "docs"]),
    Step("Docs", "README snippets", [sys.executable, "tests/readme.py"], passed=r"(\d+) snippets ran"),
    Step("Docs", "demo", ["bash", "examples/demo.sh"]),
]


def main(wanted: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="sss-test-") as scratch:
        return run(wanted, scratch)


def run(wanted: list[str], scratch: str) -> int:
    environment = os.environ | {
        # Whatever a test leaves there goes with it.
        "TMPDIR": scratch,
        "CARGO_TERM_COLOR": "never",
        "RUSTDOCFLAGS": "-D warnings",
        "MIX_ENV": "test",
        "LC_ALL": "C.UTF-8",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
    steps = [step for step in STEPS if not wanted or any(part.lower() in title(step).lower() for part in wanted)]
    schedule = Schedule(steps)
    results: list[Result] = []

    def work() -> None:
        while step := schedule.take():
            result = execute(step, environment)
            with schedule.changed:
                report(result)
                results.append(result)
            schedule.finished(step)

    workers = [threading.Thread(target=work) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    counts: dict[str, list[int]] = {}
    for step in steps:
        counts[step.language] = [0, 0, 0]
    for result in results:
        tally = counts[result.step.language]
        # A check without tests of its own counts as one.
        tally[0] += 0 if result.status else max(result.passed, 1)
        tally[1] += 1 if result.status else 0
        tally[2] += result.skipped
    failures = [title(result.step) for result in results if result.status]
    print()
    for language, (passed, failed, skipped) in counts.items():
        print(f"  {language:<8}{passed:>7} passed {failed:>3} failed {skipped:>3} skipped")
    for failure in failures:
        print(f"  failed: {failure}")
    passed, failed, skipped = (sum(column) for column in zip(*counts.values(), strict=True)) if counts else (0, 1, 0)
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


def title(step: Step) -> str:
    return f"{step.language}: {step.name}"


class Schedule:
    """Which step runs next."""

    def __init__(self, steps: list[Step]) -> None:
        self.waiting = list(steps)
        self.running: list[Step] = []
        self.changed = threading.Condition()

    def take(self) -> Step | None:
        """Waits for a step that may run beside the running ones. None: all have been taken."""
        with self.changed:
            while self.waiting:
                step = next(filter(self.may_run, self.waiting), None)
                if step:
                    self.waiting.remove(step)
                    self.running.append(step)
                    return step
                self.changed.wait()
            return None

    def may_run(self, step: Step) -> bool:
        if step.language in LAST:
            return not self.running and all(other.language in LAST for other in self.waiting)
        return all(other.language != step.language for other in self.running)

    def finished(self, step: Step) -> None:
        with self.changed:
            self.running.remove(step)
            self.changed.notify_all()


@dataclass
class Result:
    step: Step
    status: int
    output: str
    passed: int
    skipped: int
    seconds: float


def execute(step: Step, environment: dict[str, str]) -> Result:
    start = time.monotonic()
    try:
        done = subprocess.run(
            step.command,
            cwd=step.cwd,
            env=environment | step.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=LONGEST_S,
        )
        status, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        status, output = 1, f"{error.stdout!r}\nstill running after {LONGEST_S} s: it hangs"
    except OSError as error:
        status, output = 1, str(error)
    passed = total(step.passed, output)
    skipped = total(step.skipped, output)
    if step.passed and status == 0 and passed == 0:
        status, output = 1, f"{output}\nno test was counted"
    return Result(step, status, output, passed, skipped, time.monotonic() - start)


def report(result: Result) -> None:
    words = "FAILED" if result.status else f"{result.passed} passed" if result.passed else "ok"
    if result.skipped:
        words += f", {result.skipped} skipped"
    print(f"{title(result.step):<40}{words:<28}{result.seconds:6.1f} s", flush=True)
    for line in dict.fromkeys(re.findall(NOT_RUN, result.output, re.MULTILINE)):
        print(f"    {line}", flush=True)
    if result.status:
        LOGS.mkdir(parents=True, exist_ok=True)
        log = LOGS / (re.sub(r"\W+", "-", title(result.step)).strip("-") + ".log")
        log.write_text(result.output)
        lines = result.output.splitlines()
        print("\n".join(line for line in lines[:-80] if re.search(FAILURE, line)))
        print("\n".join(lines[-80:]))
        print(f"    all of it: {log.relative_to(ROOT)}", flush=True)


def total(pattern: str, output: str) -> int:
    return sum(int(n) for n in re.findall(pattern, output, re.MULTILINE)) if pattern else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
