"""Signs of life: a rank that is lost ends the attempt on all others, with one sentence.

Notable:
- Without it the others hang in their next collective until its timeout, ten minutes later.
- Every rank beats to rank 0 and rank 0 to all (`star.py`). Rank 0 finds who is lost and tells all;
  if it is rank 0 itself, each finds it alone. Three things are found: a process that is gone, at
  once; one that is silent (frozen, or its node lost its power), after `silence` seconds; and one
  that lives and never comes to a collective for which others wait, after the collective's timeout.
- Silence is measured by a clock that stands still while this process does not run: a run that is
  suspended as a whole and goes on later has missed nobody.
- The thread needs no collective and no lock of the main thread, which may hang; so it ends the
  process by `os._exit`.
"""

from __future__ import annotations

import os
import selectors
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from pipeline.distributed.star import Peer

LOST = os.EX_TEMPFAIL
"""Exit status of an attempt that lost a rank: try again."""
LONGEST_PERIOD = 3.0
FLUSH_SECONDS = 5.0
"""What last words and output may take; a file server that died with a node holds up nobody."""

LastWords = Callable[[str, int], None]
"""Called with the sentence and the exit status before the process ends."""


class Heartbeat(threading.Thread):
    """Watches the ranks of this process's end of the star.

    Args:
        rank, node: of this process. Rank 0 is the hub, which sees all and tells all.
        peers: those to watch (`star.connect`).
        silence: seconds after which a silent rank is lost.
        timeout: of collectives, in seconds; for the sentence only.
    """

    def __init__(
        self, rank: int, node: str, peers: list[Peer], silence: float, timeout: float
    ) -> None:
        super().__init__(name="certline-heartbeat", daemon=True)
        self.last_words: list[LastWords] = []
        """Called in order when the process is ended from here."""
        self.departed: str | None = None
        """What another rank said that left on request; this one should leave too."""
        self._rank = rank
        self._me = f"rank {rank} on {node}"
        self._peers = peers
        self._silence = silence
        self._timeout = timeout
        self._period = min(silence / 20, LONGEST_PERIOD)
        self._grace = silence / 6
        self._departed_status = LOST
        self._departed_at = 0.0
        self._clock = 0.0
        self._first_waited: float | None = None
        self._waiting: set[str] = set()
        """Names of the ranks whose collective failed."""
        self._closed = threading.Event()
        self._ending = threading.Lock()
        self._selector = selectors.DefaultSelector()
        for peer in peers:
            self._selector.register(peer.socket, selectors.EVENT_READ, peer)

    def run(self) -> None:
        """Beat and listen until `stop`."""
        before = beaten = time.monotonic()
        while not self._closed.is_set():
            for key, _ in self._selector.select(self._period / 2):
                self._listen(key.data)
            now = time.monotonic()
            self._clock += min(now - before, self._period)  # longer: this process did not run
            before = now
            if now - beaten >= self._period:
                beaten = now
                self._send({"kind": "beat"})
            self._look()

    def stop(self) -> None:
        """This rank is finished, as the others are: nobody is to miss it."""
        self._send({"kind": "bye"})
        self._closed.set()
        if self.is_alive():
            self.join(2 * LONGEST_PERIOD)
        for peer in self._peers:
            peer.close()

    def leave(self, what: str, status: int, on_request: bool) -> None:
        """Tell the others that this rank leaves alone, and stop.

        Args:
            what: why, a sentence.
            status: its exit status, and theirs.
            on_request: they go on until they reach a good place to leave; otherwise they end now.
        """
        self._ending.acquire()  # what the others say to this is not to end this process
        self._say_leaving(self._rank, f"{self._me} {what}", status, on_request)
        time.sleep(self._period)  # a connection closed with unread beats may lose what was sent
        self.stop()

    def lost(self, what: str) -> NoReturn:
        """A collective of this rank failed: find out whose fault it was, and end the process.

        Args:
            what: what the collective said, if nobody is found.
        """
        if self.departed is not None:
            self.end(self.departed, self._departed_status, aloud=self._rank == 0)
        if self._rank == 0:
            self._waits(self._me)
        else:
            self._send({"kind": "waits", "who": self._me})
        time.sleep(self._silence + self._grace + 2 * self._period)
        self.end(f"a collective failed: {what}", LOST, aloud=True)

    def end(self, what: str, status: int, aloud: bool) -> NoReturn:
        """Say why, and end the process from whatever thread this is.

        Args:
            aloud: on the screen too; on one rank is enough. It is an error unless somebody left
                on request.
        """
        self._ending.acquire()  # whoever comes second waits until the first has ended both

        def at_the_latest() -> None:
            time.sleep(FLUSH_SECONDS)
            os._exit(status)

        threading.Thread(target=at_the_latest, daemon=True).start()
        try:
            for say in self.last_words:
                say(what, status)
            if aloud:
                kind = "" if what == self.departed else "error: "
                print(f"{kind}{what}", file=sys.stderr, flush=True)
            sys.stdout.flush()
        finally:
            os._exit(status)

    def _listen(self, peer: Peer) -> None:
        """Take what a peer said, or its end."""
        messages = peer.receive()
        if messages is None:
            self._selector.unregister(peer.socket)
            if not peer.left:
                self._miss(peer, "is gone: it crashed or was killed")
            return
        peer.heard = self._clock
        for message in messages:
            if message["kind"] == "bye":
                peer.left = True
            elif message["kind"] == "waits":
                self._waits(message["who"])
            elif message["kind"] == "leaves":
                peer.left = message["rank"] == peer.rank  # rank 0 also passes on what others say
                self._told(message)

    def _told(self, message: dict[str, Any]) -> None:
        """A rank leaves; on rank 0: tell the others."""
        if self._rank == 0:
            self._send(message)
        if message["on_request"]:
            self.departed, self._departed_status = message["what"], message["status"]
            self._departed_at = self._clock
        else:
            self._end_unless_ending(message["what"], message["status"], aloud=self._rank == 0)

    def _waits(self, who: str) -> None:
        """A rank's collective failed; those that are not waiting soon are who it failed for."""
        self._waiting.add(who)
        if self._first_waited is None:
            self._first_waited = self._clock

    def _look(self) -> None:
        """Who is silent, and whom the others wait for?"""
        for peer in self._peers:
            if not peer.left and self._clock - peer.heard > self._silence:
                self._miss(peer, f"has been silent for {self._silence:g} s")
        if self.departed is not None and self._clock - self._departed_at > self._silence:
            # It waits in a collective for the one that left; with nccl nothing else would end it.
            self._end_unless_ending(self.departed, self._departed_status, aloud=self._rank == 0)
        if self._first_waited is None or self._clock - self._first_waited < self._grace:
            return
        present = [peer.name for peer in self._peers if not peer.left]
        late = [name for name in [self._me, *present] if name not in self._waiting]
        if late:
            self._everybody(
                f"{' or '.join(late[:4])} did not come to a collective within {self._timeout:g} s"
            )
        self._everybody("a collective failed on all ranks: the network between them is disturbed")

    def _miss(self, peer: Peer, how: str) -> None:
        """A peer is lost."""
        peer.left = True
        self._everybody(f"{peer.name} {how}; the attempt ends on all ranks")

    def _everybody(self, what: str) -> None:
        """End all that can be reached, and this process."""
        self._say_leaving(self._rank, what, LOST, False)
        self._end_unless_ending(what, LOST, aloud=True)

    def _end_unless_ending(self, what: str, status: int, aloud: bool) -> None:
        """End the process, unless the main thread is ending it already."""
        if not self._ending.locked():
            self.end(what, status, aloud)

    def _say_leaving(self, rank: int, what: str, status: int, on_request: bool) -> None:
        self._send(
            {
                "kind": "leaves",
                "rank": rank,
                "what": what,
                "status": status,
                "on_request": on_request,
            }
        )

    def _send(self, message: dict[str, Any]) -> None:
        """To all that are watched."""
        for peer in self._peers:
            if not peer.left or message["kind"] != "beat":
                peer.send(message)
