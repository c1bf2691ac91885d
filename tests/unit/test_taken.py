"""Names and storage that somebody else has on a host: who asks for them, and what is deleted."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from devicevm.inventory.host import Holding
from devicevm.manifest.topology import (
    Boot,
    Client,
    ClientVM,
    Device,
    DeviceVM,
    FloatingDomains,
    HostPolicy,
    Serves,
    ShareScope,
    Store,
)
from devicevm.planner.plan import Action, Effect, Plan
from devicevm.planner.planner import Intent, removal
from world import GIB, ME, MIB, ModelVmm, class_, client, core, disk, host, thread, topology

THEIRS = Intent("theirs")
PRUNE = Intent("default", prune=True)
DELETE = Intent("default", prune=True, delete_data=True)
DELETE_ALONE = Intent("default", delete_data=True)
SHARED = DeviceVM("shared", Serves(), ShareScope.HOST)


def stored(name: str, path: str, *, reads: bool = False, base: str = "") -> Device:
    """A disk with a file, which it may only read, or which is a copy of another file."""
    golden = Store("file", MIB, base, read_only=True) if base else None
    return replace(disk(name), memory=0, store=Store("file", MIB, path, read_only=reads), base=golden)


WRITES = stored("data", "/x")
READS = stored("data", "/x", reads=True)
COPIES = stored("data", "/y", base="/x")


def unplaced(plan: Plan) -> dict[str, tuple[str, ...]]:
    return {item.client: item.reasons for item in plan.unplaced}


def deleted(plan: Plan) -> list[str]:
    return [step.name for step in plan.steps if step.action is Action.DELETE]


PAIRS = [
    (WRITES, WRITES, "storage"),
    (WRITES, READS, "storage"),
    (WRITES, COPIES, "base"),
    (READS, WRITES, "storage"),
    (COPIES, WRITES, "storage"),
]


@pytest.mark.parametrize(("there", "new", "what"), PAIRS)
def test_what_an_undeclared_client_has_is_not_had_twice(there: Device, new: Device, what: str) -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("web", there)))
    plan = vmm.plan(topology(client("shop", new)))
    assert unplaced(plan) == {
        "shop": (f"its {what} /x is in use by web/data, which is not declared here: --prune removes it",)
    }
    assert not plan.steps


@pytest.mark.parametrize(("there", "new", "what"), PAIRS)
def test_what_another_owner_has_is_not_had_twice(there: Device, new: Device, what: str) -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("web", there)), THEIRS)
    plan = vmm.plan(topology(client("shop", new)))
    assert unplaced(plan) == {"shop": (f"its {what} /x is in use by web/data of owner theirs",)}


@pytest.mark.parametrize("intent", [ME, THEIRS])
@pytest.mark.parametrize(("there", "new"), [(READS, READS), (READS, COPIES), (COPIES, READS)])
def test_what_nobody_writes_is_shared(intent: Intent, there: Device, new: Device) -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("web", there)), intent)
    assert not vmm.plan(topology(client("shop", new))).unplaced


@pytest.mark.parametrize(("there", "new", "what"), PAIRS)
def test_a_rename_with_prune_hands_the_storage_over(there: Device, new: Device, what: str) -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("web", there)))
    wanted = topology(client("shop", new))
    plan = vmm.apply(wanted, PRUNE)
    steps = {step.id: step for step in plan.steps}
    assert not plan.unplaced, what
    assert "stop/device-vm/web-dvm" in steps["define/device-vm/shop-dvm"].after
    assert sorted(vmm.domains) == ["shop", "shop-dvm"]
    assert not vmm.plan(wanted).steps


def test_what_a_client_without_a_place_keeps_is_not_had_twice() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("web", WRITES)))
    greedy = class_("greedy", resources=(core(99),))
    web = client("web", stored("data", "/other"), replace(disk("more"), class_="greedy"))
    plan = vmm.plan(topology(web, client("shop", WRITES), classes=(class_(), greedy)))
    assert unplaced(plan)["shop"] == (
        "its storage /x is in use by web/data, which has no place as it is declared and stays as it is",
    )
    assert not plan.steps


def test_what_a_running_device_vm_still_has_is_in_use_whatever_its_definition_says() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("web", WRITES)), THEIRS)
    there = vmm.domains["web-dvm"]
    assert there.spec
    vmm.domains["web-dvm"] = replace(there, spec=replace(there.spec, emulators=()))
    assert "shop" in unplaced(vmm.plan(topology(client("shop", WRITES))))


def test_one_path_on_two_hosts_is_two_files() -> None:
    vmm = ModelVmm(host("h1"), host("h2"))
    vmm.apply(topology(client("web", WRITES, host="h1")), THEIRS)
    plan = vmm.plan(topology(client("shop", WRITES)))
    assert [one.host for one in plan.allocations] == ["h2"]
    told = vmm.plan(topology(client("shop", WRITES, host="h1")))
    assert unplaced(told) == {"shop": ("h1: its storage /x is in use by web/data of owner theirs",)}
    # A host that is alone may have had another name when its domains were made.
    vmm.hosts = (replace(vmm.hosts[0], name="h3"),)
    assert unplaced(vmm.plan(topology(client("shop", WRITES)))) == {
        "shop": ("its storage /x is in use by web/data of owner theirs",)
    }


def test_who_shares_a_device_vm_goes_where_all_can_or_without_the_one_that_cannot() -> None:
    vmm = ModelVmm(host("h1"), host("h2"))
    vmm.apply(topology(client("web", WRITES, host="h1")), THEIRS)
    clients = (client("shop", WRITES), client("zoo", disk()))
    plan = vmm.plan(topology(*clients, device_vms=(SHARED,)))
    assert [(one.host, one.serves) for one in plan.allocations] == [("h2", ("shop/data", "zoo/data"))]
    maintained = (HostPolicy("h2", maintenance=True),)
    plan = vmm.plan(topology(*clients, device_vms=(SHARED,), hosts=maintained))
    assert unplaced(plan) == {
        "shop": ("h1: shop: its storage /x is in use by web/data of owner theirs", "h2: it is in maintenance")
    }
    assert [(one.host, one.serves) for one in plan.allocations] == [("h1", ("zoo/data",))]


@pytest.mark.parametrize("user", [READS, COPIES])
@pytest.mark.parametrize("intent", [ME, THEIRS])
def test_data_that_somebody_has_is_not_deleted(intent: Intent, user: Device) -> None:
    """As it is where both were made before that was refused."""
    vmm = ModelVmm()
    vmm.apply(topology(client("web", WRITES)))
    other = ModelVmm()
    other.apply(topology(client("user", user)), intent)
    vmm.domains |= other.domains
    plan = vmm.plan(topology(client("user", user)) if intent is ME else topology(), DELETE)
    assert {step.id for step in plan.steps} >= {"undefine/client/web", "undefine/device-vm/web-dvm"}
    assert deleted(plan) == []
    assert "/x is not deleted: user/data has it too" in plan.warnings


def test_data_is_deleted_where_it_is_on_another_host_that_somebody_has_the_path() -> None:
    vmm = ModelVmm(host("h1"), host("h2"))
    vmm.apply(topology(client("web", WRITES, host="h1")))
    vmm.apply(topology(client("user", READS, host="h2")), THEIRS)
    assert deleted(vmm.plan(topology(), DELETE)) == ["web/data"]


def booting(name: str = "boots", image: str = "/x", **changes: object) -> Client:
    """A client that boots a disk image, which it only reads."""
    return client(name, vm=ClientVM(1, 128 * MIB, Boot(image=image)), **changes)


def test_an_image_that_a_client_boots_is_in_use() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("web", WRITES)))
    told = "its boot image /x is in use by web/data, which is not declared here: --prune removes it"
    assert unplaced(vmm.plan(topology(booting()))) == {"boots": (told,)}
    vmm = ModelVmm()
    vmm.apply(topology(booting()))
    told = "its storage /x is in use by boots/boot.image, which is not declared here: --prune removes it"
    assert unplaced(vmm.plan(topology(client("web", WRITES)))) == {"web": (told,)}
    assert not vmm.plan(topology(booting("boots-too"), client("web", READS), client("copy", COPIES))).unplaced


@pytest.mark.parametrize("declared", [True, False])
def test_an_image_that_a_client_boots_is_not_deleted(declared: bool) -> None:
    """As it is where both were made before that was refused."""
    vmm = ModelVmm()
    vmm.apply(topology(booting()))
    domains = vmm.domains
    vmm.domains = {}
    vmm.apply(topology(client("web", WRITES)))
    vmm.domains |= domains
    wanted, intent = (
        (topology(booting()), DELETE) if declared else removal(topology(client("web", WRITES)), DELETE_ALONE)
    )
    plan = vmm.plan(wanted, intent)
    assert {step.name for step in plan.steps} == {"web", "web-dvm"}
    assert "/x is not deleted: boots/boot.image has it too" in plan.warnings


def test_an_image_is_written_before_it_is_booted_and_after_it_was() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("web", WRITES)))
    steps = {step.id: step for step in vmm.apply(topology(booting()), PRUNE).steps}
    assert "stop/device-vm/web-dvm" in steps["define/client/boots"].after
    assert "stop/device-vm/web-dvm" in steps["start/client/boots"].after
    steps = {step.id: step for step in vmm.apply(topology(client("web", WRITES)), PRUNE).steps}
    assert "stop/client/boots" in steps["define/device-vm/web-dvm"].after
    assert "stop/client/boots" in steps["start/device-vm/web-dvm"].after


def renamed(vmm: ModelVmm, name: str = "h2") -> ModelVmm:
    """The same VMM, whose only host is called something else now."""
    vmm.hosts = (replace(vmm.hosts[0], name=name),)
    return vmm


def test_what_was_made_before_its_host_was_renamed_is_there_and_goes_on() -> None:
    vmm = ModelVmm()
    wanted = topology(client("web", WRITES), booting(image="/os"))
    vmm.apply(wanted)
    plan = renamed(vmm).plan(wanted)
    assert (plan.steps, plan.unplaced) == ((), ())
    more = vmm.apply(topology(*wanted.clients, client("shop", disk())))
    assert {step.name for step in more.steps} == {"shop", "shop-dvm"}
    changed = topology(client("web", WRITES, disk("more")), *wanted.clients[:1])
    assert [step.id for step in vmm.apply(changed, PRUNE).steps if step.effect is Effect.REPLACE] == []
    assert vmm.plan(changed).steps == ()


def test_what_is_taken_over_on_a_host_that_was_renamed_is_not_deleted() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("web", WRITES)))
    plan = renamed(vmm).plan(topology(client("shop", WRITES)), DELETE)
    assert "define/device-vm/shop-dvm" in {step.id for step in plan.steps}
    assert deleted(plan) == []
    assert "/x is not deleted: shop/data has it too" in plan.warnings


def test_data_is_deleted_on_a_host_that_was_renamed() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("web", WRITES)))
    assert deleted(renamed(vmm).plan(topology(), DELETE)) == ["web/data"]


def test_who_asked_for_what_others_keep_is_refused_with_them() -> None:
    """Each takes over the store of the next, and the last cannot give its own away."""
    greedy = class_("greedy", resources=(core(99),))
    names = [f"c{number}" for number in range(5)]
    vmm = ModelVmm()
    vmm.apply(topology(*(client(name, stored("data", f"/{name}")) for name in names)))
    devices = [(stored("data", f"/{name}"),) for name in [*names[1:], "c9"]]
    devices[-1] += (replace(disk("more"), class_="greedy"),)
    clients = [client(name, *some) for name, some in zip(names, devices, strict=True)]
    plan = vmm.plan(topology(*clients, classes=(class_(), greedy)))
    found = unplaced(plan)
    assert "99 cores" in found.pop("c4")[0]
    assert found == {
        name: (
            f"its storage /{there} is in use by {there}/data, which has no place as it is declared and stays as it is",
        )
        for name, there in pairwise(names)
    }
    assert plan.steps == ()


def stranger(name: str = "m", *, owner: str = "", floats: bool = False) -> Holding:
    """A domain of somebody else's, on all CPUs."""
    cpus = () if floats else tuple(range(8))
    return Holding(name, "22222222-2222-2222-2222-222222222222", True, 8, GIB, cpus, floats, owner=owner)


def test_a_name_that_is_taken_on_one_host_can_be_had_on_another() -> None:
    vmm = ModelVmm(host("h1", holdings=(stranger(),)), host("h2"))
    plan = vmm.plan(topology(client("m", disk())))
    assert [one.host for one in plan.allocations] == ["h2"]
    told = vmm.plan(topology(client("m", disk(), host="h1")))
    assert unplaced(told) == {"m": ("h1: a domain of this name is there already and is not devicevm's",)}


def test_a_name_that_is_taken_on_every_host_is_told_for_each() -> None:
    vmm = ModelVmm(host("h1", holdings=(stranger(),)), host("h2", holdings=(stranger(owner="them"),)))
    assert unplaced(vmm.plan(topology(client("m", disk())))) == {
        "m": (
            "h1: a domain of this name is there already and is not devicevm's",
            "h2: a domain of this name is there already and is owner them's",
        )
    }


def with_a_stranger(**what: object) -> ModelVmm:
    """My client m on one host, and then a stranger of the same name on another."""
    vmm = ModelVmm(host("h1"), host("h2"))
    vmm.apply(topology(client("m", disk(), host="h1")))
    vmm.hosts = (vmm.hosts[0], host("h2", holdings=(stranger(**what),)))  # type: ignore[arg-type]
    return vmm


def test_what_another_host_s_domain_of_the_same_name_holds_is_held() -> None:
    whole = class_("whole", resources=(core(2),))
    vmm = with_a_stranger()
    plan = vmm.plan(
        topology(
            client("m", disk(), host="h1"),
            client("x", replace(disk(), class_="whole"), host="h2"),
            classes=(class_(), whole),
        )
    )
    assert unplaced(plan)["x"][0] == "h2: x-dvm: 2 cores: 2 cores asked, 0 free: 0-7 shared by m"
    assert not plan.steps


def test_a_client_stays_where_it_is_when_its_name_is_taken_elsewhere() -> None:
    assert not with_a_stranger().plan(topology(client("m", disk(), host="h1"))).steps


def test_an_owner_s_domain_of_the_same_name_on_another_host_is_not_forgotten_when_all_is_placed_anew() -> None:
    vmm = ModelVmm(host("h1"), host("h2"))
    vmm.apply(topology(client("web", WRITES, host="h2")), THEIRS)
    theirs = vmm.domains.pop("web-dvm")
    vmm.domains.pop("web")
    assert theirs.spec
    vmm.apply(topology(client("web", disk(), host="h1")))
    vmm.domains["z"] = theirs
    plan = vmm.plan(
        topology(client("web", disk(), host="h1"), client("shop", WRITES, host="h2")), replace(ME, rebalance=True)
    )
    assert unplaced(plan) == {"shop": ("h2: its storage /x is in use by web/data of owner theirs",)}


def test_another_owner_s_domain_of_the_same_name_has_its_own_trust_domain() -> None:
    own = class_("own", resources=(thread(1, dedicated=True),))
    fixed = replace(disk(), class_="own")
    vmm = ModelVmm(host("h1", cores=1), host("h2", cores=1))
    vmm.apply(topology(client("m", fixed, host="h2", trust_domain="blue"), classes=(own,)), THEIRS)
    theirs = {f"their {name}": domain for name, domain in vmm.domains.items()}
    vmm.domains.clear()
    mine = client("m", fixed, host="h1", trust_domain="red")
    vmm.apply(topology(mine, classes=(own,)))
    vmm.domains |= theirs
    plan = vmm.plan(topology(mine, client("n", fixed, host="h2", trust_domain="red"), classes=(own,)))
    assert "on cores of trust domain blue (m-dvm)" in unplaced(plan)["n"][0]


def test_a_stranger_that_floats_is_moved_though_one_of_mine_elsewhere_has_its_name() -> None:
    own = class_("own", resources=(thread(1, dedicated=True),))
    vmm = with_a_stranger(floats=True)
    plan = vmm.plan(
        topology(
            client("m", disk(), host="h1"),
            client("x", replace(disk(), class_="own"), host="h2"),
            classes=(class_(), own),
            hosts=(HostPolicy("h1"), HostPolicy("h2", floating_domains=FloatingDomains.MOVE)),
        )
    )
    assert "repin/domain/m" in {step.id for step in plan.steps}
