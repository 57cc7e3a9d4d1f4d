"""`Volume` and `Secret` of the synchronous SDK."""

import time

from e2b import (
    Sandbox,
    Secret,
    SecretNotFoundException,
    Volume,
    VolumeNotFoundException,
    VolumePathNotFoundException,
)

from _check import case, raises, run

NAME = f"py-{time.time_ns()}"
volume = Volume.create(NAME)


@case
def volumes_are_made_and_listed():
    again = Volume.connect(volume.volume_id)
    assert (again.name, again.token) == (NAME, volume.token)
    assert Volume.get_info(volume.volume_id).name == NAME
    assert volume.volume_id in [one.volume_id for one in Volume.list()]


@case
def files_go_in_and_out():
    made = volume.make_dir("/a/b", force=True, mode=0o700)
    assert (made.path, made.mode & 0o777) == ("/a/b", 0o700)
    entry = volume.write_file("/a/text", "Grüße", uid=1000, gid=1000)
    assert (entry.path, entry.size, entry.uid) == ("/a/text", 7, 1000)
    assert volume.read_file("/a/text") == "Grüße"
    data = bytes(range(256)) * 8192
    volume.write_file("/a/bytes", data)
    assert bytes(volume.read_file("/a/bytes", format="bytes")) == data
    assert b"".join(volume.read_file("/a/bytes", format="stream")) == data
    raises(VolumePathNotFoundException, lambda: volume.read_file("/none"))
    raises(VolumePathNotFoundException, lambda: volume.write_file("/none/f", "x"))
    assert [one.path for one in volume.list("/", depth=2)] == ["/a", "/a/b", "/a/bytes", "/a/text"]
    changed = volume.update_metadata("/a/bytes", mode=0o600)
    assert changed.mode & 0o777 == 0o600
    assert volume.get_info("/a/bytes").size == len(data)
    assert volume.exists("/a/bytes") and not volume.exists("/none")


@case
def sandboxes_share_a_volume():
    shared = Volume.create(f"{NAME}-shared")
    one = Sandbox.create("base", timeout=120, volume_mounts={"/mnt/data": shared})
    other = Sandbox.create("base", timeout=120, volume_mounts={"/data": shared.name})
    try:
        mounts = one.get_info().volume_mounts
        assert mounts == [{"name": shared.name, "path": "/mnt/data"}]
        one.files.write("/mnt/data/hello.txt", "hello")
        assert other.commands.run("cat /data/hello.txt").stdout == "hello"
        assert shared.read_file("/hello.txt") == "hello"
        shared.write_file("/from-outside", "outside")
        assert one.files.read("/mnt/data/from-outside") == "outside"
        raises(Exception, lambda: Volume.destroy(shared.volume_id))
    finally:
        one.kill()
        other.kill()
    assert shared.read_file("/hello.txt") == "hello"
    assert Volume.destroy(shared.volume_id) is True
    raises(Exception, lambda: Sandbox.create("base", volume_mounts={"/data": shared}))


@case
def files_and_volumes_are_removed():
    volume.remove("/a")
    assert not volume.exists("/a")
    raises(VolumePathNotFoundException, lambda: volume.remove("/a"))
    assert Volume.destroy(volume.volume_id) is True
    assert Volume.destroy(volume.volume_id) is False
    raises(VolumeNotFoundException, lambda: Volume.connect(volume.volume_id))


@case
def a_secret_s_life():
    made = Secret.create(NAME, "hidden-1", metadata={"team": "a"})
    assert (made.name, made.version, made.metadata) == (NAME, 1, {"team": "a"})
    assert Secret.get_info(made.secret_id) == made
    updated = Secret.update(NAME, "hidden-2")
    assert (updated.version, updated.metadata) == (2, {"team": "a"})
    pages, names = Secret.list(limit=1), []
    while pages.has_next:
        names += [one.name for one in pages.next_items()]
    assert NAME in names
    assert Secret.exists(NAME) is True
    assert Secret.destroy(NAME) is True
    assert Secret.destroy(NAME) is False
    assert Secret.exists(NAME) is False
    raises(SecretNotFoundException, lambda: Secret.get_info(NAME))


run()
