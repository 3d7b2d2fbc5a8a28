"""Large bodies are parsed away from the event loop, one at a time, small ones first.

One at a time, because parsers hold Python's lock: several at once would only take longer, and hold up health.
"""

import asyncio
import contextlib
import heapq
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import ParamSpec, TypeVar

from inception.serve.settings import Settings, unavailable

_SMALL = 64 << 10
"""Bodies up to so many bytes are parsed at once: it takes less than the way to a thread and back."""
_P = ParamSpec("_P")
_T = TypeVar("_T")


class Parsing:
    """A thread that parses, and the bounded queue before it."""

    def __init__(self, settings: Settings) -> None:
        self._thread = ThreadPoolExecutor(1, "parsing")
        self._most, self._seconds = settings.max_queue, settings.deadline_seconds
        self._busy = False
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = count()

    async def run(self, size: int, parse: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """What `parse` returns for a body of `size` bytes.

        Raises what it raises, and a 503 RequestError when too many wait or the turn does not come in time.
        """
        if size <= _SMALL:
            return parse(*args, **kwargs)
        await self._turn(size)
        running = asyncio.wrap_future(self._thread.submit(parse, *args, **kwargs))
        # The turn ends with the work, also where the one who waits for it is cancelled.
        running.add_done_callback(self._next)
        return await asyncio.shield(running)

    async def _turn(self, size: int) -> None:
        if not self._busy:
            self._busy = True
            return
        if len(self._waiting) >= self._most:
            raise unavailable("the server is busy: many large requests wait to be read; try again later")
        turn = asyncio.get_running_loop().create_future()
        entry = (size, next(self._order), turn)
        heapq.heappush(self._waiting, entry)
        try:
            await asyncio.wait_for(asyncio.shield(turn), self._seconds)
        except TimeoutError as error:
            if not turn.done():
                raise unavailable("the request waited too long to be read; try again later") from error
        except asyncio.CancelledError:
            if turn.done():
                self._next()
            raise
        finally:
            if not turn.done():
                turn.cancel()
                with contextlib.suppress(ValueError):
                    self._waiting.remove(entry)
                    heapq.heapify(self._waiting)

    def _next(self, _: object = None) -> None:
        """Give the turn to the smallest of those who wait."""
        if self._waiting:
            heapq.heappop(self._waiting)[2].set_result(None)
        else:
            self._busy = False
