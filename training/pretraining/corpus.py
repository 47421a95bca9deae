"""The text the small base model learns from: the standard library of the interpreter that runs it.

Twenty ordinary modules are left out for measurement, and with them whatever would give them away: their own tests,
and files that repeat most of their lines (`lib2to3.pgen2.tokenize` is a copy of an old `tokenize`).
"""

import hashlib
import re
import sysconfig
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

HELD_OUT_COUNT = 20
# Shorter files measure little more than a licence header; longer ones would outvote the other nineteen.
HELD_OUT_MIN_BYTES = 4_000
HELD_OUT_MAX_BYTES = 60_000
MAX_BYTES = 400_000
# What a program wrote (code pages, tables of Unicode properties) teaches nothing about writing code.
GENERATED = re.compile(r"gencodec|auto-?generated|generated (by|from|on)", re.IGNORECASE)
GENERATED_NOTICE_WITHIN_CHARS = 1_000
MAX_DIGIT_SHARE = 0.2
MAX_SHARED_LINES = 0.5

SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "__pycache__", "pydoc_data"})
TEST_FOLDERS = frozenset({"test", "tests", "idle_test"})


@dataclass(frozen=True)
class Document:
    """One source file: its path below the standard library, in POSIX form, and its text."""

    path: str
    text: str

    @cached_property
    def size_bytes(self) -> int:
        return len(self.text.encode())

    @property
    def is_test(self) -> bool:
        """Whether the file tests the library, rather than being the library."""
        *folders, name = self.path.split("/")
        return not TEST_FOLDERS.isdisjoint(folders) or name.startswith("test_")

    @property
    def module(self) -> str:
        """The dotted name to import it by: `json` for json/__init__.py."""
        return self.path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


@dataclass(frozen=True)
class Corpus:
    """What the model is trained on and what it is measured on; no file is in two of the three lists."""

    modules: list[Document]
    tests: list[Document]
    held_out: list[Document]

    @property
    def training(self) -> list[Document]:
        return self.modules + self.tests


def read_corpus(seed: int, root: Path | None = None) -> Corpus:
    """Read the standard library (or the tree below `root`) and leave the held-out modules of `seed` out.

    The same files and seed give the same corpus, in the same order.
    """
    documents = read_documents(root or standard_library())
    held_out = choose_held_out(documents, seed)
    left_out = {document.path for document in held_out}
    left_out |= {document.path for document in documents if any(tests(document, other) for other in held_out)}
    left_out |= paths_repeating(held_out, documents)
    kept = [document for document in documents if document.path not in left_out]
    return Corpus(
        modules=[document for document in kept if not document.is_test],
        tests=[document for document in kept if document.is_test],
        held_out=held_out,
    )


def standard_library() -> Path:
    """Return the folder of the running interpreter's standard library, also from inside a virtual environment."""
    return Path(sysconfig.get_paths()["stdlib"])


def read_documents(root: Path) -> list[Document]:
    """Return the Python files below `root` that a person wrote, each text once, ordered by path."""
    documents: dict[bytes, Document] = {}
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if not SKIPPED_FOLDERS.isdisjoint(relative.parts) or not 0 < path.stat().st_size <= MAX_BYTES:
            continue
        document = read_document(root, relative.as_posix())
        if document is not None and not is_generated(document.text):
            documents.setdefault(hashlib.sha256(document.text.encode()).digest(), document)
    return sorted(documents.values(), key=lambda document: document.path)


def read_document(root: Path, path: str) -> Document | None:
    """Read one file below `root`, line ends as they are; None where there is none or it is not text in UTF-8."""
    try:
        text = (root / path).read_bytes().decode("utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return None if "\0" in text else Document(path, text)


def is_generated(text: str) -> bool:
    """Whether the text says near its top that a program wrote it, or is a table of numbers."""
    digits = sum(map(text.count, "0123456789"))
    return digits > MAX_DIGIT_SHARE * len(text) or GENERATED.search(text, 0, GENERATED_NOTICE_WITHIN_CHARS) is not None


def choose_held_out(documents: list[Document], seed: int) -> list[Document]:
    """Choose the modules to measure on, ordered by path.

    Each path is ranked by a hash of its own, so that a file that comes or goes with another release of Python
    changes at most one of the twenty.
    """
    candidates = [
        document
        for document in documents
        if not document.is_test and HELD_OUT_MIN_BYTES <= document.size_bytes <= HELD_OUT_MAX_BYTES
    ]
    ranked = sorted(candidates, key=lambda document: hashlib.sha256(f"{seed}:{document.path}".encode()).digest())
    return sorted(ranked[:HELD_OUT_COUNT], key=lambda document: document.path)


def tests(document: Document, module: Document) -> bool:
    """Whether `document` looks like a test of `module`, going by names.

    Of asyncio.locks that is test_asyncio/test_locks.py and test_asyncio.py, but not test_asyncio/test_queues.py.
    """
    if not document.is_test:
        return False
    package, _, stem = module.module.lower().rpartition(".")
    stem = stem.strip("_")
    *folders, name = document.path.lower().removesuffix(".py").split("/")
    about = name.removeprefix("_").removeprefix("test_").strip("_")
    is_about_stem = about == stem or stem in re.split("_", about) or f"test_{stem}" in folders
    return is_about_stem or (package != "" and about == package.rpartition(".")[2])


def paths_repeating(held_out: list[Document], documents: list[Document]) -> set[str]:
    """Return the paths of `documents` that contain most of the distinctive lines of a held-out module."""
    lines_by_path = {document.path: distinctive_lines(document) for document in documents}
    return {
        path
        for path, lines in lines_by_path.items()
        for module in held_out
        if len(lines & lines_by_path[module.path]) > MAX_SHARED_LINES * max(len(lines_by_path[module.path]), 1)
    }


def distinctive_lines(document: Document) -> frozenset[str]:
    """Return the lines long enough not to be shared by chance."""
    return frozenset(line.strip() for line in document.text.splitlines() if len(line.strip()) >= 20)
