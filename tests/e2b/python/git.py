"""`git` of the synchronous SDK, against a bare repository in the sandbox."""

from e2b import GitAuthException, GitUpstreamException, InvalidArgumentException, Sandbox

from _check import case, raises, run, until
from _git_server import PROGRAM, UP, URL

sbx = Sandbox.create(timeout=300)
git, files = sbx.git, sbx.files


@case
def a_repository_from_init_to_pull():
    git.configure_user("Test", "test@example.com")
    git.init("repo", initial_branch="main")
    files.write("repo/a.txt", "a")
    git.add("repo")
    git.commit("repo", "first")
    sbx.commands.run("git init -q --bare remote.git -b main")
    git.remote_add("repo", "origin", "/home/user/remote.git")
    git.push("repo", remote="origin", branch="main", set_upstream=True)
    git.clone("/home/user/remote.git", path="cloned")
    assert files.read("cloned/a.txt") == "a"
    assert git.status("repo").current_branch == "main"
    git.create_branch("repo", "feature")
    git.checkout_branch("repo", "main")
    assert set(git.branches("repo").branches) == {"main", "feature"}
    git.delete_branch("repo", "feature", force=True)


@case
def settings_and_remotes():
    assert git.get_config("user.name") == "Test"
    assert git.get_config("no.such") is None
    git.set_config("user.name", "Local", scope="local", path="repo")
    assert git.get_config("user.name", scope="local", path="repo") == "Local"
    assert git.get_config("user.name") == "Test"
    assert git.remote_get("repo", "origin") == "/home/user/remote.git"
    assert git.remote_get("repo", "no-such") is None
    git.remote_add("repo", "second", "/home/user/elsewhere.git")
    git.remote_add("repo", "second", "/home/user/remote.git", overwrite=True, fetch=True)
    assert git.remote_get("repo", "second") == "/home/user/remote.git"


@case
def pull_brings_what_was_pushed():
    files.write("repo/b.txt", "b")
    git.add("repo", files=["b.txt"])
    git.commit("repo", "second")
    git.push("repo", remote="origin", branch="main")
    git.set_config("pull.rebase", "false")
    git.pull("cloned")
    assert files.read("cloned/b.txt") == "b"
    git.init("lonely", initial_branch="main")
    raises(GitUpstreamException, lambda: git.pull("lonely"))


@case
def reset_and_restore():
    files.write("repo/a.txt", "changed")
    git.restore("repo", paths=["a.txt"])
    assert files.read("repo/a.txt") == "a"
    files.write("repo/a.txt", "staged")
    git.add("repo")
    git.restore("repo", paths=["a.txt"], staged=True)
    assert [file.staged for file in git.status("repo").file_status] == [False]
    git.reset("repo", mode="hard")
    assert files.read("repo/a.txt") == "a"
    git.reset("repo", mode="hard", target="HEAD~1")
    assert files.exists("repo/b.txt") is False
    raises(InvalidArgumentException, lambda: git.reset("repo", mode="no-such"))
    raises(InvalidArgumentException, lambda: git.restore("repo", paths=[]))


@case
def a_private_remote():
    sbx.commands.run("git -C remote.git update-server-info")
    files.write("private.py", PROGRAM)
    sbx.commands.run("python3 private.py", background=True)
    until(lambda: sbx.commands.run(UP).stdout == "up\n", "the Git server")
    ann = {"username": "ann", "password": "s3cret"}
    raises(GitAuthException, lambda: git.clone(URL, path="refused"))
    git.clone(URL, path="once", **ann)
    assert git.remote_get("once", "origin") == URL
    raises(GitAuthException, lambda: git.pull("once"))
    git.pull("once", **ann)
    raises(InvalidArgumentException, lambda: git.dangerously_authenticate("ann", ""))
    git.dangerously_authenticate(**ann, host="127.0.0.1:8000", protocol="http")
    assert git.get_config("credential.helper") == "store"
    git.clone(URL, path="stored")
    assert files.read("stored/a.txt") == "a"
    git.pull("once")


run(sbx.kill)
