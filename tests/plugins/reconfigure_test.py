"""What an optional component's coming and going does to a folder that is already configured: the next build sees it.

    reconfigure_test.py BUILD_FOLDER
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from tiny import Workplace, check

build = Path(sys.argv[1]).resolve()
source = Path(__file__).resolve().parents[2]
place = Workplace(build / "tests" / "reconfigure")

# A checkout whose .venv holds LibTorch alone.
for name in ("CMakeLists.txt", "CMakePresets.json", "framework", "plugins", "launchers", "LICENSE"):
    (place / name).symlink_to(source / name)
packages = next((source / ".venv/lib").glob("python3*/site-packages"))
here = place / packages.relative_to(source)
here.mkdir(parents=True)
(here / "torch").symlink_to(packages / "torch")


def configured_again():
    """What CMake says when a build finds that it has to configure again; "" when it does not."""
    return place.run("cmake", "--build", "build", "--target", "build.ninja")


said = place.run("cmake", "--preset", "release", "-DATTUNE_TESTS=OFF")
check("Optional: Parquet files, no" in said, f"without Arrow: {said}")
check("CMake Warning" not in said, f"a newcomer sees no warning: {said}")
check("Optional:" not in configured_again(), "nothing changed, nothing is configured")

(here / "pyarrow").symlink_to(packages / "pyarrow")
said = configured_again()
check("Optional: Parquet files, yes" in said, f"Arrow has come: {said}")

(here / "pyarrow").unlink()
said = configured_again()
check("Optional: Parquet files, no" in said, f"Arrow has gone: {said}")
