"""Samples out of folders, tables and functions: what is read, and what is said of each kind of wrong file."""

from __future__ import annotations

import io
import json
import struct
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_bench.task import Task, read_task
from edge_contracts.errors import EdgewrightError

Write = Callable[[Path], None]
HEAD = 'name = "t"\nmodel = "t.onnx"\n'
INPUT = '[inputs.x]\ndtype = "float32"\n'
PICTURES = '[data]\nimages = "p"\n'


def read(folder: Path, data: str, rest: str = INPUT, head: str = HEAD) -> Task:
    (folder / "t.onnx").write_bytes(b"")
    (folder / "t.toml").write_text(head + data + rest)
    return read_task(folder / "t.toml")


def pictures(folder: Path, *names: str, size: tuple[int, int] = (8, 6), value: int = 0) -> None:
    (folder / "p").mkdir(exist_ok=True)
    for name in names:
        Image.new("RGB", size, (value, 0, 0)).save(folder / "p" / name)


def sound(path: Path, *, count: int = 10, rate: int = 8000, channels: int = 1, width: int = 2) -> None:
    path.parent.mkdir(exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(bytes(range(count * channels * width)))


def all_of(task: Task) -> Any:
    """All samples in a task, those set aside for calibration too; their order is another."""
    return np.concatenate([task.x, task.calibration])


def outputs(metric: str, more: str = "") -> str:
    return f'[[outputs]]\nname = "o"\nmetric = "{metric}"\ntruth = "y"\n{more}'


# What is read


def test_pictures_with_classes_in_a_csv(tmp_path: Path) -> None:
    for i in range(10):
        pictures(tmp_path, f"{i}.png", value=i)
    rows = "file,label\n" + "".join(f"{i}.png,{'cat' if i % 2 else 'dog'}\n" for i in range(10)) + "\n"
    (tmp_path / "l.csv").write_text(rows)
    task = read(tmp_path, 'labels = ["dog", "cat"]\n' + PICTURES + 'labels = "l.csv"\n', INPUT + outputs("top1"))
    assert task.x.shape[1:] == (6, 8, 3)
    assert task.x.dtype == np.uint8
    assert [int(one) for one in task.y] == [int(one[0, 0, 0]) % 2 for one in task.x], "a truth stays with its sample"


def test_pictures_are_brought_to_one_size_and_grey_and_channels_first(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png")
    pictures(tmp_path, "c.png", "d.jpg", size=(20, 10))
    task = read(tmp_path, PICTURES + 'size = [4, 5]\ncolor = "grey"\nlayout = "nchw"\n')
    assert task.x.shape[1:] == (1, 4, 5)


COCO: dict[str, Any] = {
    "images": [{"id": 5, "file_name": "a.png"}, {"id": 9, "file_name": "b.png"}],
    "categories": [{"id": 90}, {"id": 3}],
    "annotations": [
        {"image_id": 9, "category_id": 90, "bbox": [1, 2, 3, 2]},
        {"image_id": 5, "category_id": 3, "bbox": [0, 0, 8, 6]},
        {"image_id": 5, "category_id": 3, "bbox": [0, 0, 8, 6], "iscrowd": 1},
    ],
}
NMS = '[[answer]]\nstep = "nms"\nboxes = "b"\nscores = "s"\nname = "o"\nimage = [6, 8]\n'


def boxes_of(task: Task) -> list[tuple[float, ...]]:
    truth = task.judged[0].truth
    assert isinstance(truth, list)
    return [(float(k), *map(float, b)) for one in truth for k, b in zip(one.classes, one.boxes, strict=True)]


def test_boxes_of_coco_are_corners_in_pixels_and_crowds_are_left_out(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png")
    (tmp_path / "c.json").write_text(json.dumps(COCO))
    read_one = read(tmp_path, PICTURES + 'coco = "c.json"\n', INPUT + NMS + outputs("map50"))
    assert boxes_of(read_one) in ([(0.0, 0.0, 0.0, 8.0, 6.0)], [(1.0, 1.0, 2.0, 4.0, 4.0)])


def test_boxes_of_yolo_become_those_of_coco(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png")
    (tmp_path / "y").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "y" / name).write_text("1 0.3125 0.5 0.375 0.3333333333\n\n")
    task = read(tmp_path, PICTURES + 'yolo = "y"\n', INPUT + NMS + outputs("map50"))
    assert boxes_of(task)[0] == pytest.approx((1, 1, 2, 4, 4))


def test_masks_keep_their_numbers_when_they_are_brought_to_another_size(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png")
    (tmp_path / "m").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.array([[0, 7], [3, 1]], np.uint8)).save(tmp_path / "m" / name)
    task = read(tmp_path, PICTURES + 'masks = "m"\nsize = [4, 4]\n', INPUT + outputs("miou", "axis = 1\n"))
    assert task.y[0].tolist() == [[0, 0, 7, 7]] * 2 + [[3, 3, 1, 1]] * 2


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_sounds_of_any_width_are_the_same_loudness(tmp_path: Path, width: int) -> None:
    for name in ("a.wav", "b.wav"):
        with wave.open(str(tmp_path / name), "wb") as file:
            file.setnchannels(2)
            file.setsampwidth(width)
            file.setframerate(8000)
            half = 0x40 << 8 * (width - 1)
            left = struct.pack("<I", half + (0x80 if width == 1 else 0) * (half < 0x80))[:width]
            file.writeframes((left + left) * 4)
    (tmp_path / "w").mkdir()
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).rename(tmp_path / "w" / name)
    task = read(tmp_path, '[data]\nwav = "w"\nlength = 6\n')
    assert task.x[0].tolist() == [0x4000] * 4 + [0, 0]


def test_a_table_has_its_columns_by_name_and_gaps_are_nan(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,kind\n" + "1,,x\n2,5,y\n" * 10)
    task = read(tmp_path, '[data]\ntable = "t.csv"\ntarget = "kind"\n', INPUT + outputs("top1"))
    values = all_of(task)
    assert values.shape == (20, 2)
    assert np.isnan(values[:, 1]).sum() == 10
    assert (task.y == (task.x[:, 0] == 2)).all()
    chosen = read(tmp_path, '[data]\ntable = "t.csv"\ncolumns = ["b"]\n')
    assert chosen.x.shape[1:] == (1,)


def test_a_parquet_file_is_read_as_the_csv(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    table = pa.table({"a": [1.5, None] * 10, "b": [True, False] * 10, "y": ["n", "p"] * 10})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    task = read(tmp_path, '[data]\ntable = "t.parquet"\ntarget = "y"\n', INPUT + outputs("top1"))
    first = {tuple(np.nan_to_num(row, nan=-1)): int(y) for row, y in zip(task.x, task.y, strict=True)}
    assert first == {(1.5, 1.0): 0, (-1.0, 0.0): 1}


def test_a_function_gives_arrays_by_name(tmp_path: Path) -> None:
    (tmp_path / "d.py").write_text(
        "import numpy as np\ndef s():\n    return {'x': np.ones((9, 2)), 'y': [0, 1, 2] * 3}\n"
    )
    task = read(tmp_path, 'data = "d.py:s"\n', INPUT + outputs("top1"))
    assert task.count + len(task.calibration) == 9


# What is refused


def wrong_csv(text: str) -> Write:
    def write(folder: Path) -> None:
        pictures(folder, "a.png", "b.png")
        (folder / "l.csv").write_text(text)

    return write


def wrong_coco(**changed: Any) -> Write:
    def write(folder: Path) -> None:
        pictures(folder, "a.png", "b.png")
        (folder / "c.json").write_text(json.dumps(COCO | changed))

    return write


def wrong_yolo(text: str | None) -> Write:
    def write(folder: Path) -> None:
        pictures(folder, "a.png", "b.png")
        (folder / "y").mkdir()
        if text is not None:
            (folder / "y" / "a.txt").write_text(text)

    return write


def same_stems(folder: Path) -> None:
    pictures(folder, "a.png", "a.jpg")
    (folder / "y").mkdir()


def yolo_file(folder: Path) -> None:
    pictures(folder, "a.png")
    (folder / "y").write_text("")


def broken_picture(folder: Path) -> None:
    pictures(folder, "a.png")
    (folder / "p" / "b.png").write_bytes((folder / "p" / "a.png").read_bytes()[:40])


def two_sizes(folder: Path) -> None:
    pictures(folder, "a.png")
    pictures(folder, "b.png", size=(9, 9))


def color_masks(folder: Path) -> None:
    pictures(folder, "a.png", "b.png")
    (folder / "m").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 6)).save(folder / "m" / name)


LABELS, YOLO, COCOS = PICTURES + 'labels = "l.csv"\n', PICTURES + 'yolo = "y"\n', PICTURES + 'coco = "c.json"\n'

PICTURE_MISTAKES: list[tuple[str, Write, str, str]] = [
    ("no folder", lambda _: None, PICTURES, "t.toml data.images: no such folder"),
    ("an empty folder", lambda f: (f / "p").mkdir(), PICTURES, "p: 0 files"),
    ("no file of labels", lambda f: pictures(f, "a.png"), LABELS, "t.toml data.labels: no such file"),
    ("a picture cut off", broken_picture, PICTURES, "b.png: cannot be read as an image"),
    ("two sizes", two_sizes, PICTURES, "p: "),
    ("labels of what is not there", wrong_csv("file,label\nz.png,1\n"), LABELS, "z.png: cannot be read"),
    ("labels outside the folder", wrong_csv("file,label\n../t.toml,1\n"), LABELS, "l.csv: '../t.toml' is not in"),
    ("labels at the root", wrong_csv("file,label\n/etc/passwd,1\n"), LABELS, "l.csv: '/etc/passwd' is not in"),
    ("another heading", wrong_csv("path,class\na.png,1\n"), LABELS, "l.csv: has columns path, class"),
    ("a file twice", wrong_csv("file,label\na.png,1\na.png,0\n"), LABELS, "l.csv: names a file twice"),
    ("one field too many", wrong_csv("file,label\n\na.png,1,2\n"), LABELS, "l.csv: line 3 has 3 fields"),
    ("no line", wrong_csv(""), LABELS, "l.csv: has no row"),
    ("a label left out", wrong_csv("file,label\na.png,\nb.png,1\n"), LABELS, "l.csv: a label is missing"),
    ("two truths", wrong_csv(""), LABELS + 'coco = "c.json"\n', "t.toml data.coco: labels and coco"),
    ("coco is a list", wrong_coco(categories=[], images=[1]), COCOS, "c.json: is no COCO file"),
    ("coco's annotations are numbers", wrong_coco(annotations=[1]), COCOS, "c.json: is no COCO file"),
    ("coco's box is short", wrong_coco(annotations=[{"image_id": 5, "category_id": 3, "bbox": [1]}]), COCOS, "c.json"),
    ("coco of another class", wrong_coco(annotations=[{"image_id": 5, "category_id": 7, "bbox": [0] * 4}]), COCOS,
     "c.json: is no COCO file"),
    ("coco names one image twice", wrong_coco(images=[*COCO["images"], {"id": 1, "file_name": "a.png"}]), COCOS,
     "c.json: names an image twice"),
    ("coco names no image", wrong_coco(images=[], annotations=[]), COCOS, "c.json: names no image"),
    ("coco outside", wrong_coco(images=[{"id": 5, "file_name": "../t.onnx"}], annotations=[]), COCOS, "is not in"),
    ("a box of minus size", wrong_coco(annotations=[{"image_id": 5, "category_id": 3, "bbox": [5, 5, -2, 1]}]), COCOS,
     "p[y]: box 0 ends before it begins"),
    ("a box of nan", wrong_coco(annotations=[{"image_id": 5, "category_id": 3, "bbox": [5, float("nan"), 2, 1]}]),
     COCOS, "p[y]: the boxes hold NaN"),
    ("yolo without a file", wrong_yolo(None), YOLO, "y: has no file for any image"),
    ("yolo of words", wrong_yolo("cat 0 0 1 1\n"), YOLO, "a.txt line 1: is no class"),
    ("yolo of four numbers", wrong_yolo("0 0.5 0.5 1\n"), YOLO, "a.txt line 1: is no class"),
    ("yolo is a file", yolo_file, YOLO, "data.yolo: no such folder"),
    ("two images of one name", same_stems, YOLO, "a.jpg and a.png would both be told by a"),
    ("masks in color", color_masks, PICTURES + 'masks = "m"\n', "a.png: is RGB"),
]  # fmt: skip


@pytest.mark.parametrize(("write", "data", "says"), [one[1:] for one in PICTURE_MISTAKES],
                         ids=[one[0] for one in PICTURE_MISTAKES])  # fmt: skip
def test_a_mistake_in_a_folder_of_pictures_is_named(tmp_path: Path, write: Write, data: str, says: str) -> None:
    write(tmp_path)
    rest = INPUT + (NMS + outputs("map50") if "coco" in data or "yolo" in data else "")
    with pytest.raises(EdgewrightError) as refused:
        read(tmp_path, data, rest)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def cut_sound(folder: Path) -> None:
    sound(folder / "w" / "a.wav")
    whole = (folder / "w" / "a.wav").read_bytes()
    (folder / "w" / "a.wav").write_bytes(whole[:-3])


def two_rates(folder: Path) -> None:
    sound(folder / "w" / "a.wav")
    sound(folder / "w" / "b.wav", rate=16000)


def two_lengths(folder: Path) -> None:
    sound(folder / "w" / "a.wav")
    sound(folder / "w" / "b.wav", count=11)


def no_sound(folder: Path) -> None:
    (folder / "w").mkdir()
    (folder / "w" / "a.wav").write_bytes(b"ID3" + bytes(100))


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (cut_sound, "a.wav: ends after 17 of 20 bytes"),
        (two_rates, "w: a.wav has 8000 numbers a second, b.wav 16000"),
        (two_lengths, "a.wav is [10], b.wav [11]"),
        (no_sound, "a.wav: cannot be read as PCM sound"),
    ],
)
def test_a_mistake_in_a_folder_of_sounds_is_named(tmp_path: Path, write: Write, says: str) -> None:
    write(tmp_path)
    with pytest.raises(EdgewrightError) as refused:
        read(tmp_path, '[data]\nwav = "w"\n')
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("text", "data", "says"),
    [
        (b"a,y\n1,0\n", 'target = "z"', "t.csv has no column 'z'; it has a, y"),
        (b"a,y\n1,0\n", 'columns = ["q"]', "no column 'q'"),
        (b"y\n1\n0\n", 'target = "y"', "t.csv: has no column but the target 'y'"),
        (b"a,y\nred,0\n", 'target = "y"', "t.csv: column 'a' holds 'red', no numbers"),
        (b"a,y\n1,\n2,1\n", 'target = "y"', "t.csv: the target 'y' is missing"),
        (b"a,a\n1,2\n", "", "t.csv: names a column twice"),
        (b"a,y\n1e39,0\n", 'target = "y"', "column 'a' holds numbers beyond float32"),
        (b"a,y\ninf,0\n", 'target = "y"', "column 'a' holds numbers beyond float32"),
        (b"a,y\n\xff\xfe,0\n", 'target = "y"', "t.csv: cannot be read"),
    ],
)
def test_a_mistake_in_a_table_is_named(tmp_path: Path, text: bytes, data: str, says: str) -> None:
    (tmp_path / "t.csv").write_bytes(text)
    with pytest.raises(EdgewrightError) as refused:
        read(tmp_path, f'[data]\ntable = "t.csv"\n{data}\n')
    assert says in str(refused.value)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1" + bytes(40))
    with pytest.raises(EdgewrightError, match=r"t\.parquet: cannot be read"):
        read(tmp_path, '[data]\ntable = "t.parquet"\n')


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def s(): raise RuntimeError('no disk')", "RuntimeError: no disk"),
        ("import sys\ndef s(): sys.exit(0)", "SystemExit"),
        ("import sys\nsys.exit(0)", "SystemExit"),
        ("def s(:", "SyntaxError"),
        ("import not_there_at_all", "ModuleNotFoundError"),
        ("s = 5", "has no function 's'"),
        ("def s(): return [1, 2]", "returned list, not arrays by name"),
        ("def s(): return {'x': [[1, 2], [3]]}", "rows of different lengths"),
        ("def s(): return {'x': [object()]}", "returned object"),
        ("def s(): return {'x': 5.0}", "it has no sample"),
        ("def s(): return {'z': [1.0]}", "no such array"),
    ],
)
def test_a_function_that_fails_is_named(tmp_path: Path, code: str, says: str) -> None:
    (tmp_path / "d.py").write_text(code + "\n")
    with pytest.raises(EdgewrightError) as refused:
        read(tmp_path, 'data = "d.py:s"\n')
    assert says in str(refused.value)
    assert "d.py" in str(refused.value)


@pytest.mark.parametrize("named", ["d.py", "gone.py:s", "d.txt:s", "d.py:s()", ":s"])
def test_a_function_that_is_none_is_named(tmp_path: Path, named: str) -> None:
    (tmp_path / "d.py").write_text("s = 1\n")
    with pytest.raises(EdgewrightError, match=r"t\.toml data"):
        read(tmp_path, f'data = "{named}"\n')


def test_an_array_whose_header_asks_for_a_terabyte_is_refused_before_it_is_made(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 300)})
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(64))
    with pytest.raises(EdgewrightError, match=r"t\.npz"):
        read(tmp_path, '[data]\nfile = "t.npz"\n')


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"x": np.array(["a"] * 9)}, "t.npz[x]: samples are numbers"),
        ({"x": np.full((9, 2), np.inf)}, "t.npz[x]: contains infinity"),
        ({"x": np.float32(3)}, "t.npz[x]: it has no sample"),
        ({"x": np.ones((9, 2)), "y": np.r_[np.nan, np.ones(8)]}, "t.npz[y]: contains NaN"),
        ({"x": np.ones((9, 2)), "y": np.ones(8)}, "t.npz[y]: 8 values for 9 samples"),
        ({"q": np.ones((9, 2))}, "t.npz[x]: no such array"),
        ({"x": np.ones((9, 2)), "calib_z": np.ones((9, 2))}, "t.npz[calib_x]: no such array"),
        ({"x": np.ones((1, 2)), "y": np.ones(1)}, "too few to set one aside"),
    ],
)
def test_a_mistake_in_an_archive_is_named(tmp_path: Path, content: dict[str, Any], says: str) -> None:
    np.savez(tmp_path / "t.npz", **content)
    rest = INPUT + (outputs("mae") if "y" in content else "")
    with pytest.raises(EdgewrightError) as refused:
        read(tmp_path, '[data]\nfile = "t.npz"\n', rest)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ('metric = "f1_at"', "outputs[0].threshold: f1_at needs it"),
        ('metric = "accuracy_at"\nthreshold = nan\ntruth = "y"', "outputs[0].threshold: must be finite"),
        ('metric = "recall_at"\ntruth = "y"', "outputs[0].k: recall_at needs it"),
        ('metric = "top1"\ntruth = "y"\nmax_drop = "much"', "outputs[0].max_drop: 'much' is no limit"),
        ('metric = "top1"\ntruth = "y"\nmax_drop = 2\nunit = "W"', "outputs[0].unit: top1 has no unit"),
        ('metric = "mae"\ntruth = "y"\nmax_drop = "5%"\nunit = "W"', "outputs[0].unit"),
        ('metric = "auroc"', "outputs[0].truth: auroc needs an array"),
        ('metric = "top1"\ntruth = "labels"', "t.npz[labels]: no such array"),
        ('metric = "topp"', "'topp' is not known"),
        ('metric = "m.py:score"', "no such file"),
        ('metric = "top1"\ntruth = "y"\nweight = -1', "weight"),
        ('metric = "map50"\ntruth = "y"', "[M, 6]"),
    ],
)
def test_a_mistake_in_what_is_judged_is_named(tmp_path: Path, output: str, says: str) -> None:
    np.savez(tmp_path / "t.npz", x=np.ones((9, 2)), y=np.arange(9) % 2)
    with pytest.raises(EdgewrightError) as refused:
        read(tmp_path, '[data]\nfile = "t.npz"\n', f'{INPUT}[[outputs]]\nname = "o"\n{output}\n')
    assert says in str(refused.value)
