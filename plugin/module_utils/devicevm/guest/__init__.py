"""What runs inside device VMs: images, and how to talk to the agent in one (docs/images.md)."""

from __future__ import annotations
