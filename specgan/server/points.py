"""Sounds that the service found or made, by names that nobody can guess, so that requests can go on from them."""

import secrets
from collections import OrderedDict

from specgan.latent import Point

MOST = 4096  # points, of some kilobytes each


class KeptPoints:
    """Keeps what sounds are drawn from. Beyond MOST those go that were not used for the longest time."""

    def __init__(self) -> None:
        self._points: OrderedDict[str, Point] = OrderedDict()

    def add(self, point: Point) -> str:
        """Keeps a point; returns its name."""
        name = secrets.token_urlsafe(16)
        self._points[name] = point
        if len(self._points) > MOST:
            self._points.popitem(last=False)
        return name

    def find(self, name: str) -> Point | None:
        if name in self._points:
            self._points.move_to_end(name)
        return self._points.get(name)
