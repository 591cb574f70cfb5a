"""Test images, for pictures in which a reader sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from recipes.reproduce.points.sample import Sample
from recipes.reproduce.sweep.point import Context, Point, Result


@dataclass(frozen=True, kw_only=True)
class Images(Point):
    """Some images of a draw's test set, kept so that drawing again needs no data.

    The result has shape (channels, height, width), and `pixels`: of each image its values 0 to 255 in base64, channel
    by channel and row by row.
    """

    kind: ClassVar[str] = "images"

    sample: Sample
    rows: tuple[int, ...]
    """Rows of the test set."""

    def run(self, context: Context) -> Result:
        """Read the images."""
        import base64

        data = self.sample.datamodule(context)
        x = data.require_test_set().x[list(self.rows)].mul(255).round().byte().numpy()
        return {
            "shape": data.image_shape,
            "pixels": [base64.b64encode(row.tobytes()).decode() for row in x],
            "data_source": data.source,
        }

    def describe(self) -> str:
        """The draw and how many."""
        return f"{len(self.rows)} test images, {self.sample}"

    @property
    def seconds(self) -> float:
        """Reading the set."""
        return 1.0
