"""The picture of a training."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from temporal.epochs import Epoch


def curves_png(histories: "Mapping[str, Sequence[Epoch]]") -> bytes:
    """Loss and accuracy over the epochs, training dashed and validation solid, one line a run, as PNG."""
    from io import BytesIO

    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5))
    # not by a solver of layouts, which takes twice as long as drawing
    figure.subplots_adjust(left=0.09, right=0.985, bottom=0.145, top=0.965, wspace=0.22)
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for name, history in histories.items():
            records = [record for record in history if record["phase"] == "fit"]
            epochs = [record["epoch"] for record in records]
            lines = axes.plot(epochs, [record[f"train_{quantity}"] for record in records], "--", linewidth=1, label=f"{name} train")
            if records and f"val_{quantity}" in records[0]:
                values = [record[f"val_{quantity}"] for record in records]
                axes.plot(epochs, values, color=lines[0].get_color(), label=f"{name} validation")
        axes.set(xlabel="epoch", ylabel=quantity)
        axes.grid(alpha=0.3)
        if len(histories) == 1:
            axes.legend(fontsize="small")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
