"""docs/run.schema.json is what the types say: `python -m tests.docs.test_run_schema` writes it anew."""

from __future__ import annotations

import json

from bench.lab import document
from tests.docs.pages import ROOT

FILE = ROOT / "docs" / "run.schema.json"


def test_the_schema_is_that_of_the_types() -> None:
    assert FILE.read_bytes() == document.schema()


def test_it_tells_what_each_kind_of_run_must_have() -> None:
    definitions = json.loads(FILE.read_text(encoding="utf-8"))["$defs"]
    assert {"series", "setup", "workload", "outcome"} <= set(definitions["Run"]["required"])
    assert definitions["Setup"]["additionalProperties"] is False


if __name__ == "__main__":
    FILE.write_bytes(document.schema())
