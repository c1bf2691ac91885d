"""Saved plans: what the planner never writes is refused before anything is done."""

from __future__ import annotations

from dataclasses import replace

import pytest
from devicevm.apply.check import check_plan
from devicevm.domain import DomainSpec, ObservedDomain, Role
from devicevm.errors import DevicevmError
from devicevm.manifest.topology import Boot, Consumer, Store
from devicevm.planner.plan import Action, Effect, Phase, Plan, Repin, Step, Subject


def step(key: str, *after: str, store: Store | None = None) -> Step:
    action, kind, name = key.split("/", 2)
    return Step(key, Action(action), Subject(kind), name, Phase.REQUEST, Effect.NONE, "", after, store=store)


def domain(name: str, role: Role, owner: str = "lab") -> DomainSpec:
    return DomainSpec(name, "u", role, owner, "h1", 1, 2**20, "tcg", "x86_64", "pc", Boot())


def seen(spec: DomainSpec) -> ObservedDomain:
    return ObservedDomain(spec.name, spec.uuid, spec.owner, spec.role, True, None, broken="its metadata is empty")


WEB, DVM = domain("web", Role.CLIENT), domain("web-dvm", Role.DEVICE_VM)
PLAN = Plan(
    "lab",
    "0",
    steps=(
        step("create/store/web/data", store=Store("file", 1, path="/s")),
        step("define/device-vm/web-dvm", "create/store/web/data"),
        step("start/device-vm/web-dvm", "define/device-vm/web-dvm"),
        step("define/client/web"),
        step("start/client/web", "define/client/web", "start/device-vm/web-dvm"),
    ),
    domains=(WEB, DVM),
)


LEDGER = replace(WEB, name="ledger", consumer=Consumer.EXISTING, domain="ledger-db")


def more(*steps: Step, plan: Plan = PLAN) -> Plan:
    return replace(plan, steps=(*plan.steps, *steps))


def test_a_plan_as_the_planner_writes_it_is_let_pass() -> None:
    check_plan(PLAN)
    check_plan(more(step("update/device-vm/web-dvm"), plan=replace(PLAN, previous=(DVM,))))
    check_plan(more(step("attach/client/ledger"), plan=replace(PLAN, domains=(*PLAN.domains, LEDGER))))
    check_plan(more(step("detach/client/ledger"), plan=replace(PLAN, previous=(LEDGER,))))
    gone = domain("gone", Role.CLIENT)
    check_plan(more(step("undefine/client/gone")), (seen(gone),))
    check_plan(more(step("undefine/client/gone"), plan=replace(PLAN, previous=(gone,))))
    # A client's name becomes a device VM's.
    check_plan(more(step("undefine/client/web-dvm"), plan=replace(PLAN, previous=(replace(DVM, role=Role.CLIENT),))))


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (replace(PLAN, api_version="devicevm/v2"), "apiVersion is 'devicevm/v2', and this devicevm knows 'devicevm/v1"),
        (replace(PLAN, kind="Client"), "kind is 'Client'"),
        (replace(PLAN, domains=(WEB, replace(DVM, owner="shop"))), "web-dvm is owner 'shop''s, and the plan is 'lab'"),
        (replace(PLAN, previous=(replace(WEB, owner="shop"),)), "previous: web is owner 'shop'"),
        (replace(PLAN, domains=(WEB, DVM, DVM)), "web-dvm is there 2 times"),
        (more(step("define/client/web")), "define/client/web: 2 steps have this id"),
        (more(step("stop/client/other")), "nothing is known of a domain 'other'"),
        (more(step("stop/client/shop")), "shop is owner 'shop''s, and the plan is 'lab'"),
        (more(step("stop/client/web-dvm")), "web-dvm is no client"),
        (more(step("create/client/web")), "there is no step create for a client"),
        (more(step("update/device-vm/web-dvm")), "does not say what web-dvm was"),
        (replace(PLAN, domains=(WEB,), previous=(DVM,)), "does not say what web-dvm is to be"),
        (more(step("attach/client/web"), plan=replace(PLAN, domains=(DVM,), previous=(WEB,))), "what web is to be"),
        (more(step("detach/client/web")), "does not say what web was"),
        (more(step("delete/store/web/data")), "does not say which store"),
        (more(step("stop/client/web", "nothing")), "after nothing, and there is no such step"),
        (more(step("stop/client/web", "stop/client/web")), "wait for each other.*: stop/client/web"),
        (
            more(step("stop/client/web", "stop/device-vm/web-dvm"), step("stop/device-vm/web-dvm", "stop/client/web")),
            "wait for each other.*: stop/client/web, stop/device-vm/web-dvm",
        ),
    ],
)
def test_what_no_plan_is_like_is_refused(plan: Plan, says: str) -> None:
    with pytest.raises(DevicevmError, match=says):
        check_plan(plan, (seen(domain("shop", Role.CLIENT, "shop")),))


def test_clients_in_existing_domains_go_by_names_of_their_owners() -> None:
    """Another owner's client, and a domain to be moved, may be called as one of ours."""
    theirs = replace(seen(replace(LEDGER, owner="shop")), consumer=Consumer.EXISTING)
    plan = more(step("attach/client/ledger"), plan=replace(PLAN, domains=(*PLAN.domains, LEDGER)))
    check_plan(plan, (theirs,))
    moved = replace(step("repin/domain/ledger"), repin=Repin("u", "h1", (0,)))
    check_plan(more(moved, plan=plan), (theirs,))


def test_everything_that_is_wrong_is_said_at_once_and_in_bounds() -> None:
    with pytest.raises(DevicevmError) as caught:
        check_plan(more(step("stop/client/a"), step("stop/client/b")))
    assert caught.value.message.count("nothing is known of") == 2
    with pytest.raises(DevicevmError, match="and 80 more") as caught:
        check_plan(more(*(step(f"stop/client/c{number}") for number in range(100))))
    assert len(caught.value.message.splitlines()) == 22
