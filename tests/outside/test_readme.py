"""The commands of the README that make containers; `tests/run` is what runs this."""

import re
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()
HELLO = Path("/tmp/hello.py")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def run(code: str) -> str:
    result = subprocess.run(
        ["bash", "-euc", code], check=False, cwd=REPOSITORY, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_demo_shows_the_main_job() -> None:
    demo, tests, _ = blocks("sh outside")
    assert tests == "tests/run\n"
    printed = run(demo)
    for text in ("segment-controller", "could not start", "exited", "trigger record 20000"):
        assert text in printed
    assert "Traceback" not in printed
    # In the end, nothing is left.
    assert printed.rstrip().splitlines()[-1].startswith("NAME")


def test_the_library_in_a_container_of_ones_own() -> None:
    (hello,) = blocks("python")
    *_, container = blocks("sh outside")
    HELLO.write_text(hello)
    run("tests/harness/container down try")
    printed = run(container)
    assert printed.startswith("booted ")
    assert "readout-1" in printed
