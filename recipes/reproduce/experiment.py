"""What an experiment is: the points it needs, and how their results are shown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from recipes.reproduce.page.presentation import Presentation
from recipes.reproduce.setting import Setting
from recipes.reproduce.sweep.point import Point, Results


class Experiment(ABC):
    """One figure or table of a paper.

    `points` and `present` are functions of the setting and of results alone: nothing is kept between them, and drawing
    again computes nothing.
    """

    name: ClassVar[str]
    """The name on the command line."""
    title: ClassVar[str]
    """One line for the list of experiments."""
    source: ClassVar[str]
    """Paper, section, table or figure."""

    @abstractmethod
    def points(self, setting: Setting, results: Results) -> list[Point]:
        """The points that the results so far determine; called again with their results, until no new points come."""

    @abstractmethod
    def present(self, setting: Setting, results: Results) -> Presentation:
        """Figures, numbers and comparisons from the results of all points."""
