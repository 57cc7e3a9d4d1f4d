"""Every method of `files` of the synchronous SDK, and signed URLs."""

import io
import urllib.error
import urllib.request

from e2b import FileType, FilesystemEventType, NotFoundException, Sandbox

from _check import case, raises, run, until

sbx = Sandbox.create(timeout=300)
files = sbx.files


@case
def write_and_read_in_every_format():
    info = files.write("a/b/text.txt", "Grüße")
    assert info.path == "/home/user/a/b/text.txt"
    assert files.read("a/b/text.txt") == "Grüße"
    data = bytes(range(256))
    files.write("bytes.bin", data)
    assert bytes(files.read("bytes.bin", format="bytes")) == data
    assert b"".join(files.read("bytes.bin", format="stream")) == data
    files.write("from-io", io.BytesIO(b"from a file object"))
    assert files.read("from-io") == "from a file object"
    files.write("empty", "")
    assert files.read("empty") == ""
    assert sbx.commands.run("stat -c '%U %s' empty").stdout == "user 0\n"


@case
def write_many():
    written = files.write_files([{"path": f"many/{i}", "data": f"content {i}"} for i in range(20)])
    assert len(written) == 20
    assert files.read("many/19") == "content 19"


@case
def gzip_both_ways():
    text = "compress me " * 10_000
    files.write("gzip.txt", text, gzip=True)
    assert files.read("gzip.txt", gzip=True) == text


@case
def missing_files():
    raises(NotFoundException, lambda: files.read("missing"))
    raises(NotFoundException, lambda: files.list("/no/such/dir"))
    raises(NotFoundException, lambda: files.get_info("missing"))
    assert files.exists("missing") is False
    assert files.exists("empty") is True


@case
def list_and_info():
    files.make_dir("tree/one/two")
    files.write("tree/one/two/deep", "xyz")
    sbx.commands.run("ln -s one tree/link; chmod 640 tree/one/two/deep")
    names = {entry.name: entry for entry in files.list("tree")}
    assert set(names) == {"one", "link"}
    assert names["one"].type == FileType.DIR
    assert names["link"].symlink_target == "/home/user/tree/one"
    assert any(e.path == "/home/user/tree/one/two/deep" for e in files.list("tree", depth=3))
    info = files.get_info("tree/one/two/deep")
    assert (info.size, info.mode, info.owner) == (3, 0o640, "user")
    assert info.permissions == "-rw-r-----"


@case
def make_rename_remove():
    assert files.make_dir("new/dir") is True
    assert files.make_dir("new/dir") is False
    files.write("new/dir/x", "1")
    assert files.rename("new/dir/x", "elsewhere/y").path == "/home/user/elsewhere/y"
    raises(NotFoundException, lambda: files.rename("nowhere", "z"))
    files.remove("new")
    assert files.exists("new") is False


@case
def watching():
    files.make_dir("watched/sub")
    handle = files.watch_dir("watched", recursive=True)
    events = []

    def seen(kind, name):
        events.extend(handle.get_new_events())
        return any(e.type == kind and e.name == name for e in events)

    files.write("watched/new.txt", "1")
    until(lambda: seen(FilesystemEventType.WRITE, "new.txt"), "write")
    files.write("watched/sub/deep.txt", "1")
    until(lambda: seen(FilesystemEventType.CREATE, "sub/deep.txt"), "create below")
    files.remove("watched/new.txt")
    until(lambda: seen(FilesystemEventType.REMOVE, "new.txt"), "remove")
    handle.stop()
    raises(NotFoundException, lambda: files.watch_dir("no-such-dir"))


@case
def metadata():
    files.write("tagged", "x", metadata={"Origin": "test"})
    assert files.get_info("tagged").metadata == {"origin": "test"}


@case
def proc_files_are_readable():
    assert len(files.read("/proc/sys/kernel/random/boot_id")) == 37


@case
def signed_download():
    files.write("signed.txt", "through a signed URL")
    url = sbx.download_url("signed.txt", use_signature_expiration=60)
    with urllib.request.urlopen(url) as response:
        assert response.read() == b"through a signed URL"


@case
def signed_upload():
    url = sbx.upload_url("uploaded.txt", use_signature_expiration=60)
    head = 'Content-Disposition: form-data; name="file"; filename="uploaded.txt"'
    body = f"--edge\r\n{head}\r\n\r\nthrough a signed URL\r\n--edge--\r\n".encode()
    headers = {"Content-Type": "multipart/form-data; boundary=edge"}
    with urllib.request.urlopen(urllib.request.Request(url, data=body, headers=headers)) as response:
        assert response.status == 200
    assert files.read("uploaded.txt") == "through a signed URL"
    # It is good for writing alone.
    refused = raises(urllib.error.HTTPError, lambda: urllib.request.urlopen(url))
    assert refused.code in (400, 401, 404), refused.code


run(sbx.kill)
