"""The contract: seven operations, one version, frozen."""

import dataclasses
from enum import StrEnum

import pytest

import pyisolate
from pyisolate.runtime import protocol
from pyisolate.runtime.protocol import MINIMAL_CELL_ABI, CellOp

NAMES = ("exec", "call", "post", "recv", "log", "metric", "request")
RECORDS = [
    (protocol.ExecRequest("pass"), "exec"),
    (protocol.CallRequest("math.sqrt", (2,), {}), "call"),
    (protocol.PostEvent(1), "post"),
    (protocol.RecvRequest(0.5), "recv"),
    (protocol.LogEvent("info", "hello", {}), "log"),
    (protocol.MetricEvent("rows", 1.0, None), "metric"),
    (protocol.BrokerRequest("filesystem", "read", None), "request"),
]


def test_seven_operations_in_their_order():
    assert tuple(CellOp) == NAMES
    assert MINIMAL_CELL_ABI.operations == NAMES
    assert tuple(CellOp) == protocol.CELL_ABI
    assert protocol.CELL_ABI_NAMES == NAMES
    assert all(type(name) is str for name in protocol.CELL_ABI_NAMES)


def test_version_one():
    assert protocol.ABI_VERSION == 1
    assert MINIMAL_CELL_ABI.version == 1


def test_operations_are_texts():
    assert issubclass(CellOp, StrEnum)
    assert CellOp("exec") is CellOp.EXEC
    assert f"{CellOp.EXEC}" == "exec"
    with pytest.raises(ValueError, match="spawn"):
        CellOp("spawn")


@pytest.mark.parametrize("name", NAMES)
def test_the_contract_allows_its_operations(name):
    assert MINIMAL_CELL_ABI.allows(name)
    assert MINIMAL_CELL_ABI.allows(CellOp(name))


@pytest.mark.parametrize(
    "name", ["", "EXEC", "import", "spawn", "close", "eval", None, 1, b"exec", []]
)
def test_the_contract_allows_nothing_else(name):
    assert MINIMAL_CELL_ABI.allows(name) is False


@pytest.mark.parametrize("attribute", ["version", "operations", "more"])
def test_the_contract_is_immutable(attribute):
    with pytest.raises((AttributeError, TypeError)):
        setattr(MINIMAL_CELL_ABI, attribute, 2)
    assert isinstance(MINIMAL_CELL_ABI.operations, tuple)
    assert isinstance(MINIMAL_CELL_ABI, protocol.CellABI)


@pytest.mark.parametrize(("record", "operation"), RECORDS, ids=NAMES)
def test_records_are_frozen_and_say_their_operation(record, operation):
    assert record.op is CellOp(operation)
    assert type(record).op is CellOp(operation)
    for field in (*dataclasses.fields(record), None):
        with pytest.raises((AttributeError, TypeError)):
            setattr(record, field.name if field else "more", 1)
    assert record == dataclasses.replace(record)


def test_records_have_the_fields_that_the_contract_names():
    fields = {
        type(record).__name__: [field.name for field in dataclasses.fields(record)]
        for record, _ in RECORDS
    }
    assert fields == {
        "ExecRequest": ["source"],
        "CallRequest": ["target", "args", "kwargs"],
        "PostEvent": ["message"],
        "RecvRequest": ["timeout"],
        "LogEvent": ["level", "message", "fields"],
        "MetricEvent": ["name", "value", "tags"],
        "BrokerRequest": ["capability", "action", "payload"],
    }


def test_names_that_people_type():
    assert pyisolate.Sandbox is pyisolate.Cell
    assert pyisolate.DEFAULT_BACKEND == "process"
    assert pyisolate.SUPPORTED_BACKENDS == ("subinterpreter", "process", "microvm")
    assert pyisolate.LogEvent is protocol.LogEvent
    assert pyisolate.MetricEvent is protocol.MetricEvent
    for name in pyisolate.__all__:
        assert getattr(pyisolate, name) is not None


def test_the_error_tree():
    assert issubclass(pyisolate.TimeoutError, (pyisolate.SandboxError, TimeoutError))
    assert issubclass(pyisolate.TimeoutError, TimeoutError)
    assert issubclass(pyisolate.PolicyAuthError, pyisolate.PolicyError)
    for name in (
        "MemoryExceeded",
        "CPUExceeded",
        "WallTimeExceeded",
        "OutputExceeded",
        "OpenFilesExceeded",
        "NetworkExceeded",
        "ChildWorkExceeded",
        "CellDied",
        "ProtocolViolation",
        "GuestError",
        "PolicyError",
        "TimeoutError",
    ):
        assert issubclass(getattr(pyisolate, name), pyisolate.SandboxError)


def test_a_backend_that_lacks_something_is_no_value_error(monkeypatch, tmp_path):
    monkeypatch.setenv("PYISOLATE_CACHE", str(tmp_path))
    with pytest.raises(pyisolate.SandboxError, match="pyisolate image build"):
        pyisolate.spawn("backend", backend="microvm")


def test_a_policy_that_is_none_makes_no_cell():
    with pytest.raises(pyisolate.PolicyError, match="raed"):
        pyisolate.spawn("policy", policy={"fs": {"raed": ["/tmp"]}})
    with pytest.raises(TypeError, match="FilesystemCapability"):
        pyisolate.spawn("policy", capabilities={"filesystem": None})
    assert "policy" not in pyisolate.list_active()
