"""`git` of the synchronous SDK, against a bare repository in the sandbox."""

from e2b import Sandbox

from _check import case, run

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


run(sbx.kill)
