"""Optical flow that another tool computed: found, counted, and read as it is. Used in decode workers, so it imports no torch.

Layouts, for a video whose id without suffix is ``NAME``, below a folder ``ROOT`` or, where none is given, in the folder of its frames:

=======================================================  =========================================================================
``NAME/flow_x/00001.jpg`` and ``NAME/flow_y/00001.jpg``  also ``x`` and ``y``, ``u`` and ``v``; any image type that OpenCV reads
``flow_x/NAME/00001.jpg`` and ``flow_y/NAME/00001.jpg``  the same, the other way round (two-stream networks: ``u/NAME/frame000001.jpg``)
``NAME/flow_x_00001.jpg`` and ``NAME/flow_y_00001.jpg``  TSN; also ``x_00001.jpg`` and ``y_00001.jpg`` (mmaction2)
``NAME.npy``                                             floating point [K - 1, H, W, 2] or [K - 1, 2, H, W], displacements in pixels
=======================================================  =========================================================================

Images count from 0 or from 1 without a gap. Flow i is the motion from frame i to frame i + 1, so K frames have K - 1 flows.

``flow.json`` in ROOT, which ``actioncache flow write`` leaves there, says how the bytes of images were made; a spec must say the same.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from extract.spec import FlowSpec
from store.errors import FeatureError, SpecError

WRITTEN = "flow.json"
WRITTEN_BY = "actioncache"
PAIRS = (("flow_x", "flow_y"), ("x", "y"), ("u", "v"))
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class FlowFiles:
    """The flow of one video: two equally long series of grey images, or one array."""

    images: tuple[tuple[Path, Path], ...] = ()
    array: Path | None = None

    def __len__(self) -> int:
        return len(self.images) if self.array is None else len(self._mapped(self.array))

    @property
    def place(self) -> Path:
        """What to call it in a message."""
        return self.images[0][0].parent if self.array is None else self.array

    def check_count(self, num_frames: int) -> None:
        """Raise ``FeatureError`` unless there is one flow less than frames."""
        if len(self) != num_frames - 1:
            raise FeatureError(
                f"{self.place}: {len(self)} flows for a video of {num_frames} frames; there must be {num_frames - 1}, one from each frame "
                "to the next. Were they computed from another encoding, at another frame rate, or not to the end?"
            )

    def read(self, index: int) -> np.ndarray:
        """Flow ``index``: uint8 [H, W, 2] as the images hold it, or float32 [H, W, 2] in pixels from an array."""
        if self.array is not None:
            flow = self._mapped(self.array)[index]
            flow = np.ascontiguousarray(flow if flow.shape[-1] == 2 else np.moveaxis(flow, 0, -1), dtype=np.float32)
            if not np.isfinite(flow).all():
                raise FeatureError(f"{self.array}: flow {index} has NaN or Inf")
            return flow
        x, y = (_read_grey(path) for path in self.images[index])
        if x.shape != y.shape:
            sizes = f"{x.shape[1]}x{x.shape[0]} but {self.images[index][1].name} {y.shape[1]}x{y.shape[0]}"
            raise FeatureError(f"{self.images[index][0]} is {sizes}; both components need one size")
        return np.stack([x, y], 2)

    @staticmethod
    def _mapped(path: Path) -> np.ndarray:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, TypeError, SyntaxError) as error:
            raise FeatureError(f"{path}: not an array that can be read: {error}") from None
        if not isinstance(array, np.ndarray) or array.ndim != 4 or array.dtype.kind != "f" or 2 not in (array.shape[1], array.shape[3]):
            shape = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else "an archive"
            raise FeatureError(f"{path}: {shape}; flow is floating point [K - 1, H, W, 2] or [K - 1, 2, H, W]")
        return array


def find_flow(root: Path | None, video: Path, video_id: str) -> FlowFiles:
    """The flow of a video below ``root`` (none: in ``video``, a folder of frames); ``FeatureError`` for none or several."""
    tried: list[str] = []
    found: dict[Path, FlowFiles] = {}
    for x, y, what in _candidates(root, video, video_id):
        tried.append(what)
        if x == y and x.is_file():
            found[x] = FlowFiles(array=x)
        elif x != y and (series := _series(x)):
            found[x] = FlowFiles(images=_paired(x, series, y, _series(y)))
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise FeatureError(f"{video_id}: flow in more than one place: {', '.join(map(str, found))}; keep one of them")
    advice = "; give the folder of the flow files with --flow-root" if root is None else ""
    raise FeatureError(f"{video_id}: no flow found; looked for {', '.join(tried)}{advice}")


def check_written(folder: Path, spec: FlowSpec) -> None:
    """Raise ``SpecError`` where ``folder/flow.json`` says that its images were made with another bound or rounding than ``spec`` has.

    There is nothing to check where there is no such file, where it is another program's, and where the files hold pixels.
    """
    path = folder / WRITTEN
    try:
        written = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if not str(written.get("written_by", "")).startswith(WRITTEN_BY) or written["layout"] == "npy":
            return
        found: dict[str, float | str] = {"bound": float(written["flow"]["bound"]), "quantise": str(written["flow"]["quantise"])}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise SpecError(f"{path} cannot be read ({type(error).__name__}: {error}); it should say how the flow beside it was made") from None
    asked: dict[str, float | str] = {"bound": spec.bound, "quantise": spec.quantise or "symmetric"}
    if found != asked:
        made, said = (f"bound {values['bound']:g} and quantise {values['quantise']}" for values in (found, asked))
        flags = f"--flow.bound {found['bound']:g} --flow.quantise {found['quantise']}"
        raise SpecError(f"{path}: this flow was written with {made}, but the spec says {said}; set {flags}")


def check_root(folder: Path, spec: FlowSpec) -> None:
    """As ``check_written`` of ``--flow-root``; also ``SpecError`` where it is no folder, which would fail every video."""
    if not folder.is_dir():
        raise SpecError(f"--flow-root {folder} is no folder; check its name, and that its disk is mounted")
    check_written(folder, spec)


def written_folders(root: Path | None, video: Path, video_id: str) -> tuple[Path, ...]:
    """Where ``flow.json`` of a video's flow may be: in ``root``, or in the folder of its frames and those above it that its id names."""
    return (root,) if root is not None else (video, *video.parents[: len(PurePosixPath(video_id).parts)])


def flow_name(video_id: str) -> str:
    """What flow files of a video are called by: its id without suffix."""
    return str(PurePosixPath(video_id).with_suffix(""))


def _candidates(root: Path | None, video: Path, video_id: str) -> Iterator[tuple[Path, Path, str]]:
    """(x, y, both in words); x and y are prefixes of image names (a folder's prefix ends in a slash), or one and the same array's path."""
    base = video if root is None else _inside(root, video_id)
    for x, y in PAIRS:
        yield base / x / "*", base / y / "*", f"{base / x}/"
        yield base / f"{x}_*", base / f"{y}_*", f"{base / x}_*"
        if root is not None:
            name = base.relative_to(root)
            yield root / x / name / "*", root / y / name / "*", f"{root / x / name}/"
    if root is not None:
        array = base.with_name(base.name + ".npy")
        yield array, array, str(array)


def _inside(root: Path, video_id: str) -> Path:
    """``root`` / the id without its suffix; an id that leads elsewhere is refused."""
    name = PurePosixPath(video_id)
    if name.is_absolute() or ".." in name.parts or not name.name:
        raise FeatureError(f"{video_id}: this id is no relative path, so no flow can be looked for below {root}")
    with_suffix = root / name
    return with_suffix if with_suffix.is_dir() else root / flow_name(video_id)


def _series(pattern: Path) -> dict[int, Path]:
    """Images of one folder by number: those whose name is the prefix before the ``*``, then anything that ends in digits."""
    prefix = pattern.name.removesuffix("*")
    if not pattern.parent.is_dir():
        return {}
    found: dict[int, Path] = {}
    expression = re.compile(re.escape(prefix) + (r"(\d+)" if prefix else r".*?(\d+)"))
    for path in sorted(pattern.parent.iterdir()):
        match = expression.fullmatch(path.stem)
        if match and path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            number = int(match[1])
            if number in found:
                raise FeatureError(f"{path} and {found[number].name} have one number; keep one series of images in a folder")
            found[number] = path
    return found


def _paired(x: Path, xs: dict[int, Path], y: Path, ys: dict[int, Path]) -> tuple[tuple[Path, Path], ...]:
    """Both series by number; ``FeatureError`` for a gap, another start than 0 or 1, or numbers that only one of them has."""
    if xs.keys() != ys.keys():
        odd = sorted(xs.keys() ^ ys.keys())
        raise FeatureError(f"{x}: {len(xs)} images but {len(ys)} of {y}; number {odd[0]} is in one of them only")
    first, last = min(xs), max(xs)
    if first not in (0, 1) or last - first + 1 != len(xs):
        missing = next((number for number in range(first, last) if number not in xs), None)
        gap = f", number {missing} is missing" if missing is not None else ""
        raise FeatureError(f"{x}: {len(xs)} images numbered {first} to {last}{gap}; they must count from 0 or 1 without a gap")
    return tuple((xs[number], ys[number]) for number in range(first, last + 1))


def _read_grey(path: Path) -> np.ndarray:
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE) if path.stat().st_size else None
    if image is None:
        raise FeatureError(f"{path}: not an image that can be read")
    return np.asarray(image)
