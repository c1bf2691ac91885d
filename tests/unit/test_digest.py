"""Digests of records: what a plan was made from is recognised by them."""

from __future__ import annotations

import pickle
from dataclasses import replace

from devicevm.domain import ObservedDomain
from devicevm.planner.specify import state_digest
from devicevm.record import from_data, to_data
from devicevm.vmm.libvirt.metadata import read, unqualified
from world import ModelVmm, client, disk, host, topology


def domain() -> ObservedDomain:
    vmm = ModelVmm()
    vmm.apply(topology(client("a", disk())))
    return vmm.domains["a-dvm"]


def digest_of(one: ObservedDomain) -> str:
    return state_digest((), (one,))


def test_equal_records_have_one_digest_whatever_objects_they_are_made_of() -> None:
    one = domain()
    assert one.spec is one.active_spec and one.spec is not None
    other = replace(one, active_spec=replace(one.spec))
    assert other.spec is not other.active_spec
    assert digest_of(one) == digest_of(other) == digest_of(domain())
    assert state_digest((pickle.loads(pickle.dumps(host())),), ()) == state_digest((host(),), ())  # noqa: S301


def test_what_was_read_from_metadata_has_the_digest_that_it_was_read_by() -> None:
    spec = domain().spec
    assert spec is not None
    kept = read(unqualified(spec), spec.name, spec.uuid).spec
    assert kept is not None
    assert vars(kept)["digest"] == spec.digest == from_data(type(spec), to_data(spec)).digest
    assert digest_of(replace(domain(), spec=kept, active_spec=kept)) == digest_of(domain())
    assert replace(kept, memory=1).digest != spec.digest


def test_what_differs_anywhere_has_another_digest() -> None:
    one = domain()
    spec = one.spec
    assert spec is not None
    emulator = replace(spec.emulators[0], command=("other",))
    others = [
        replace(one, active=False),
        replace(one, active_spec=None),
        replace(one, spec=None),
        replace(one, spec=replace(spec, memory=1)),
        replace(one, active_spec=replace(spec, memory=1)),
        replace(one, spec=replace(spec, emulators=(emulator,))),
        replace(one, spec=replace(spec, placement=replace(spec.placement, idle=(7,)))),
        replace(one, drift=("memory",)),
        replace(one, live_drift=("memory",)),
    ]
    assert len({digest_of(other) for other in [one, *others]}) == 1 + len(others)


def test_a_copy_with_a_change_does_not_keep_the_digest() -> None:
    one = domain()
    before = digest_of(one)
    assert digest_of(replace(one, ready=False)) != before
    assert digest_of(one) == before
