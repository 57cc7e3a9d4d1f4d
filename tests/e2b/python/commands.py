"""Every method of `commands` and `pty` of the synchronous SDK."""

import threading

from e2b import (
    CommandExitException,
    InvalidArgumentException,
    NotFoundException,
    PtySize,
    Sandbox,
    TimeoutException,
)

from _check import case, raises, run, until

sbx = Sandbox.create(timeout=300)


@case
def run_returns_output():
    out, err = [], []
    result = sbx.commands.run(
        "echo one; echo two >&2; echo three", on_stdout=out.append, on_stderr=err.append
    )
    assert (result.exit_code, result.stdout, result.stderr) == (0, "one\nthree\n", "two\n")
    assert "".join(out) == "one\nthree\n" and "".join(err) == "two\n"


@case
def a_failing_command_raises():
    error = raises(CommandExitException, lambda: sbx.commands.run("echo partial; exit 3"))
    assert (error.exit_code, error.stdout) == (3, "partial\n")


@case
def envs_cwd_and_user():
    result = sbx.commands.run('echo "$A" $(pwd) $(whoami)', envs={"A": "x y"}, cwd="/tmp", user="root")
    assert result.stdout == "x y /tmp root\n"
    raises(InvalidArgumentException, lambda: sbx.commands.run("true", cwd="/no/such/dir"))


@case
def a_timeout_kills():
    raises(TimeoutException, lambda: sbx.commands.run("sleep 301", timeout=0.5))
    until(lambda: sbx.commands.run('pgrep -fx "sleep 301" || true').stdout == "", "it to be gone")


@case
def background_list_connect_stdin_kill():
    handle = sbx.commands.run(
        'while read line; do echo "got $line"; done', background=True, stdin=True, timeout=0
    )
    assert any(p.pid == handle.pid for p in sbx.commands.list())
    texts = []
    second = sbx.commands.connect(handle.pid, timeout=0)

    def read():
        try:
            second.wait(on_stdout=texts.append)
        except Exception:
            pass

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    sbx.commands.send_stdin(handle.pid, "first\n")
    until(lambda: "got first" in "".join(texts), "the echo")
    assert handle.kill() is True
    thread.join(5)
    until(lambda: not any(p.pid == handle.pid for p in sbx.commands.list()), "it to leave the list")
    assert sbx.commands.kill(handle.pid) is False
    raises(NotFoundException, lambda: sbx.commands.connect(999_999).wait())


@case
def closing_stdin_ends_a_reader():
    handle = sbx.commands.run("cat", background=True, stdin=True)
    if hasattr(sbx.commands, "stream_input"):
        sbx.commands.stream_input(handle.pid, ["to ", b"the ", "end"])
    else:
        sbx.commands.send_stdin(handle.pid, "to the end")
    sbx.commands.close_stdin(handle.pid)
    assert handle.wait().stdout == "to the end"


@case
def a_handle_writes_to_its_command_and_ends_the_input():
    handle = sbx.commands.run("cat", background=True, stdin=True)
    handle.send_stdin("one ")
    handle.send_stdin(b"two ")
    second = sbx.commands.connect(handle.pid)
    second.send_stdin("three")
    second.close_stdin()
    assert handle.wait().stdout == "one two three"
    assert second.wait().exit_code == 0
    deaf = sbx.commands.run("sleep 600", background=True)
    raises(Exception, lambda: deaf.send_stdin("nobody reads"))
    assert deaf.kill() is True


@case
def a_disconnected_command_goes_on():
    script = "until [ -e /tmp/go-on ]; do sleep 0.05; done; echo done > /tmp/went-on"
    handle = sbx.commands.run(script, background=True)
    handle.disconnect()
    assert any(p.pid == handle.pid for p in sbx.commands.list())
    sbx.files.write("/tmp/go-on", "")
    until(lambda: sbx.files.exists("/tmp/went-on"), "the file")


@case
def large_output_is_complete():
    code = "import sys; [sys.stdout.write('zeile %d äöü€\\n' % i) for i in range(100000)]"
    result = sbx.commands.run(f'python3 -c "{code}"')
    assert result.stdout == "".join(f"zeile {i} äöü€\n" for i in range(100000))


@case
def pty_input_size_kill():
    screen = bytearray()
    pty = sbx.pty.create(PtySize(rows=24, cols=80), timeout=60)

    def read():
        try:
            pty.wait(on_pty=screen.extend)
        except Exception:
            pass

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    sbx.pty.send_stdin(pty.pid, b"echo $((40+2)); stty size\n")
    until(lambda: b"42" in screen and b"24 80" in screen, "the terminal")
    sbx.pty.resize(pty.pid, PtySize(rows=30, cols=100))
    sbx.pty.send_stdin(pty.pid, b"stty size\n")
    until(lambda: b"30 100" in screen, "the new size")
    assert sbx.pty.kill(pty.pid) is True
    thread.join(5)


@case
def pty_connect_continues_a_terminal():
    first = sbx.pty.create(PtySize(rows=24, cols=80), timeout=0)
    first.disconnect()
    screen = bytearray()
    pty = sbx.pty.connect(first.pid, timeout=0)

    def read():
        try:
            pty.wait(on_pty=screen.extend)
        except Exception:
            pass

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    if hasattr(sbx.pty, "stream_input"):
        sbx.pty.stream_input(pty.pid, ["echo still-$((1+1))", b"-here\n"])
    else:
        sbx.pty.send_stdin(pty.pid, b"echo still-$((1+1))-here\n")
    until(lambda: b"still-2-here" in screen, "the output")
    assert pty.kill() is True
    until(lambda: not any(p.pid == pty.pid for p in sbx.commands.list()), "it to leave the list")
    assert sbx.pty.kill(pty.pid) is False


run(sbx.kill)
