"""Arrays, scalars and dtypes of numpy keep their type, layout and contents on the way out."""

import subprocess
import sys

import numpy as np
import pytest

import pyisolate
from cells import PATIENCE, new_cell, run
from posted import empty, sent

RECORD = "[('id', '<i4'), ('at', '>f8', (2, 3)), ('in', [('s', 'S3'), ('t', 'M8[ns]')])]"

ARRAYS = [
    "np.arange(6)",
    "np.arange(24).reshape(2, 3, 4)",
    "np.asfortranarray(np.arange(6).reshape(2, 3))",
    "np.array(3.5)",
    "np.array(7, dtype='>i2')",
    "np.empty(0)",
    "np.empty((0, 3))",
    "np.zeros((2, 0, 4), order='F')",
    "np.arange(10)[::2]",
    "np.arange(10)[::-1]",
    "np.arange(24).reshape(2, 3, 4)[:, 1, ::2]",
    "np.broadcast_to(np.arange(3), (4, 3)).copy()",
    "np.array([True, False])",
    "np.array([1, 2], dtype='u1')",
    "np.array([1, 2], dtype='>u8')",
    "np.array([0.5, np.nan, np.inf], dtype='f2')",
    "np.array([0.5], dtype=np.longdouble)",
    "np.array([1 + 2j], dtype='c8')",
    "np.array(['a', 'grüße', ''])",
    "np.array([b'a', b'bcd'])",
    "np.array([b'ab\\0'], dtype='V3')",
    "np.array(['2024-01-01', 'NaT'], dtype='M8[D]')",
    "np.array(['2024-01-01T00:00:01'], dtype='>M8[ns]')",
    "np.array([1, -5], dtype='m8[25us]')",
    f"np.zeros(3, dtype={RECORD})",
    "np.zeros((2, 2), dtype=np.dtype([('a', 'i1'), ('b', 'f8')], align=True))",
    "np.zeros(2, dtype={'names': ['x'], 'formats': ['i4'], 'offsets': [4], 'itemsize': 16})",
    "np.zeros(3, dtype=[])",
    # Large enough to travel out of band.
    "np.arange(100_000.0)",
    "np.arange(100_000).reshape(10, 100, 100)",
    "np.asfortranarray(np.arange(100_000).reshape(10, 100, 100))",
    "np.arange(100_000)[::2]",
    f"np.zeros(1000, dtype={RECORD})",
    "np.full(50_000, 'NaT', dtype='M8[us]')",
]


@pytest.fixture(scope="module")
def shared_cell():
    with new_cell(allowed_imports=["numpy"]) as cell:
        run(cell, "import numpy as np")
        yield cell


@pytest.fixture
def cell(shared_cell):
    yield shared_cell
    empty(shared_cell)


@pytest.mark.parametrize("expression", ARRAYS)
def test_arrays_arrive_as_they_were(cell, expression):
    expected = eval(expression)
    got = sent(cell, expression)
    assert type(got) is np.ndarray
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    assert got.dtype.fields == expected.dtype.fields
    np.testing.assert_array_equal(got, expected)
    assert got.flags.writeable
    if expected.flags.f_contiguous:
        assert got.flags.f_contiguous
    if expected.size:
        got[...] = np.zeros((), got.dtype)
        np.testing.assert_array_equal(got, np.zeros_like(got))


def test_axes_keep_their_order(cell):
    expression = "np.arange(100_000).reshape(10, 100, 100).transpose(1, 2, 0)"
    expected = eval(expression)
    got = sent(cell, expression)
    np.testing.assert_array_equal(got, expected)
    assert got.shape == expected.shape


@pytest.mark.parametrize("size", [5, 100_000])
def test_a_read_only_array_stays_read_only(cell, size):
    run(
        cell,
        f"""
frozen = np.arange({size})
frozen.flags.writeable = False
post([frozen, np.arange({size})])
""",
    )
    frozen, free = cell.recv(PATIENCE)
    np.testing.assert_array_equal(frozen, free)
    free[0] = 1
    # A small one travels in the pickle, where numpy itself would make it writable too.
    if size > 1000:
        with pytest.raises(ValueError, match="read-only"):
            frozen[0] = 1


def test_a_large_array_is_not_copied_and_outlives_all_else():
    rows = 8 << 20  # 64 MiB
    with new_cell(allowed_imports=["numpy"]) as cell:
        run(cell, f"import numpy as np\npost({{'a': np.arange({rows}), 'b': np.ones(4096)}})")
        message = cell.recv(PATIENCE)
    array = message["a"]
    del message
    assert array.shape == (rows,)
    assert array[0] == 0
    assert array[-1] == rows - 1
    assert int(array.sum()) == rows * (rows - 1) // 2
    assert not array.flags.owndata
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    assert type(base).__name__ == "SharedBytes"
    array += 1
    assert array[0] == 1
    assert len(base) == array.nbytes


def test_many_arrays_of_one_message_do_not_touch(cell):
    got = sent(cell, "[np.full(5000, number) for number in range(20)]")
    for number, array in enumerate(got):
        array += 100
        assert (array == number + 100).all()


SCALARS = [
    "np.bool_(True)",
    "np.int8(-3)",
    "np.uint64(2**64 - 1)",
    "np.float16(0.5)",
    "np.float64(-1.5)",
    "np.longdouble('0.1')",
    "np.complex64(1 - 2j)",
    "np.str_('grüße')",
    "np.str_('')",
    "np.bytes_(b'x')",
    "np.datetime64('2024-01-01T00:00:00', 'ns')",
    "np.timedelta64(5, 's')",
    "np.void(b'abc')",
    f"np.zeros(1, dtype={RECORD})[0]",
]


@pytest.mark.parametrize("expression", SCALARS)
def test_scalars_arrive_as_they_were(cell, expression):
    expected, got = eval(expression), sent(cell, expression)
    assert type(got) is type(expected)
    assert got.dtype == expected.dtype
    assert got == expected


def test_a_record_scalar_can_be_changed(cell):
    got = sent(cell, f"np.zeros(1, dtype={RECORD})[0]")
    got["id"] = 5
    assert got["id"] == 5


@pytest.mark.parametrize(
    "expression",
    [
        "np.dtype('f8')",
        "np.dtype('>u2')",
        "np.dtype('M8[25ms]')",
        "np.dtype('U7')",
        "np.dtype(('i4', (2, 3)))",
        f"np.dtype({RECORD})",
        "np.dtype([('a', 'i1'), ('b', 'f8')], align=True)",
    ],
)
def test_dtypes_arrive_as_they_were(cell, expression):
    expected, got = eval(expression), sent(cell, expression)
    assert got == expected
    assert got.isalignedstruct == expected.isalignedstruct
    assert repr(got) == repr(expected)


def test_arrays_share_their_dtype(cell):
    got = sent(cell, f"(lambda kind: [np.zeros(2, kind), np.zeros(3, kind)])(np.dtype({RECORD}))")
    assert got[0].dtype is got[1].dtype


def test_an_array_of_objects_is_refused(cell):
    with pytest.raises(pyisolate.SandboxError, match="tolist"):
        sent(cell, "np.array([1, None])")


def test_a_host_without_numpy_is_told_so():
    code = f"""
import sys
sys.modules["numpy"] = None
import pyisolate
with pyisolate.spawn("no-numpy", allowed_imports=["numpy"]) as cell:
    cell.exec("import numpy as np; post(np.arange(3)); post('next')").wait({PATIENCE})
    try:
        cell.recv({PATIENCE})
    except ImportError as error:
        assert "install numpy in the host" in str(error), error
        assert error.__cause__ is not None
    else:
        raise AssertionError("an array arrived without numpy")
    assert cell.recv({PATIENCE}) == "next"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)
