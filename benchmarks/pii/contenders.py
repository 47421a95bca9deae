"""The contenders, each in a process and an environment of its own. Nothing here imports the platform but the first one."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

Span = tuple[int, int, str]
BATCH_ROWS = {"Ours": 2_000}


class Contender:
    """Finds and masks in rows of a file; `spans` says what, in the words of our kinds."""

    kinds: frozenset[str] = frozenset()  # that it looks for

    def __init__(self, path: str) -> None:
        with open(path) as file:
            self._rows = [json.loads(line)["text"] for line in file]

    def known(self) -> list[str]:
        return sorted(self.kinds)

    def spans(self, rows: int) -> list[list[Span]]:
        return [self.find(text) for text in self._rows[:rows]]

    def measure(self, seconds: float) -> dict[str, float]:
        """Batch after batch, from the beginning again after the last one, for so long."""
        at, sizes = [0.0], [0]
        batches = self._batches()
        while at[-1] < seconds:
            size, batch = next(batches)
            begun = time.process_time()  # each has one thread, and none waits for anything
            self.mask(batch)
            at.append(at[-1] + time.process_time() - begun)
            sizes.append(sizes[-1] + size)
        half = next(place for place, size in enumerate(sizes) if size >= sizes[-1] / 2)
        return {
            "bytes": sizes[-1],
            "seconds": at[-1],
            "half": at[half] / at[-1] / (sizes[half] / sizes[-1]),  # 1: half the sample took half the time
        }

    def prepare(self, texts: list[str]) -> Any:
        return texts

    def mask(self, batch: Any) -> None:
        for text in batch:
            self.replace(text)

    def find(self, text: str) -> list[Span]:
        raise NotImplementedError

    def replace(self, text: str) -> str:
        raise NotImplementedError

    def _batches(self) -> Iterator[tuple[int, Any]]:
        count = BATCH_ROWS.get(type(self).__name__, 25)
        batches = [self._rows[first : first + count] for first in range(0, len(self._rows), count)]
        prepared = [(sum(len(text.encode()) for text in texts), self.prepare(texts)) for texts in batches]
        while True:
            self.forget()
            yield from prepared

    def forget(self) -> None:
        """What is remembered of the rows that come again."""


class Ours(Contender):
    def __init__(self, path: str, root: str) -> None:
        sys.path.insert(0, root)
        import pyarrow

        from datasets.pipeline import pii
        from datasets.pipeline.memory import keep_freed_memory
        from datasets.pipeline.pii import phones

        keep_freed_memory()  # as a run does
        pyarrow.set_cpu_count(1)
        pyarrow.set_io_thread_count(1)
        self._pa, self._pii, self._phones = pyarrow, pii, phones
        self.kinds = frozenset(pii.KINDS)
        super().__init__(path)

    def spans(self, rows: int) -> list[list[Span]]:
        found: list[list[Span]] = [[] for _ in range(rows)]
        for row, start, end, kind in self._pii.find(self._pa.array(self._rows[:rows])):
            found[row].append((start, end, kind))
        return found

    def prepare(self, texts: list[str]) -> Any:
        return self._pa.array(texts)

    def mask(self, batch: Any) -> None:
        self._pii.mask(batch, self._pii.find(batch), b"a key for the benchmark")

    def forget(self) -> None:
        self._phones.is_valid.cache_clear()


class PatternsInTurn(Contender):
    """Python's `re`, one pattern after the other over each text: what such a script usually holds."""

    patterns = {
        "EMAIL": r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}\b",
        "PHONE": r"(?:\+\d{1,3}[ .-]?)?\(?\d{2,4}\)?[ .-]?\d{3,4}[ .-]?\d{3,4}\b",
        "PAYMENT_CARD": r"\b(?:\d[ -]?){13,16}\b",
        "SSN": r"\b\d{3}-\d{2}-\d{4}\b",
        "IBAN": r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b",
        "IPV4": r"\b(?:\d{1,3}\.){3}\d{1,3}\b",
        "AWS_ACCESS_KEY": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
        "API_KEY": r"(?i)\b(?:api[_-]?key|secret|token|password)\b\s*[:=]\s*['\"]?([A-Za-z0-9_\-]{16,})",
    }
    kinds = frozenset(patterns)

    def __init__(self, path: str) -> None:
        self._compiled = {kind: re.compile(pattern) for kind, pattern in self.patterns.items()}
        super().__init__(path)

    def find(self, text: str) -> list[Span]:
        return [
            (*match.span(match.lastindex or 0), kind)
            for kind, pattern in self._compiled.items()
            for match in pattern.finditer(text)
        ]

    def replace(self, text: str) -> str:
        for kind, pattern in self._compiled.items():
            text = pattern.sub(f"<{kind}>", text)
        return text


class Presidio(Contender):
    """Its recognizers that are patterns, with spaCy's blank English pipeline, and no look at the network."""

    names = {
        "EMAIL_ADDRESS": "EMAIL",
        "PHONE_NUMBER": "PHONE",
        "CREDIT_CARD": "PAYMENT_CARD",
        "IBAN_CODE": "IBAN",
        "US_SSN": "SSN",
        "IP_ADDRESS": "IP",
        "UK_NINO": "NINO",
    }
    kinds = frozenset({*names.values(), "IPV4", "IPV6"} - {"IP"})

    def __init__(self, path: str) -> None:
        import spacy
        import tldextract
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry, predefined_recognizers
        from presidio_analyzer.nlp_engine import SpacyNlpEngine
        from presidio_anonymizer import AnonymizerEngine

        offline = tldextract.TLDExtract(suffix_list_urls=())
        tldextract.extract = tldextract.tldextract.extract = offline
        engine = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": "blank"}])
        engine.nlp = {"en": spacy.blank("en")}
        registry = RecognizerRegistry(supported_languages=["en"])
        for name in ("Email", "Phone", "CreditCard", "Iban", "UsSsn", "Ip", "UkNino"):
            if hasattr(predefined_recognizers, f"{name}Recognizer"):
                registry.add_recognizer(getattr(predefined_recognizers, f"{name}Recognizer")())
        self._analyzer = AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])
        self._anonymizer = AnonymizerEngine()
        super().__init__(path)

    def find(self, text: str) -> list[Span]:
        results = self._analyzer.analyze(text, language="en", entities=list(self.names))
        return [(each.start, each.end, self._kind(text, each)) for each in results]

    def replace(self, text: str) -> str:
        results = self._analyzer.analyze(text, language="en", entities=list(self.names))
        return str(self._anonymizer.anonymize(text, results).text)

    def _kind(self, text: str, result: Any) -> str:
        kind = self.names[result.entity_type]
        return ("IPV6" if ":" in text[result.start : result.end] else "IPV4") if kind == "IP" else kind


class Datatrove(Contender):
    """PIIFormatter, as its example pipelines use it."""

    kinds = frozenset({"EMAIL", "IPV4"})

    def __init__(self, path: str) -> None:
        from datatrove.pipeline.formatters import PIIFormatter

        self._formatter = PIIFormatter(only_remove_public_ips=True)
        super().__init__(path)

    def find(self, text: str) -> list[Span]:
        found = []
        for kind, replacer in (("EMAIL", self._formatter.emails_replacer), ("IPV4", self._formatter.ip_replacer)):
            for match in re.finditer(replacer.regex, text):
                if replacer.validator is None or replacer.validator(match[0]):
                    found.append((*match.span(), kind))  # noqa: PERF401
        return found

    def replace(self, text: str) -> str:
        return str(self._formatter.format(text))


class Scrubadub(Contender):
    """Its default detectors, without those that need a model."""

    names = {
        "email": "EMAIL",
        "phone": "PHONE",
        "credit_card": "PAYMENT_CARD",
        "social_security_number": "SSN",
        "national_insurance_number": "NINO",
        "credential": "PASSWORD",
    }
    kinds = frozenset(names.values())

    def __init__(self, path: str) -> None:
        import scrubadub

        self._scrubber = scrubadub.Scrubber(locale="en_US")
        super().__init__(path)

    def find(self, text: str) -> list[Span]:
        merged = (each for filth in self._scrubber.iter_filth(text) for each in getattr(filth, "filths", [filth]))
        return [(each.beg, each.end, self.names[each.type]) for each in merged if each.type in self.names]

    def replace(self, text: str) -> str:
        return str(self._scrubber.clean(text))


def same(first: Sequence[Span], second: Sequence[Span]) -> int:
    """How many of the first have one of the second of the same kind that covers at least half of both together."""
    waiting = list(second)
    hits = 0
    for start, end, kind in first:
        for other in waiting:
            both = min(end, other[1]) - max(start, other[0])
            if other[2] == kind and 2 * both >= max(end, other[1]) - min(start, other[0]):
                waiting.remove(other)
                hits += 1
                break
    return hits
