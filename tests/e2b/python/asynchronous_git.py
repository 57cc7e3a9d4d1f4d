"""`git` of the asynchronous SDK, against a bare repository in the sandbox."""

from e2b import AsyncSandbox, GitAuthException, GitUpstreamException, InvalidArgumentException

from _check import case, raises_async, run_async, until_async
from _git_server import PROGRAM, UP, URL


@case
async def a_repository_from_init_to_pull(sbx):
    git, files = sbx.git, sbx.files
    await git.configure_user("Test", "test@example.com")
    assert await git.get_config("user.name") == "Test"
    await git.init("repo", initial_branch="main")
    await files.write("repo/a.txt", "a")
    assert len((await git.status("repo")).file_status) == 1
    await git.add("repo")
    await git.commit("repo", "first")
    await git.init("remote.git", bare=True, initial_branch="main")
    await git.remote_add("repo", "origin", "/home/user/remote.git")
    assert await git.remote_get("repo", "origin") == "/home/user/remote.git"
    assert await git.remote_get("repo", "no-such") is None
    await git.push("repo", remote="origin", branch="main", set_upstream=True)
    await git.clone("/home/user/remote.git", path="cloned")
    await files.write("repo/b.txt", "b")
    await git.add("repo", files=["b.txt"])
    await git.commit("repo", "second", author_name="Other", author_email="other@example.com")
    await git.push("repo", remote="origin", branch="main")
    await git.set_config("pull.rebase", "false")
    await git.pull("cloned")
    assert await files.read("cloned/b.txt") == "b"
    await git.init("lonely", initial_branch="main")
    await raises_async(GitUpstreamException, git.pull("lonely"))


@case
async def branches(sbx):
    await sbx.git.create_branch("repo", "feature")
    assert (await sbx.git.branches("repo")).current_branch == "feature"
    await sbx.git.checkout_branch("repo", "main")
    assert set((await sbx.git.branches("repo")).branches) == {"main", "feature"}
    await sbx.git.delete_branch("repo", "feature", force=True)
    assert (await sbx.git.branches("repo")).branches == ["main"]


@case
async def reset_and_restore(sbx):
    git, files = sbx.git, sbx.files
    await files.write("repo/a.txt", "changed")
    await git.restore("repo", paths=["a.txt"])
    assert await files.read("repo/a.txt") == "a"
    await files.write("repo/a.txt", "staged")
    await git.add("repo")
    await git.reset("repo", mode="hard")
    assert await files.read("repo/a.txt") == "a"
    await raises_async(InvalidArgumentException, git.reset("repo", mode="no-such"))
    await raises_async(InvalidArgumentException, git.restore("repo", paths=[]))


@case
async def a_private_remote(sbx):
    git = sbx.git
    await sbx.commands.run("git -C remote.git update-server-info")
    await sbx.files.write("private.py", PROGRAM)
    await sbx.commands.run("python3 private.py", background=True)

    async def is_up():
        return (await sbx.commands.run(UP)).stdout == "up\n"

    await until_async(is_up, "the Git server")
    ann = {"username": "ann", "password": "s3cret"}
    await raises_async(GitAuthException, git.clone(URL, path="refused"))
    await git.clone(URL, path="once", **ann)
    assert await git.remote_get("once", "origin") == URL
    await raises_async(GitAuthException, git.pull("once"))
    await git.pull("once", **ann)
    await git.dangerously_authenticate(**ann, host="127.0.0.1:8000", protocol="http")
    assert await git.get_config("credential.helper") == "store"
    await git.clone(URL, path="stored")
    assert await sbx.files.read("stored/a.txt") == "a"


async def set_up():
    return await AsyncSandbox.create(timeout=300)


async def clean_up(sbx):
    await sbx.kill()


run_async(set_up, clean_up)
