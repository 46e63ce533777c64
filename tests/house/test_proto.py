# SPDX-License-Identifier: Apache-2.0
"""A second opinion on our coding: Python's protobuf reads what src/wire wrote, knows every field, and writes the same bytes."""
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEEDS = sorted((ROOT / "tests/corpus/wire_messages_fuzz").iterdir())
# Selector byte of src/wire/messages_fuzz.cc -> message.
NAMES = ["Envelope", "Card", "ServiceRecord", "Setup", "DialProof", "SetupFrame", "Route", "SetupOkFrame", "HostAnswer", "Answer",
         "SetupErr", "Reset", "PathDown", "BindProof", "Control", "StateUpdate", "StateHead", "SnapshotHead", "Snapshot",
         "LogEntry", "StateOp", "RenewalRequest", "SessionToken"]


@pytest.fixture(scope="module")
def lane(tmp_path_factory):
    out = tmp_path_factory.mktemp("proto")
    subprocess.run(["protoc", f"-I{ROOT}/proto", f"--python_out={out}", "lane.proto"], check=True)
    sys.path.insert(0, str(out))
    try:
        import lane_pb2
    finally:
        sys.path.pop(0)
    return lane_pb2


def test_every_message_has_a_seed():
    assert {seed.read_bytes()[0] for seed in SEEDS} == set(range(len(NAMES)))


def test_the_contract_has_no_message_without_a_name_here(lane):
    top = set(lane.DESCRIPTOR.message_types_by_name)
    inside = {f.message_type.name for m in lane.DESCRIPTOR.message_types_by_name.values() for f in m.fields if f.message_type}
    assert top == set(NAMES) | inside


@pytest.mark.parametrize("seed", SEEDS, ids=lambda p: p.name)
def test_same_bytes(lane, seed):
    selector, body = seed.read_bytes()[0], seed.read_bytes()[1:]
    message = getattr(lane, NAMES[selector])()
    message.ParseFromString(body)
    again = type(message)()
    again.CopyFrom(message)
    again.DiscardUnknownFields()
    assert again.SerializeToString(deterministic=True) == body, "a field that the contract does not have, or another order"


def test_every_field_of_the_contract_is_coded(lane):
    """Each field is set in some seed: a field that src/wire forgot would be in none."""
    seen = set()

    def walk(message):
        for field, value in message.ListFields():
            seen.add(field.full_name)
            if field.message_type:
                for v in value if field.label == field.LABEL_REPEATED else [value]:
                    walk(v)

    for seed in SEEDS:
        data = seed.read_bytes()
        message = getattr(lane, NAMES[data[0]])()
        message.ParseFromString(data[1:])
        walk(message)
    contract = {f.full_name for m in lane.DESCRIPTOR.message_types_by_name.values() for f in m.fields}
    assert contract == seen
