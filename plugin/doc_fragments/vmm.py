# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options by which every module of this collection finds its VMM."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  connect:
    description:
      - The VMM of the target, as a libvirt URI. Remote URIs are refused, since the module runs where the VMM is.
      - Without one, E(LIBVIRT_DEFAULT_URI) of the target, else C(qemu:///system) if it answers, else a VMM embedded in
        the module (C(qemu:///embed), no daemon needed).
    type: str
    default: ''
  images:
    description:
      - The folder on the target that holds the device VM images (C(devicevm image build)).
      - Without one, E(DEVICEVM_IMAGES) of the target, else C(/var/lib/devicevm/images) for root, else a folder
        of the user's.
    type: path
  accelerator:
    description:
      - What runs guests. V(auto) takes the best that was seen to work, by booting something small.
    type: str
    choices: [auto, kvm, tcg]
    default: auto
  lock_timeout:
    description:
      - How many seconds to wait while another program changes the same VMM.
    type: float
    default: 120
requirements:
  - python >= 3.10
  - python3-libvirt (libvirt's Python binding) for the interpreter that runs the module on the target
"""
