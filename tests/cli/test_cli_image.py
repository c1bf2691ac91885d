"""image: recipes, the store, and what may be removed. The builder itself is tested elsewhere."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from devicevm.guest.architecture import ARCHITECTURES, build_architecture
from devicevm.guest.elf import read_needs
from devicevm.guest.image import INITRAMFS, KERNEL, DiskContent, Image, write_description
from devicevm.guest.store import ImageStore
from devicevm.vmm.images import images_in
from devicevm.vmm.overlay import make_overlay

RECIPE = """
apiVersion: devicevm/v1
kind: Image
metadata: {name: radio}
spec: {kernel: cloud, init: agent, guestPrograms: [agent]}
"""


def put(root: Path, name: str, digest: str) -> Image:
    """An image in the store, the current one of its name."""
    digest = digest * 64
    image = Image(name, digest, "x86_64", "6.1", "quiet", 1, "0" * 64, 1, "0" * 64)
    store = ImageStore(root)
    with store.workspace() as workspace:
        built = workspace / "image"
        built.mkdir()
        (built / KERNEL).write_text("k")
        (built / INITRAMFS).write_text("i")
        write_description(image, built)
        store.publish(built, image)
    return image


def put_disk(root: Path, digest: str) -> Image:
    """The same with a whole disk in it."""
    image = Image("distro", digest * 64, "x86_64", disk=DiskContent("raw", 512, digest * 64))
    store = ImageStore(root)
    with store.workspace() as workspace:
        built = workspace / "image"
        built.mkdir()
        (built / "disk").write_bytes(bytes(512))
        write_description(image, built)
        store.publish(built, image)
    return image


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the builder was asked for, instead of being asked."""
    seen: list[Any] = []

    def build(recipe: Any, **settings: Any) -> Image:
        seen.append((recipe, settings))
        settings["progress"]("compiling")
        return put(settings["store"].root, recipe.name, "a")

    monkeypatch.setattr("devicevm.cli.imagebuild.build_image", build)
    return seen


def test_build(cli: Any, asked: list[Any], tmp_path: Path) -> None:
    (tmp_path / "radio.yaml").write_text(RECIPE)
    store = tmp_path / "store"
    said = cli("image", "build", "base", tmp_path / "radio.yaml", "--images", store)
    assert said.status == 0
    assert "radio: compiling" in said.err
    assert said.out.splitlines()[-1] == f"radio-aaaaaaaaaaaa is current in {store}"
    assert [recipe.name for recipe, _ in asked] == ["base", "radio"]
    said = cli("image", "build", "base", "--refresh", "--images", store, "-o", "json")
    assert said.json[0]["name"] == "base"
    assert asked[-1][1]["packages"]._refresh
    assert (asked[-1][1]["arch"], asked[-1][1]["tools"]) == (build_architecture(), None)


def test_build_for_another_architecture(cli: Any, asked: list[Any], tmp_path: Path) -> None:
    (other,) = set(ARCHITECTURES) - {build_architecture()}
    said = cli("image", "build", "--arch", other, "base", "--images", tmp_path)
    assert f"base for {other}: compiling" in said.err
    settings = asked[-1][1]
    assert settings["arch"] == other
    assert settings["packages"].kernel_package("cloud").endswith(f"-{ARCHITECTURES[other].debian}")
    assert settings["tools"].kernel_package("cloud").endswith(f"-{ARCHITECTURES[build_architecture()].debian}")
    assert cli("image", "build", "--arch", "z80", "base").status == 2


def test_build_what_is_not_there(cli: Any, web: Path, tmp_path: Path) -> None:
    said = cli("image", "build", "nothing")
    assert said.status == 1
    assert "recipes: base, client" in said.err
    said = cli("image", "build", web)
    assert said.status == 1
    assert "has no document of kind Image" in said.err
    (tmp_path / "bad.yaml").write_text(RECIPE.replace("kernel: cloud", "kernel: small"))
    said = cli("image", "build", tmp_path / "bad.yaml")
    assert said.status == 1
    assert "bad.yaml:5:" in said.err


def test_list(cli: Any, tmp_path: Path) -> None:
    said = cli("image", "list", "--images", tmp_path)
    assert said.out == f"No images in {tmp_path}.\n"
    assert "not built: base, client" in said.err
    put(tmp_path, "base", "a")
    put(tmp_path, "base", "b")
    lines = cli("image", "list", "--images", tmp_path).out.splitlines()
    assert [line.split()[:4] for line in lines[1:]] == [
        ["base", "x86_64", "a" * 12, "no"],
        ["base", "x86_64", "b" * 12, "yes"],
    ]
    assert [item["digest"][0] for item in cli("image", "list", "-o", "json", "--images", tmp_path).json] == ["a", "b"]


def test_remove_what_nobody_boots(cli: Any, vmm: Any, tmp_path: Path) -> None:
    put(tmp_path, "base", "a")
    put(tmp_path, "base", "b")
    said = cli("image", "remove", "--unused", "--images", tmp_path)
    assert said.out == "base-aaaaaaaaaaaa removed\n"
    assert cli("image", "remove", "--unused", "--images", tmp_path).out == ""
    assert cli("image", "remove", "base-bbbbbbbbbbbb", "--images", tmp_path).status == 0
    said = cli("image", "remove", "base", "--images", tmp_path)
    assert said.status == 1
    assert "there are: none" in said.err
    assert cli("image", "remove").status == 2
    assert cli("image", "remove", "base", "--unused").status == 2


def test_what_a_domain_boots_is_kept(cli: Any, vmm: Any, web: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    put(images, "base", "a")
    assert cli("apply", web, "--images", images).status == 0
    put(images, "base", "b")
    said = cli("image", "remove", "base-aaaaaaaaaaaa", "--images", images)
    assert said.status == 1
    assert "is booted by domain web-dvm" in said.err
    assert cli("image", "remove", "--unused", "--images", images).out == ""
    # With the last domain that boots it, the superseded version goes; the current one stays.
    said = cli("destroy", web, "--images", images)
    assert "base-aaaaaaaaaaaa removed" in said.err
    assert [image.digest[0] for image in ImageStore(images).list()] == ["b"]


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")
def test_what_a_disk_rests_on_is_kept(cli: Any, vmm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client's disk of a VMM that is not asked, whose domain is stopped or not defined any more."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    images = tmp_path / "images"
    store, overlays = ImageStore(images), tmp_path / "state/devicevm/vmm/other/clients"
    first, _second = (put_disk(images, digest) for digest in "ab")
    make_overlay(overlays / "web.qcow2", str(store.folder(first) / "disk"))
    assert cli("image", "remove", "--unused", "--images", images).out == ""
    said = cli("image", "remove", first.folder, "--images", images)
    assert (said.status, f"is booted by disk {overlays}/web.qcow2" in said.err.replace("\n", "")) == (1, True)
    (overlays / "web.qcow2").unlink()
    assert cli("image", "remove", "--unused", "--images", images).out == f"{first.folder} removed\n"


def test_a_disk_image_that_a_client_boots_is_kept(cli: Any, vmm: Any, web: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    put(images, "base", "c")
    first, _second = (put_disk(images, digest) for digest in "ab")
    disk = ImageStore(images).folder(first) / "disk"
    web.write_text(web.read_text().replace("guestImage: client", f"image: {disk}"))
    assert cli("apply", web, "--images", images).status == 0
    assert cli("image", "remove", "--unused", "--images", images).out == ""
    assert "is booted by domain web" in cli("image", "remove", first.folder, "--images", images).err


def test_force(cli: Any, vmm: Any, web: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    put(images, "base", "a")
    assert cli("apply", web, "--images", images).status == 0
    assert cli("image", "remove", "base", "--force", "--images", images).status == 0
    assert ImageStore(images).list() == ()


def test_newer_builds_are_told_of_and_booted_when_asked(cli: Any, vmm: Any, web: Path, tmp_path: Path) -> None:
    images, saved = tmp_path / "images", tmp_path / "plan.json"
    put(images, "base", "a")
    assert cli("apply", web, "--images", images).status == 0
    put(images, "base", "b")
    said = cli("apply", web, "--images", images)
    assert "web-dvm: a newer build of image base is there; --upgrade has it booted" in said.err.replace("\n", " ")
    assert "No changes." in said.out
    planned = cli("plan", web, "--upgrade", "--out", saved, "-o", "json", "--images", images).json
    (stop,) = (step for step in planned["steps"] if step["action"] == "stop" and step["kind"] == "device-vm")
    assert "image base-aaaaaaaaaaaa -> base-bbbbbbbbbbbb" in stop["reason"]
    assert cli("apply", saved, "--upgrade", "--images", images).status == 2
    assert cli("apply", web, "--upgrade", "--yes", "--images", images).status == 0
    assert "newer build" not in cli("plan", web, "--images", images).err
    assert cli("image", "remove", "--unused", "--images", images).out == "base-aaaaaaaaaaaa removed\n"


DISK = """
apiVersion: devicevm/v1
kind: Image
metadata: {name: radio}
spec:
  disk: {file: radio.img, sha256: SHA256}
"""


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")
def test_a_disk_is_taken_in_by_its_content(cli: Any, tmp_path: Path) -> None:
    store, disk, manifest = tmp_path / "store", tmp_path / "radio.img", tmp_path / "radio.yaml"
    disk.write_bytes(b"boot loader" + bytes(3 << 20) + b"end")
    sha256 = hashlib.sha256(disk.read_bytes()).hexdigest()
    manifest.write_text(DISK.replace("SHA256", sha256))
    said = cli("image", "build", manifest, "--images", store)
    assert said.status == 0, said.err
    (image,) = ImageStore(store).list()
    assert image.disk == DiskContent("raw", disk.stat().st_size, sha256)
    assert (ImageStore(store).folder(image) / "disk").read_bytes() == disk.read_bytes()
    (facts,) = images_in(store)
    assert (facts.disk, facts.kernel, facts.agent) == (str(store / image.folder / "disk"), "", False)
    # The same is not copied again; what somebody has changed is refused, and nothing half made is left.
    assert "up to date" in cli("image", "build", manifest, "--images", store).err
    disk.write_bytes(b"other")
    said = cli("image", "build", manifest, "--images", store)
    assert (said.status, f"not {sha256}" in said.err.replace("\n", " ")) == (1, True)
    manifest.write_text(DISK.replace(", sha256: SHA256", ", agent: true"))
    assert cli("image", "build", manifest, "--images", store).status == 0
    assert [one.agent for one in images_in(store)] == [True]
    assert len(ImageStore(store).list()) == 2
    assert not list(store.glob(".build-*"))


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")
def test_a_disk_that_is_none_is_refused(cli: Any, tmp_path: Path) -> None:
    manifest = tmp_path / "radio.yaml"
    manifest.write_text(DISK.replace(", sha256: SHA256", ""))
    assert "radio.img" in cli("image", "build", manifest).err
    base, layered = tmp_path / "base.img", tmp_path / "radio.img"
    base.write_bytes(bytes(1 << 20))
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, layered], check=True)
    said = cli("image", "build", manifest, "--images", tmp_path / "store")
    assert (said.status, "rests on another file" in said.err) == (1, True)
    layered.write_bytes(bytes(1 << 20))
    said = cli("image", "build", "--arch", "aarch64", manifest, "--images", tmp_path / "store")
    assert "machines of aarch64 have no BIOS" in said.err


def test_the_agent_is_one_static_program(cli: Any, tmp_path: Path) -> None:
    said = cli("image", "agent", "--arch", build_architecture(), tmp_path / "agent")
    assert said.status == 0, said.err
    assert read_needs(tmp_path / "agent").libraries == ()
    # Under any init but its own it has to be told that it is a service.
    done = subprocess.run([tmp_path / "agent"], capture_output=True, text=True, check=False)
    assert (done.returncode, "service" in done.stderr) == (2, True)
