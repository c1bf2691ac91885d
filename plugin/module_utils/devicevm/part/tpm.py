"""The relay between the VMM of a client and its TPM in a device VM.

A VMM asks an external TPM on a control connection, and by it hands over one end of a second connection for the TPM's
own commands. No descriptor can go into a device VM, so the relay ends both here and passes on what is asked.

The VMM waits for each answer, some of them with the whole client, and believes the lengths in it. So each answer comes
within a bounded time of its question and has the length that it must have, whatever the device VM says or does. The
VMM has one question of each kind at a time; what more it sends is not read before that is answered.

While the device VM is away, questions wait for it; when it is back, the TPM goes on as it was when it last answered,
and the question that was open is asked again, or answered with what the device VM has kept for it: no command is lost
or done twice. A TPM that has lost its memory fails until its client is reset: taking up with empty registers is what
measured boot must never see.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass

from . import sockets
from .part import Kind, Part, Stage
from .tpmlink import CONTROL, DATA, GREETING, HELLO, START, Frame, Link, LinkError

# swtpm's control commands (tpm_ioctl.h): number -> bytes that follow it, bytes of the answer.
INIT, SHUTDOWN, ESTABLISHED, LOCALITY, RESET_ESTABLISHED, STOP, BUFFERSIZE = 2, 3, 4, 5, 11, 14, 17
_ASKED = {
    INIT: (4, 4),
    SHUTDOWN: (0, 4),
    ESTABLISHED: (0, 8),
    LOCALITY: (4, 4),
    RESET_ESTABLISHED: (4, 4),
    STOP: (0, 4),
    BUFFERSIZE: (4, 16),
}
# Answered here: what it can do, a cancellation (swtpm reads none while it works), and the connection for commands.
CAPABILITY, CANCEL, DATAFD = 1, 9, 16
# All but state blobs, which stay where they are: so a VMM knows that it cannot migrate this client.
_CAPABILITIES = struct.pack(">Q", 0b11_0100_1010_1111)
_DONE, _FAILED = struct.pack(">I", 0), struct.pack(">I", 9)
_SIZE = struct.Struct(">I")

_HEAD = struct.Struct(">HII")
MAX_TPM = 4096
FAILURE, CANCELED = (_HEAD.pack(0x8001, _HEAD.size, code) for code in (0x101, 0x909))
"""TPM_RC_FAILURE and TPM_RC_CANCELED, as responses."""

AWAY_CONTROL = 5.0
"""Seconds that a control command waits for a device VM that is away: the client stands still meanwhile."""
AWAY_DATA = 60.0
"""Seconds that a TPM command waits for one: the client's driver has its own limits, and goes on."""
SLOW_CONTROL, SLOW_DATA = 10.0, 300.0
"""Seconds from a question's arrival to its answer, however often the device VM goes and comes: keys take their time."""
_RETRY, _DISTRUST = 0.2, 2.0


@dataclass
class Question:
    """What the VMM waits for. `since` is when it came."""

    kind: bytes
    content: bytes
    since: float
    number: int = 0
    """Of a TPM command; of a control command, -1 when it is our own and nobody waits for the answer."""

    sent: bool = False

    @property
    def command(self) -> int:
        """Which control command it is."""
        return int(_SIZE.unpack_from(self.content)[0]) if self.kind == CONTROL else 0

    @property
    def frame(self) -> Frame:
        """As the device VM is asked."""
        return Frame(self.kind, _SIZE.pack(self.number) + self.content if self.kind == DATA else self.content)


class Relay:
    """One client's VMM at a time, and its TPM."""

    def __init__(self, part: Part, stage: Stage, listener: socket.socket) -> None:
        self.part, self.stage, self.listener = part, stage, listener
        self.control: socket.socket | None = None
        self.data: socket.socket | None = None
        self.link: Link | None = None
        self.again = 0.0
        self.told_away = False
        self._forget()

    def _forget(self) -> None:
        self.serving = False
        self.powered = False
        self.lost = False
        self.locality = b""
        self.room = MAX_TPM
        self.number = 0
        self.gone = 0.0
        self.asked: Question | None = None
        self.waiting: deque[Question] = deque()
        self.begun = b""
        self.handed: list[int] = []

    def run(self) -> None:
        """Serve until the stage says stop."""
        while True:
            # Commands before what is said of them: a cancellation means one that was there before it.
            data = None if self._is_open(DATA) else self.data
            control = None if self._is_open(CONTROL) else self.control
            link = self.link.socket if self.link else None
            watched = {one.fileno(): one for one in (self.listener, data, control, link) if one}
            ready = select.select([self.stage.stop, *watched], [], [], self._pause())[0]
            if self.stage.stop in ready:
                self._end_client()
                return
            for file in ready:
                one = watched[file]
                # What one has said may have ended another.
                if one.fileno() == file:
                    self._heard(one)
            self._tend()

    def _heard(self, one: socket.socket) -> None:
        if one is self.listener:
            self._accept()
        elif one is self.control:
            self._hear_control()
        elif one is self.data:
            self._hear_data()
        else:
            self._hear_link()

    def _is_open(self, kind: bytes) -> bool:
        """Whether the VMM waits for an answer of this kind."""
        asked = [self.asked] if self.asked else []
        return any(one.kind == kind and one.number >= 0 for one in (*asked, *self.waiting))

    def _pause(self) -> float | None:
        if self.control is None:
            return None
        return _RETRY if self.link is None or self.asked or self.waiting else 60.0

    # The client's VMM.

    def _accept(self) -> None:
        peer = sockets.accept(self.listener, self.stage.users)
        if peer is None:
            return
        # The next one comes when the last has gone, and its VMM may be told so later than the new one connects.
        self._end_client()
        self.stage.log("the client's VMM has connected")
        self.control = peer
        self.again = 0.0

    def _end_client(self) -> None:
        """Without its client a TPM has no power."""
        if self.control:
            self.stage.log("the client's VMM has gone")
        for one in (self.control, self.data):
            if one:
                one.close()
        if self.link:
            self.link.close()
        self._drop_handed()
        self.control = self.data = self.link = None
        self._forget()

    def _hear_control(self) -> None:
        if self.control is None:
            return
        try:
            data, handed = self.control.recvmsg(MAX_TPM, socket.CMSG_SPACE(array.array("i").itemsize))[:2]
        except OSError:
            data, handed = b"", []
        for level, kind, content in handed:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._drop_handed()
                # Alignment leaves room for a second one.
                self.handed = array.array("i", content).tolist()
        if not data:
            self._end_client()
            return
        self.begun += data

    def _obey(self) -> None:
        """Take up the control commands that have come whole, but none before the last is answered."""
        while len(self.begun) >= _SIZE.size and not self._is_open(CONTROL):
            command = int(_SIZE.unpack_from(self.begun)[0])
            size = _SIZE.size + _ASKED.get(command, (0, 0))[0]
            if len(self.begun) < size:
                return
            content, self.begun = self.begun[:size], self.begun[size:]
            if command not in _ASKED and command not in (CAPABILITY, CANCEL, DATAFD):
                # Its length is not known, so what follows is not either.
                self.begun = b""
            self._control(command, content)

    def _take_data(self) -> bool:
        """Take the one socket that was handed over for commands. As long as that is open there is no other: it must be
        sure whose question is answered."""
        if len(self.handed) == 1 and self.data is None:
            with contextlib.suppress(OSError):
                self.data = socket.socket(fileno=self.handed[0])
                self.handed = []
                return True
        self._drop_handed()
        return False

    def _drop_handed(self) -> None:
        for file in self.handed:
            os.close(file)
        self.handed = []

    def _control(self, command: int, content: bytes) -> None:
        if command == CAPABILITY:
            self._answer_control(_CAPABILITIES)
        elif command == CANCEL:
            self._cancel()
            self._answer_control(_DONE)
        elif command == DATAFD:
            self._answer_control(_DONE if self._take_data() else _FAILED)
        elif command not in _ASKED:
            self._answer_control(_FAILED)
        elif command in (STOP, SHUTDOWN) and not self.serving:
            self.powered = self.lost = False
            self._answer_control(_DONE)
        else:
            self.waiting.append(Question(CONTROL, content, time.monotonic()))

    def _cancel(self) -> None:
        """A TPM command that the device VM has never been asked is not done later, when nobody waits for it."""
        for question in [one for one in self.waiting if one.kind == DATA and not one.sent]:
            self.waiting.remove(question)
            _send(self.data, CANCELED)

    def _answer_control(self, content: bytes) -> None:
        _send(self.control, content)

    def _hear_data(self) -> None:
        if self.data is None:
            return
        try:
            command = self.data.recv(MAX_TPM, socket.MSG_DONTWAIT)
        except OSError:
            command = b""
        if not command:
            self.data.close()
            self.data = None
        elif len(command) < _HEAD.size or _HEAD.unpack_from(command)[1] != len(command) or self.lost:
            _send(self.data, FAILURE)
        else:
            self.number += 1
            self.waiting.append(Question(DATA, command, time.monotonic(), self.number))

    # The device VM.

    def _tend(self) -> None:
        """Connect, answer in the device VM's stead what has waited too long, and ask the next question."""
        now = time.monotonic()
        if self.control and self.link is None and now >= self.again:
            self._connect()
        if self.asked and self._is_late(self.asked, now):
            self._drop("it does not answer", _DISTRUST)
        for question in [one for one in self.waiting if self._is_late(one, now)]:
            self.waiting.remove(question)
            self._fail(question)
        self._obey()
        if self.serving and not self.asked and self.waiting:
            self._ask(self.waiting.popleft())

    def _is_late(self, question: Question, now: float) -> bool:
        away, slow = (AWAY_DATA, SLOW_DATA) if question.kind == DATA else (AWAY_CONTROL, SLOW_CONTROL)
        if now - question.since > slow:
            return True
        return question.kind != START and not self.serving and now - max(question.since, self.gone) > away

    def _fail(self, question: Question) -> None:
        if question.kind == DATA:
            _send(self.data, FAILURE)
        elif not question.number:
            self._answer_control(_FAILED.ljust(_ASKED[question.command][1], b"\0"))

    def _connect(self) -> None:
        try:
            self.link = Link(self.part.channel)
        except LinkError as error:
            self._drop(str(error), _RETRY)

    def _ask(self, question: Question) -> None:
        if self.link is None:
            return
        self.asked, question.sent = question, True
        try:
            self.link.send(question.frame)
        except LinkError as error:
            self._drop(str(error), _RETRY)

    def _drop(self, reason: str, pause: float) -> None:
        """The device VM is away; what was asked is asked again when it is back."""
        if not self.told_away:
            self.stage.log(f"the device VM is away: {reason}")
        self.told_away = True
        if self.link:
            self.link.close()
        self.link = None
        self.again = time.monotonic() + pause
        self._interrupted()

    def _interrupted(self) -> None:
        if self.serving:
            self.gone = time.monotonic()
        self.serving = False
        asked, self.asked = self.asked, None
        if asked is None or asked.kind == START:
            return
        if asked.command in (STOP, SHUTDOWN):
            self.powered = False
            self._answer_control(_DONE)
        else:
            self.waiting.appendleft(asked)

    def _hear_link(self) -> None:
        if self.link is None:
            return
        try:
            for frame in self.link.received():
                self._said(frame)
        except LinkError as error:
            self._drop(str(error), _RETRY)
        except (ValueError, struct.error):
            self._drop("what it says makes no sense", _DISTRUST)

    def _said(self, frame: Frame) -> None:
        """ValueError for what was not asked for, or has not the form that it must have."""
        if frame.kind == HELLO:
            # Also in the middle, when the program in the device VM has started anew.
            if frame.content != GREETING:
                raise ValueError
            self._interrupted()
            self._ask(Question(START, bytes([self.powered]), time.monotonic()))
            return
        asked = self.asked
        if asked is None or frame.kind != asked.kind:
            raise ValueError
        if frame.kind == START:
            self._started(frame.content)
        elif frame.kind == CONTROL:
            self._told(asked, frame.content)
        else:
            self._respond(asked, *_numbered(frame.content))
        # Only now: a question that was answered wrongly is still open.
        self.asked = None

    def _started(self, content: bytes) -> None:
        resumed = self.powered and content[:1] == b"\1"
        if self.powered:
            self.stage.log("the TPM goes on as it was" if resumed else "the TPM has lost its memory")
        if self.powered and not resumed:
            self.powered, self.lost = False, True
            for question in [one for one in self.waiting if one.kind == DATA]:
                self.waiting.remove(question)
                self._fail(question)
        self.told_away = False
        self.serving = True
        if not resumed:
            return
        number, response = _numbered(content[1:])
        answered = next((one for one in self.waiting if one.kind == DATA and one.number == number), None)
        if answered:
            self.waiting.remove(answered)
            self._respond(answered, number, response)
        self.waiting = deque(one for one in self.waiting if one.number >= 0)
        if self.locality:
            self.waiting.appendleft(Question(CONTROL, self.locality, time.monotonic(), number=-1))

    def _told(self, asked: Question, content: bytes) -> None:
        if len(content) != _ASKED[asked.command][1]:
            # swtpm answers what it refuses with the result alone.
            if len(content) != _SIZE.size or content == _DONE:
                raise ValueError
            content = content.ljust(_ASKED[asked.command][1], b"\0")
        if asked.number:
            return  # our own question, not the VMM's
        done = asked.command == ESTABLISHED or content.startswith(_DONE)
        if asked.command == INIT and done:
            self.powered, self.lost = True, False
        elif asked.command in (STOP, SHUTDOWN) and done:
            self.powered = False
        elif asked.command == LOCALITY and done:
            self.locality = asked.content
        elif asked.command == BUFFERSIZE and done:
            self.room = min(int(_SIZE.unpack_from(content, 4)[0]), MAX_TPM)
        self._answer_control(content)

    def _respond(self, asked: Question, number: int, response: bytes) -> None:
        # The VMM reads as much as the response says that it has, into the room that it has.
        right = len(response) >= _HEAD.size and _HEAD.unpack_from(response)[1] == len(response) <= self.room
        if number != asked.number or not right:
            raise ValueError
        _send(self.data, response)


def _numbered(content: bytes) -> tuple[int, bytes]:
    return int(_SIZE.unpack_from(content)[0]), content[_SIZE.size :]


def _send(peer: socket.socket | None, data: bytes) -> None:
    """Answers are shorter than a socket's buffer; one that has gone will be noticed when it is read."""
    if peer:
        with contextlib.suppress(OSError):
            peer.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def _serve(part: Part, stage: Stage) -> None:
    listener = sockets.listen(part.address)
    try:
        stage.ready()
        Relay(part, stage, listener).run()
    finally:
        listener.close()
        sockets.remove(part.address)


def _clean(part: Part) -> None:
    sockets.remove(part.address)


TPM = Kind(name="tpm", serve=_serve, clean=_clean)
