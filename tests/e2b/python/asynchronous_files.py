"""Every method of `files` of the asynchronous SDK, and signed URLs."""

import asyncio
import io
import urllib.request

from e2b import AsyncSandbox, FileType, FilesystemEventType, NotFoundException

from _check import case, raises_async, run_async, until_async


def request(url, body=None, headers=None):
    """Status and body of a request to a signed URL."""
    asked = urllib.request.Request(url, data=body, headers=headers or {})
    with urllib.request.urlopen(asked) as response:
        return response.status, response.read()


@case
async def write_and_read_in_every_format(sbx):
    files = sbx.files
    info = await files.write("a/b/text.txt", "Grüße")
    assert info.path == "/home/user/a/b/text.txt"
    assert await files.read("a/b/text.txt") == "Grüße"
    data = bytes(range(256))
    await files.write("bytes.bin", data)
    assert bytes(await files.read("bytes.bin", format="bytes")) == data
    chunks = [chunk async for chunk in await files.read("bytes.bin", format="stream")]
    assert b"".join(chunks) == data
    await files.write("from-io", io.BytesIO(b"from a file object"))
    assert await files.read("from-io") == "from a file object"
    text = "compress me " * 10_000
    await files.write("gzip.txt", text, gzip=True)
    assert await files.read("gzip.txt", gzip=True) == text
    await files.write("empty", "")
    assert await files.read("empty") == ""


@case
async def write_many(sbx):
    entries = [{"path": f"many/{i}", "data": f"content {i}"} for i in range(20)]
    assert len(await sbx.files.write_files(entries)) == 20
    contents = await asyncio.gather(*(sbx.files.read(f"many/{i}") for i in range(20)))
    assert contents == [f"content {i}" for i in range(20)]


@case
async def missing_files(sbx):
    await raises_async(NotFoundException, sbx.files.read("missing"))
    await raises_async(NotFoundException, sbx.files.list("/no/such/dir"))
    await raises_async(NotFoundException, sbx.files.get_info("missing"))
    assert await sbx.files.exists("missing") is False
    assert await sbx.files.exists("/home/user") is True


@case
async def list_and_info(sbx):
    await sbx.files.make_dir("tree/one/two")
    await sbx.files.write("tree/one/two/deep", "xyz", metadata={"Origin": "test"})
    await sbx.commands.run("ln -s one tree/link; chmod 640 tree/one/two/deep")
    names = {entry.name: entry for entry in await sbx.files.list("tree")}
    assert set(names) == {"one", "link"}
    assert names["one"].type == FileType.DIR
    assert names["link"].symlink_target == "/home/user/tree/one"
    deep = await sbx.files.list("tree", depth=3)
    assert any(entry.path == "/home/user/tree/one/two/deep" for entry in deep)
    info = await sbx.files.get_info("tree/one/two/deep")
    assert (info.size, info.mode, info.owner) == (3, 0o640, "user")
    assert info.metadata == {"origin": "test"}


@case
async def make_rename_remove(sbx):
    assert await sbx.files.make_dir("new/dir") is True
    assert await sbx.files.make_dir("new/dir") is False
    await sbx.files.write("new/dir/x", "1")
    assert (await sbx.files.rename("new/dir/x", "elsewhere/y")).path == "/home/user/elsewhere/y"
    await raises_async(NotFoundException, sbx.files.rename("nowhere", "z"))
    await sbx.files.remove("new")
    assert await sbx.files.exists("new") is False


@case
async def watching(sbx):
    await sbx.files.make_dir("watched/sub")
    events = []
    handle = await sbx.files.watch_dir("watched", on_event=events.append, recursive=True)

    async def seen(kind, name):
        await until_async(lambda: any(e.type == kind and e.name == name for e in events), f"{kind} {name}")

    await sbx.files.write("watched/a.txt", "a")
    await seen(FilesystemEventType.CREATE, "a.txt")
    await seen(FilesystemEventType.WRITE, "a.txt")
    await sbx.files.write("watched/sub/deep.txt", "1")
    await seen(FilesystemEventType.CREATE, "sub/deep.txt")
    await sbx.files.remove("watched/a.txt")
    await seen(FilesystemEventType.REMOVE, "a.txt")
    await handle.stop()
    await raises_async(NotFoundException, sbx.files.watch_dir("no-such-dir", on_event=events.append))


@case
async def signed_urls(sbx):
    up = sbx.upload_url("signed.txt", use_signature_expiration=60)
    head = 'Content-Disposition: form-data; name="file"; filename="signed.txt"'
    body = f"--edge\r\n{head}\r\n\r\nthrough a signed URL\r\n--edge--\r\n".encode()
    headers = {"Content-Type": "multipart/form-data; boundary=edge"}
    assert (await asyncio.to_thread(request, up, body, headers))[0] == 200
    down = sbx.download_url("signed.txt", use_signature_expiration=60)
    assert await asyncio.to_thread(request, down) == (200, b"through a signed URL")


async def set_up():
    return await AsyncSandbox.create(timeout=300)


async def clean_up(sbx):
    await sbx.kill()


run_async(set_up, clean_up)
