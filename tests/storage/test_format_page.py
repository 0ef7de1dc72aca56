"""The page of the format names everything that a file holds."""

import json
import re
import struct
from pathlib import Path

import pytest

from fairseq_bert_kd.cli import store_export
from fairseq_bert_kd.storage.topk import TopKInfo
from tests.storage.small_stores import NAME, make_corpus

PAGE = (Path(__file__).parents[2] / "docs" / "store_format.md").read_text(encoding="utf-8")
CODE = set(re.findall(r"`([^`]+)`", PAGE))


@pytest.fixture
def header(tmp_path):
    """The JSON object of a store with every field, read without our code."""
    fields = {"gold": True, "samples": 2, "mask_plan": "left-to-right", "passes": 1}
    make_corpus(**fields).write(tmp_path / NAME)
    content = (tmp_path / NAME).read_bytes()
    return json.loads(content[32 : 32 + struct.unpack_from("<I", content, 12)[0]])


def test_every_key_and_section(header):
    named = set(header) | set(header["info"]) | set(header["summary"])
    sections = {name.replace("source_hashes", "SIDE_hashes") for name in header["sections"]} - {
        "target_hashes"
    }
    assert sorted((named | sections) - CODE) == []


def test_every_status():
    assert set(TopKInfo.status_names[1:]) <= CODE


@pytest.mark.parametrize("part", ["record", "chunk_table_entry"])
def test_fields_stand_with_the_types_of_the_header(header, part):
    """A field and its type, `<f4` for example, are on one line of the page or in one sentence."""
    kinds = {name: kind for name, kind, _ in header[part]}
    kinds.pop("digest", None)  # stands as a whole, with its count
    for name, kind in kinds.items():
        shown = r"as above" if name.startswith(("gold_id", "gold_logit", "sample_")) else re.escape(kind)
        assert re.search(rf"`{name}`[^\n;]*{shown}", PAGE), (name, kind)


def test_every_column_of_a_table():
    columns = {"sentence", "position", "status", "source_hash", "target_hash", *store_export.TOKEN_COLUMNS}
    columns |= {*store_export.TOKEN_COLUMNS.values(), f"{store_export.NORMALISER_COLUMN}T"}
    assert sorted(columns - CODE) == []
