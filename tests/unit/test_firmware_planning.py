"""Firmware in plans: which machine, how many devices, what a changed file comes to, and when it cannot be had."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from devicevm.domain import Firmware, FirmwareKind
from devicevm.inventory.host import DomainSupport, FileFacts, GuestKind, Host
from devicevm.inventory.supports import GUESTS
from devicevm.manifest.topology import (
    Boot,
    ClassMemory,
    Client,
    Device,
    DeviceClass,
    DeviceVM,
    HostPolicy,
    Program,
    ResourceRequest,
    Serves,
    Topology,
)
from devicevm.planner.book import Book
from devicevm.planner.code import files_named
from devicevm.planner.plan import Effect
from devicevm.planner.planner import make_plan
from devicevm.planner.resources import Footing, Misfit, fit_one, fulfilled
from devicevm.planner.specify import state_digest
from devicevm.vmm.hostfiles import look_at
from world import ME, MIB, ModelVmm, class_, client, host, topology

ELF = {"kind": "elf", "file": "/opt/meter.elf", "arch": "armv7l", "machine": "lm3s6965evb", "memory": 16 * MIB}
UEFI = {"kind": "uefi", "file": "/opt/meter.efi", "arch": "x86_64", "machine": "pc", "memory": 0}
ROM = {"kind": "rom", "file": "/opt/meter.rom", "arch": "x86_64", "machine": "pc", "memory": 2 * MIB}
ARM = GuestKind("armv7l", "hvm", ("tcg",), machines=("virt", "lm3s6965evb"))


def ask(options: dict[str, Any], **changes: Any) -> tuple[ResourceRequest, ...]:
    """One alternative: firmware."""
    return (ResourceRequest("firmware", options=options | changes),)


def lab(**digests: str) -> Host:
    """A host with an ARM translator and UEFI whose files have these digests; `elf=` and so on."""
    files = tuple(FileFacts(f"/opt/meter.{name}", 5, digest) for name, digest in sorted(digests.items()))
    support = DomainSupport(arch="x86_64", accelerator="tcg", firmwares=("bios", "efi"))
    return replace(host(), guests=(ARM,), support=(support,), files=files)


def meter(*alternatives: tuple[ResourceRequest, ...], **changes: Any) -> DeviceClass:
    """A class of instruments."""
    made = class_(
        "meter",
        protocol="bytes",
        frontends=("pci-serial",),
        program=Program((), ask="*IDN?\n", expect="^lab"),
        memory=ClassMemory(64 * MIB),
        resources=alternatives,
        storage=None,
    )
    return replace(made, **changes)


def declared(class_: DeviceClass, count: int = 1, **rest: Any) -> Topology:
    """A client with so many instruments."""
    devices = (Device(f"m{number}", "meter") for number in range(count))
    return topology(client("web", *devices), classes=(class_,), **rest)


def refused(options: dict[str, Any], there: Host, devices: int = 1) -> str:
    answer = fit_one(ask(options), Book(there, HostPolicy(there.name)), 64 * MIB, devices)
    assert isinstance(answer, Misfit), answer
    return answer.reason


def test_a_device_vm_is_the_machine_and_nothing_else() -> None:
    (spec, _) = make_plan(declared(meter(ask(ELF))), (lab(elf="ab12"),), (), ME).domains[::-1]
    assert spec.firmware == Firmware(FirmwareKind.ELF, "/opt/meter.elf", "ab12")
    assert (spec.arch, spec.machine, spec.accelerator, spec.memory) == ("armv7l", "lm3s6965evb", "tcg", 16 * MIB)
    assert (spec.control, spec.console, spec.image, spec.boot) == ("", "", "", Boot())
    (emulator,) = spec.emulators
    assert (emulator.command, emulator.ask, emulator.expect, emulator.serial) == ((), "*IDN?\n", "^lab", "")


def test_a_machine_has_one_processor_however_many_it_may_run_on() -> None:
    alternative = (*ask(ELF), ResourceRequest("core", 1, True))
    answer = fit_one(alternative, Book(lab(), HostPolicy("h1")), 64 * MIB)
    assert isinstance(answer, Footing)
    assert (answer.vcpus, answer.placement.vcpus, answer.placement.emulator) == (1, ((0, 4),), (0, 4))
    (spec, _) = make_plan(declared(meter(alternative)), (lab(),), (), ME).domains[::-1]
    assert fulfilled((alternative,), spec, Book(lab(), HostPolicy("h1")))


@pytest.mark.parametrize(("options", "sizes"), [(ELF, [1, 1, 1, 1, 1]), (UEFI, [4, 1]), (ROM, [4, 1])])
def test_a_machine_has_as_many_devices_as_serial_ports(options: dict[str, Any], sizes: list[int]) -> None:
    plan = make_plan(declared(meter(ask(options)), 5), (lab(),), (), ME)
    assert [len(allocation.serves) for allocation in plan.allocations] == sizes
    assert {allocation.firmware for allocation in plan.allocations} == {options["file"]}
    mixed = meter((ResourceRequest("core", 64),), ask(options), program=Program(("meter",)))
    (reason,) = {
        reason for item in make_plan(declared(mixed, 5), (lab(),), (), ME).unplaced for reason in item.reasons[1:2]
    }
    assert f"5 devices asked, machine {options['machine']} has {sizes[0]} serial port" in reason


def test_what_the_host_lacks_is_told() -> None:
    assert refused(ELF, host()) == "the VMM has no translator for armv7l"
    assert refused(ELF | {"machine": "toaster"}, lab()) == "the VMM has no machine toaster for armv7l, but 2 others"
    bios = replace(lab(), support=(DomainSupport(arch="x86_64", firmwares=("bios",)),))
    assert refused(UEFI, bios) == "the VMM has no UEFI for x86_64: install it (Debian: ovmf)"
    gone = replace(lab(), files=(FileFacts("/opt/meter.elf", problem="cannot be read: No such file or directory"),))
    assert refused(ELF, gone) == "/opt/meter.elf: cannot be read: No such file or directory"


def test_the_next_alternative_is_taken_and_the_reasons_tell() -> None:
    there = replace(lab(rom="cd34"), guests=())
    (allocation,) = make_plan(declared(meter(ask(ELF), ask(ROM))), (there,), (), ME).allocations
    assert allocation.reasons == (
        "elf firmware meter.elf: the VMM has no translator for armv7l",
        "rom firmware meter.rom: /opt/meter.rom (SHA-256 cd34) on machine pc; CPU 0: the least loaded, with 0 pinned "
        "there",
    )


def test_another_file_is_a_restart_and_the_same_is_nothing() -> None:
    wanted = declared(meter(ask(ELF)))
    vmm = ModelVmm(lab(elf="ab12"))
    vmm.apply(wanted)
    assert vmm.plan(wanted).steps == ()
    vmm.hosts = (lab(elf="cd34"),)
    steps = {step.id: step for step in vmm.plan(wanted).steps}
    assert steps["stop/device-vm/web-dvm"].effect is Effect.RECONNECT
    assert "firmware changes" in steps["define/device-vm/web-dvm"].reason
    vmm.apply(wanted)
    # A file that is gone, or that nobody looked at, does not end what runs.
    for there in (lab(), replace(lab(), files=(FileFacts("/opt/meter.elf", problem="cannot be read"),))):
        vmm.hosts = (there,)
        assert vmm.plan(wanted).steps == ()


def test_a_device_more_gets_a_machine_of_its_own() -> None:
    vmm = ModelVmm(lab())
    vmm.apply(declared(meter(ask(ROM))))
    plan = vmm.plan(declared(meter(ask(ROM)), 2))
    assert [allocation.serves for allocation in plan.allocations] == [("web/m0",), ("web/m1",)]
    assert "stop/device-vm/web-dvm" not in {step.id for step in plan.steps}


def test_a_device_less_is_a_restart() -> None:
    vmm = ModelVmm(lab())
    vmm.apply(declared(meter(ask(ROM)), 2))
    steps = {step.id for step in vmm.plan(declared(meter(ask(ROM)))).steps}
    assert {"stop/device-vm/web-dvm", "start/device-vm/web-dvm"} <= steps
    vmm.apply(declared(meter(ask(ROM))))
    assert vmm.plan(declared(meter(ask(ROM)))).steps == ()


def test_from_firmware_to_a_program_and_back() -> None:
    program = Program(("meter",))
    one, other = meter(ask(ROM), program=program), meter((ResourceRequest("thread"),), program=program)
    vmm = ModelVmm(lab())
    vmm.apply(declared(one))
    (spec,) = [spec for spec in vmm.apply(declared(other)).domains if spec.name == "web-dvm"]
    assert (spec.firmware, spec.memory, spec.emulators[0].command) == (None, 64 * MIB, ("meter",))
    assert spec.image.startswith("base-")
    assert spec.control
    (spec,) = [spec for spec in vmm.apply(declared(one)).domains if spec.name == "web-dvm"]
    assert (spec.memory, spec.emulators[0].command, spec.image) == (2 * MIB, (), "")
    assert vmm.plan(declared(one)).steps == ()


def test_what_runs_and_is_not_declared_any_more_is_no_firmware() -> None:
    """Another owner's manifests would be needed to know what its emulator could be under another code."""
    shared = DeviceVM("all", Serves())
    program = meter((ResourceRequest("thread"),), program=Program(("meter",)))
    both = topology(
        *(client(name, Device("m", "meter"), trust_domain="t") for name in ("a", "b")),
        classes=(program,),
        device_vms=(shared,),
    )
    vmm = ModelVmm(lab())
    vmm.apply(both)
    only: tuple[Client, ...] = tuple(one for one in both.clients if one.name == "a")
    plan = vmm.plan(replace(both, clients=only, classes=(meter(ask(ROM)),)))
    (item,) = plan.unplaced
    assert "b/m is not declared here, and goes on as it is" in " ".join(item.reasons)


def test_content_is_not_for_firmware() -> None:
    disk = Device("data", "meter", memory=MIB)
    plan = make_plan(topology(client("web", disk), classes=(meter(ask(ROM)),)), (lab(),), (), ME)
    (item,) = plan.unplaced
    assert item.reasons == ("h1: web-dvm: rom firmware meter.rom: web/data has content, and firmware has no storage",)


def test_a_class_without_a_program_runs_on_nothing_else() -> None:
    only = DeviceVM("threads", Serves(), resources=((ResourceRequest("thread"),),))
    plan = make_plan(declared(meter(ask(ROM)), device_vms=(only,)), (lab(),), (), ME)
    (item,) = plan.unplaced
    assert item.reasons[0] == "h1: threads: 1 thread: class meter has no program that would run on it"


def test_files_are_looked_at_on_the_host(tmp_path: Path) -> None:
    image = tmp_path / "meter.elf"
    image.write_bytes(b"meter")
    found, missing = look_at([str(image), str(tmp_path / "none")])
    assert found == FileFacts(str(image), 5, hashlib.sha256(b"meter").hexdigest())
    assert missing.problem == "cannot be read: No such file or directory"
    (directory,) = look_at([str(tmp_path)])
    assert directory.problem == "cannot be read: Is a directory"


def test_all_files_that_resources_name_are_looked_at() -> None:
    declared_ones = (DeviceVM("all", Serves(), resources=(ask(ROM), (ResourceRequest("thread"),))),)
    assert files_named(declared(meter(ask(UEFI), ask(ELF)), device_vms=declared_ones)) == (
        "/opt/meter.efi",
        "/opt/meter.elf",
        "/opt/meter.rom",
    )


def test_files_are_no_part_of_what_a_plan_is_stale_by() -> None:
    """They are looked at once more when what runs them starts; a stored plan is applied without its manifests."""
    assert GUESTS in lab().vmm.supports
    assert state_digest((lab(elf="ab12"),), ()) == state_digest((lab(),), ())
