"""Carries out a plan: steps in parallel where their order allows, and the way back when one fails."""

from __future__ import annotations

import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from ..errors import in_our_words
from ..planner.plan import Action, Step, Subject
from .actions import Context, perform, revert
from .outcome import Outcome, to_undo
from .progress import Progress


def execute(context: Context, parallel: int, boots: int, progress: Progress) -> Outcome:
    """Do every step of the context's plan, `parallel` at once; undo what a failure made useless.

    At most `boots` device VMs boot at once: more than the host has cores only make each other slow, and none is
    ready sooner.

    An interrupt (KeyboardInterrupt) starts nothing more, waits for what has begun, and is raised
    again: what is done stays, the next plan goes on from there.
    """
    outcome = Outcome()
    with ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="step") as pool:
        run = _Run(context, progress, outcome, pool, boots)
        try:
            run.go()
        except BaseException:
            # Leaving the pool waits for its queue as well: what waits there has not begun.
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    if outcome.failed:
        _put_back(context, progress, outcome)
    for key, error in context.stalled.items():
        outcome.errors.setdefault(key, error)
    return outcome


class _Run:
    """One walk through the steps."""

    def __init__(
        self, context: Context, progress: Progress, outcome: Outcome, pool: ThreadPoolExecutor, boots: int
    ) -> None:
        self.context, self.progress, self.outcome, self.pool, self.boots = context, progress, outcome, pool, boots
        self.waiting = {step.id: step for step in context.plan.steps}
        self.running: dict[Future[float], Step] = {}
        # Steps begin in worker threads and end in this one; who listens hears one thing at a time.
        self.telling = threading.Lock()

    def go(self) -> None:
        """Start what can start, collect what is done, until nothing is left."""
        self._start_ready()
        while self.running:
            finished = wait(self.running, return_when=FIRST_COMPLETED).done
            for future in finished:
                self._collect(self.running.pop(future), future)
            self._start_ready()
        self.outcome.skipped += list(self.waiting)

    def _start_ready(self) -> None:
        known = {step.id for step in self.context.plan.steps}
        done = set(self.outcome.done)
        ready = [step for step in self.waiting.values() if done >= {*step.after, *step.behind} & known]
        late = self._late(ready)
        for step in ready:
            if step.id not in late:
                del self.waiting[step.id]
                self.running[self.pool.submit(self._timed, step)] = step

    def _late(self, ready: list[Step]) -> set[str]:
        """The starts that would only make what boots slower, by id.

        Device VMs go first: clients wait for them, and nobody waits for a client's boot, which keeps a core busy.
        """
        running = self.running.values()
        booting = sum(_is_start(step, Subject.DEVICE_VM) for step in running)
        device_vms = [step.id for step in ready if _is_start(step, Subject.DEVICE_VM)]
        clients = [step.id for step in ready if _is_start(step, Subject.CLIENT)]
        begin = max(self.boots - booting, 0)
        late = set(device_vms[begin:])
        if booting or device_vms:
            left = begin - len(device_vms) - sum(_is_start(step, Subject.CLIENT) for step in running)
            late |= set(clients[max(left, 0) :])
        return late

    def _timed(self, step: Step) -> float:
        with self.telling:
            self.progress.started(step)
        begun = time.monotonic()
        perform(self.context, step)
        return time.monotonic() - begun

    def _collect(self, step: Step, future: Future[float]) -> None:
        try:
            seconds = future.result()
        except Exception as error:
            # Whatever it is, and however little expected: what was begun must be undone, and the result told.
            failure = in_our_words(error)
            self.outcome.failed.append(step.id)
            self.outcome.errors[step.id] = failure
            with self.telling:
                self.progress.failed(step, failure)
            return
        self.outcome.done.append(step.id)
        with self.telling:
            self.progress.done(step, seconds)


def _is_start(step: Step, subject: Subject) -> bool:
    return step.action is Action.START and step.kind is subject


def _put_back(context: Context, progress: Progress, outcome: Outcome) -> None:
    """Undo the failed steps and what was made only for them, the last first."""
    steps = {step.id: step for step in context.plan.steps}
    for key in to_undo(context.plan.steps, outcome):
        try:
            revert(context, steps[key])
        except Exception as error:
            # One step that cannot be undone is no reason to leave the others as they are.
            outcome.undo_errors[key] = in_our_words(error)
            continue
        outcome.undone.append(key)
        progress.undone(steps[key])
