#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host has for device VMs, and what of it is taken."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_info
short_description: Tell what a host has for device VMs and clients, and what of it is taken
description:
  - Returns the inventory of the target as devicevm's planner sees it, that is processors, cores, threads and caches,
    NUMA nodes and memory, devices, CPU features, what the VMM can do, the device VM images that are there, and what
    each domain holds.
  - It is the document that C(devicevm inventory -o json) prints, and C(devicevm plan --inventory) reads, so inventories
    that were gathered with this module serve to plan for a fleet without touching it.
version_added: 0.1.0
author:
  - The devicevm contributors (!UNKNOWN)
extends_documentation_fragment:
  - devicevm.vmm.vmm
attributes:
  check_mode:
    description: The module changes nothing.
    support: full
  diff_mode:
    description: The module changes nothing.
    support: none
seealso:
  - module: devicevm.vmm.topology
"""

EXAMPLES = r"""
- name: Look at the host
  devicevm.vmm.host_info:
  register: inventory

- name: Say what is there
  ansible.builtin.debug:
    msg: >-
      {{ inventory.host.cpus | length }} CPUs, {{ inventory.host.memory | human_readable }},
      {{ inventory.host.vmm.driver }} at {{ inventory.host.vmm.uri }}

- name: Keep the inventory for planning offline
  ansible.builtin.copy:
    content: "{{ inventory.host | to_nice_json }}"
    dest: "{{ playbook_dir }}/{{ inventory_hostname }}.json"
    mode: "0644"
  delegate_to: localhost
"""

RETURN = r"""
host:
  description:
    - The inventory. Memory is in bytes. Keys that hold nothing or their default are left out.
  returned: success
  type: dict
  contains:
    name:
      description: The host's name.
      type: str
      sample: node1
    arch:
      description: The architecture of the host.
      type: str
      sample: x86_64
    memory:
      description: All memory, in bytes.
      type: int
      sample: 17179869184
    vmm:
      description: The VMM, its URI, its versions, and what it can do (C(supports)).
      type: dict
    accelerator:
      description: The accelerator that was seen to work.
      type: str
      sample: tcg
    cpus:
      description: The logical processors, each with its core, socket, NUMA node and siblings.
      type: list
      elements: dict
    nodes:
      description: The NUMA nodes.
      type: list
      elements: dict
    images:
      description: The device VM images that are there.
      type: list
      elements: dict
    holdings:
      description: What each domain on the host holds of it, devicevm's or not.
      type: list
      elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.devicevm.vmm.plugins.module_utils.devicevm.errors import DevicevmError
from ansible_collections.devicevm.vmm.plugins.module_utils.devicevm.record import to_data
from ansible_collections.devicevm.vmm.plugins.module_utils.vmm_access import VMM_ARGUMENTS, fail, open_vmm, vmm_uri


def main() -> None:
    module = AnsibleModule(argument_spec=VMM_ARGUMENTS, supports_check_mode=True)
    try:
        with open_vmm(vmm_uri(module.params), module.params) as driver:
            host = driver.host()
    except DevicevmError as error:
        fail(module, error)
    module.exit_json(changed=False, host=to_data(host))


if __name__ == "__main__":
    main()
