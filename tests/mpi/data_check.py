"""Opens a data file with h5py and checks it against the format: python data_check.py data.h5"""
import hashlib
import sys

import h5py
import numpy

with h5py.File(sys.argv[1]) as file:
    assert file.attrs["format"] == b"attune-dataset", file.attrs["format"]
    assert file.attrs["version"] == 1
    assert list(file.attrs["labels"]) == [b"0", b"5", b"10"]
    for name, split in file.items():
        rows = len(split["label"])
        assert split["tokens.offsets"].shape == (rows + 1,) and split["tokens.offsets"][-1] == len(split["tokens"])
        assert split["grid"].shape == (rows, 2, 3) and split["grid"].dtype == numpy.uint8
        assert (split["grid"][:, 0, 0] == split["label"][:]).all()
        assert all(split["tokens"][begin] == 1 for begin in split["tokens.offsets"][:-1]), "every sample begins with [CLS]"
        total = hashlib.sha256()
        for column in sorted(split):
            assert split[column].fletcher32, column
            total.update(column.encode() + b"\0" + split[column][()].tobytes())
        assert total.hexdigest() == split.attrs["sha256"].decode(), name
