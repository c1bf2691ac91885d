#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Make a host's VMM have what manifests declare."""

from __future__ import annotations

DOCUMENTATION = r"""
module: topology
short_description: Make a VMM have the client VMs, devices and device VMs that manifests declare
description:
  - Reads devicevm's manifests on the controller, works out on the target which device VMs are needed and what they run
    on, and makes the VMM have them. One task does a whole topology, and what is as declared already stays as it is.
  - An action plugin of the same name reads and checks the manifests first. When anything is wrong with them, the task
    fails with every problem (file, line, column, path in the document, what to do), and nothing is sent to the target.
  - The target needs nothing but Python and libvirt's binding. State lives in the VMM, in the domains' metadata.
  - Domains of another owner's, and domains that devicevm did not make, are never touched.
version_added: 0.1.0
author:
  - The devicevm contributors (!UNKNOWN)
extends_documentation_fragment:
  - devicevm.vmm.vmm
options:
  state:
    description:
      - V(present) makes what is declared so, and has it running.
      - V(absent) removes the clients that are declared, and the device VMs that nobody needs then. Backing storage
        stays, see O(delete_data).
    type: str
    choices: [present, absent]
    default: present
  src:
    description:
      - Files and folders with manifests, on the controller. Of a folder all C(*.yaml), C(*.yml) and C(*.json) below it
        are read. A relative path is looked for as C(ansible.builtin.copy) does, in the role's or the play's C(files)
        folder and then beside the play.
      - Manifests are read as they are, not as templates. For templates use O(manifests) with the C(template) lookup.
    type: list
    elements: path
  manifests:
    description:
      - The manifests themselves, one dictionary a document.
    type: list
    elements: dict
  base:
    description:
      - The folder on the target at which relative paths inside O(manifests) start. Without it they must be absolute.
    type: path
  owner:
    description:
      - The manifest set that what is made belongs to. Two sets on one host need two owners.
      - Letters, digits, C(-), C(.) and C(_), at most 63.
    type: str
    default: default
  topology:
    description:
      - What the manifests declare, as the action plugin has read it. Set by the action plugin, which refuses it in a
        task.
    type: dict
  prune:
    description:
      - Also remove every client of the O(owner)'s that is not declared.
      - With O(state=absent) everything of the owner's is removed, and no manifests are needed.
    type: bool
    default: false
  delete_data:
    description:
      - Also delete the backing storage of the devices that are removed, with the data in it. Block devices, what is
        read only, and what its manifest tells to retain (C(reclaim)) are left alone.
    type: bool
    default: false
  rebalance:
    description:
      - Also move what runs where that is better. Nothing is moved unless something is gained by it, which
        C(rebalance) in RV(plan) tells.
      - Restarts the clients that are moved. Without it what runs stays where it is.
    type: bool
    default: false
  upgrade:
    description:
      - Also have device VMs boot the newest build of their image, one after the other, each when the one before is up
        and its clients are back. What fails stops there, and the rest goes on with the build that it has.
      - Without it a device VM keeps the build that it was made with, and a warning tells of a newer one.
    type: bool
    default: false
  allow_unplaced:
    description:
      - What cannot be placed makes the task fail before anything is done. With this option the rest is done, and a
        warning names what was left out.
    type: bool
    default: false
  parallel:
    description:
      - How many steps to do at the same time.
    type: int
    default: 8
  timeout:
    description:
      - How many seconds a device VM may take to become ready.
    type: float
    default: 60
attributes:
  check_mode:
    description: The same plan is made from what the VMM has now, and not carried out. No lock is taken.
    support: full
  diff_mode:
    description: Shows the domains before and after and the steps with their reasons, from the plan that is carried out.
    support: full
  async:
    description: The module can run in the background.
    support: full
notes:
  - Paths inside manifests (kernels, initial RAM disks, images, backing storage) are paths on the target. A relative one
    starts at the folder that its manifest is in on the controller, or at O(base), and the path that this makes is
    looked up on the target. For targets other than the controller write absolute paths.
  - Ansible shows what a task did when it has ended. Each step is written to the target's system log as it begins and
    ends.
  - A task that is killed leaves nothing that the next run does not finish or undo.
requirements:
  - PyYAML and jsonschema >= 4.10 on the controller
seealso:
  - module: devicevm.vmm.host_info
"""

EXAMPLES = r"""
- name: Have what is declared
  devicevm.vmm.topology:
    src: manifests/

- name: Have what is declared in a set of its own, and remove what is no longer declared in it
  devicevm.vmm.topology:
    src:
      - classes.yaml
      - web.yaml
    owner: lab
    prune: true

- name: Declare a client in the play
  devicevm.vmm.topology:
    manifests:
      - apiVersion: devicevm/v1
        kind: Client
        metadata:
          name: web
        spec:
          vm:
            memory: 256MiB
            boot:
              guestImage: client
          devices:
            - name: data
              class: disk
              parameters:
                size: 64MiB
            - name: entropy
              class: rng

- name: Use manifests that are templates
  devicevm.vmm.topology:
    manifests: "{{ lookup('ansible.builtin.template', 'clients.yaml.j2') | from_yaml_all | list }}"

- name: Remove the clients of a manifest, and the data on their disks
  devicevm.vmm.topology:
    state: absent
    src: web.yaml
    delete_data: true

- name: Remove everything that belongs to an owner
  devicevm.vmm.topology:
    state: absent
    owner: lab
    prune: true
"""

RETURN = r"""
plan:
  description: The plan, as C(devicevm plan -o json) prints it.
  returned: once the plan is made
  type: dict
steps:
  description: What is to be done (check mode) or was done, in the plan's order. Empty when all is as declared.
  returned: once the plan is made
  type: list
  elements: dict
  contains:
    id:
      description: Identifies the step in the plan.
      type: str
      sample: start/device-vm/web-dvm
    action:
      description:
        - What the step does. C(attach) and C(detach) put the devices of a client into a domain that others have made,
          and take them out.
      type: str
      sample: start
    kind:
      description: What it is about, a C(device-vm), a C(client) or a C(store); a C(domain) is none of devicevm's.
      type: str
      sample: device-vm
    name:
      description: The name of the domain or the store.
      type: str
      sample: web-dvm
    phase:
      description: What the step is part of, C(request), C(configure), C(connect) or C(release).
      type: str
      sample: configure
    effect:
      description: What running clients feel, C(none), C(live), C(reconnect), C(restart), C(replace) or C(remove).
      type: str
      sample: none
    reason:
      description: Why.
      type: str
      sample: the emulation code for web/data (disk) runs in it
    after:
      description: The steps that must be done before.
      type: list
      elements: str
    affects:
      description: The clients that feel it.
      type: list
      elements: str
    felt:
      description:
        - For how long they feel it, with C(clients), C(until) (C(answered), C(booted), C(restarted) or C(never)) and,
          where anything is known, C(seconds) with C(from) and C(to).
      type: list
      elements: dict
    result:
      description: What became of it, C(done), C(failed), C(skipped) or C(undone). Not in check mode.
      type: str
      sample: done
    seconds:
      description: How long it took. Not in check mode.
      type: float
      sample: 2.4
allocations:
  description: What each device VM runs on, whom it serves, and why.
  returned: once the plan is made
  type: list
  elements: dict
unplaced:
  description: What cannot be had, with every reason.
  returned: once the plan is made
  type: list
  elements: dict
done:
  description: The ids of the steps that were done.
  returned: when steps were carried out
  type: list
  elements: str
failed_steps:
  description: The ids of the steps that failed.
  returned: when steps were carried out
  type: list
  elements: str
skipped_steps:
  description: The ids of the steps that were not begun because others had failed.
  returned: when steps were carried out
  type: list
  elements: str
undone:
  description: The ids of the steps that were undone because they, or what was built on them, had failed.
  returned: when steps were carried out
  type: list
  elements: str
problems:
  description: Everything that is wrong with the manifests.
  returned: when the manifests cannot be used
  type: list
  elements: dict
  contains:
    source:
      description: The file, or C(documents[N]) for O(manifests).
      type: str
    line:
      description: The line, from 1.
      type: int
    column:
      description: The column, from 1.
      type: int
    path:
      description: The place in the document.
      type: str
      sample: spec.devices[0].class
    message:
      description: What is wrong.
      type: str
    hint:
      description: What to do about it.
      type: str
"""

import contextlib
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devicevm.vmm.plugins.module_utils.devicevm.apply.progress import Progress
from ansible_collections.devicevm.vmm.plugins.module_utils.devicevm.apply.workflow import (
    Options,
    Unplaceable,
    carry_out,
    refuse_unplaced,
    survey,
)
from ansible_collections.devicevm.vmm.plugins.module_utils.devicevm.errors import DevicevmError
from ansible_collections.devicevm.vmm.plugins.module_utils.devicevm.inventory.host import Host
from ansible_collections.devicevm.vmm.plugins.module_utils.devicevm.manifest.topology import Topology
from ansible_collections.devicevm.vmm.plugins.module_utils.devicevm.planner.plan import Plan, Step
from ansible_collections.devicevm.vmm.plugins.module_utils.devicevm.planner.planner import (
    Intent,
    make_plan,
    removal,
)
from ansible_collections.devicevm.vmm.plugins.module_utils.devicevm.record import from_data
from ansible_collections.devicevm.vmm.plugins.module_utils.devicevm.vmm.driver import Driver
from ansible_collections.devicevm.vmm.plugins.module_utils.devicevm.vmm.lock import lock
from ansible_collections.devicevm.vmm.plugins.module_utils.topology_arguments import (
    ARGUMENTS,
    EXCLUSIVE,
    TOPOLOGY,
    check_arguments,
)
from ansible_collections.devicevm.vmm.plugins.module_utils.topology_result import (
    carried_out,
    difference,
    failure,
    planned,
)
from ansible_collections.devicevm.vmm.plugins.module_utils.vmm_access import fail, open_vmm, vmm_uri


class SystemLog(Progress):
    """Ansible shows nothing before the module ends; who waits can follow the steps in the target's system log."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.seconds: dict[str, float] = {}

    def started(self, step: Step) -> None:
        self.module.log(f"{step.id}: begun: {step.reason}")

    def done(self, step: Step, seconds: float) -> None:
        self.seconds[step.id] = seconds
        self.module.log(f"{step.id}: done in {seconds:.1f} s")

    def failed(self, step: Step, error: Exception) -> None:
        self.module.log(f"{step.id}: failed: {error}")

    def undone(self, step: Step) -> None:
        self.module.log(f"{step.id}: undone")

    def note(self, text: str) -> None:
        self.module.log(text)


def converge(module: AnsibleModule) -> dict[str, Any]:
    """Open the VMM and do the task there; its result. Check mode only looks, and takes no lock."""
    check_arguments(module.params)
    uri = vmm_uri(module.params)
    held = contextlib.nullcontext() if module.check_mode else lock(uri, module.params["lock_timeout"])
    # First the lock, as everybody does: an embedded VMM is one process's alone, and would be waited for in a circle.
    with held, open_vmm(uri, module.params) as driver:
        return converge_on(driver, module)


def converge_on(driver: Driver, module: AnsibleModule) -> dict[str, Any]:
    """Plan, and unless this is check mode carry the plan out."""
    topology, intent = wanted(module.params)
    hosts, observed = survey(driver, topology)
    plan = make_plan(topology, hosts, observed, intent)
    result = planned(plan)
    try:
        refuse_unplaced(plan)
    except Unplaceable as error:
        if not module.params["allow_unplaced"]:
            fail(module, error, {**result, "changed": False})
        module.warn(error.message)
    for warning in plan.warnings:
        module.warn(warning)
    if plan.steps and not module.check_mode:
        result |= apply(module, plan, driver, hosts[0])
    if module._diff:
        result["diff"] = difference(plan, observed)
    return result


def wanted(arguments: dict[str, Any]) -> tuple[Topology, Intent]:
    """What to plan for: what is declared, or nothing and the removal of it."""
    topology = from_data(Topology, arguments[TOPOLOGY] or {})
    intent = Intent(**{key: arguments[key] for key in ("owner", "prune", "delete_data", "rebalance", "upgrade")})
    return (topology, intent) if arguments["state"] == "present" else removal(topology, intent)


def apply(module: AnsibleModule, plan: Plan, driver: Driver, host: Host) -> dict[str, Any]:
    """Carry the plan out; when a step fails, the module ends here."""
    arguments = module.params
    options = Options(
        parallel=arguments["parallel"], timeout=arguments["timeout"], allow_unplaced=arguments["allow_unplaced"]
    )
    progress = SystemLog(module)
    outcome = carry_out(plan, driver, host, options, progress)
    result = carried_out(plan, outcome, progress.seconds)
    if not outcome.ok:
        fail(module, DevicevmError(failure(plan, outcome)), {**planned(plan), **result})
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={**ARGUMENTS, TOPOLOGY: {"type": "dict"}},
        mutually_exclusive=EXCLUSIVE,
        supports_check_mode=True,
    )
    try:
        result = converge(module)
    except DevicevmError as error:
        fail(module, error)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
