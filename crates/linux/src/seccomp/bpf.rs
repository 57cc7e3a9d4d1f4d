//! Verdicts on system call numbers as a program for the kernel.

use std::io;

use libc::sock_filter;

use super::Verdict;

/// `AUDIT_ARCH_*` of this machine: calls of another one (32-bit entries) have other numbers.
const ARCH: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else {
    None
};

// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const IF_ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;

const REFUSED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const NO_SUCH_CALL: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// A program that finds the verdict on a number by halving. `verdicts` ascend and begin at 0.
pub(super) fn compile(verdicts: &[(u32, Verdict)]) -> io::Result<Vec<sock_filter>> {
    let unsupported = || io::Error::other("no system call filter for this architecture");
    let mut program = vec![
        op(LOAD, 0, 0, ARCHITECTURE),
        op(IF_EQUAL, 1, 0, ARCH.ok_or_else(unsupported)?),
        op(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        op(LOAD, 0, 0, NUMBER),
    ];
    program.extend(search(verdicts)?);
    Ok(program)
}

fn search(verdicts: &[(u32, Verdict)]) -> io::Result<Vec<sock_filter>> {
    match verdicts {
        [] => Err(io::Error::other("a filter without a verdict")),
        [(_, verdict)] => decide(*verdict),
        several => {
            let (low, high) = several.split_at(several.len() / 2);
            let below = search(low)?;
            let mut code = vec![op(IF_AT_LEAST, distance(below.len())?, 0, high[0].0)];
            code.extend(below);
            code.extend(search(high)?);
            Ok(code)
        }
    }
}

fn decide(verdict: Verdict) -> io::Result<Vec<sock_filter>> {
    Ok(match verdict {
        Verdict::Allow => vec![answer(libc::SECCOMP_RET_ALLOW)],
        Verdict::Refuse => vec![answer(REFUSED)],
        Verdict::Unknown => vec![answer(NO_SUCH_CALL)],
        Verdict::RefuseArgument { arg, values } => {
            among(arg, values, libc::SECCOMP_RET_ALLOW, REFUSED)?
        }
        Verdict::RequireArgument { arg, values } => {
            among(arg, values, REFUSED, libc::SECCOMP_RET_ALLOW)?
        }
        Verdict::RefuseBits { arg, bits } => vec![
            low_half(arg),
            op(IF_ANY_BIT, 1, 0, bits),
            answer(libc::SECCOMP_RET_ALLOW),
            answer(REFUSED),
        ],
    })
}

/// Answers by whether an argument is one of the values.
fn among(arg: u32, values: &[u32], no: u32, yes: u32) -> io::Result<Vec<sock_filter>> {
    let mut code = vec![low_half(arg)];
    for (index, value) in values.iter().enumerate() {
        // Over the comparisons that follow, and over the answer for "none of them".
        let to_yes = distance(values.len() - index)?;
        code.push(op(IF_EQUAL, to_yes, 0, *value));
    }
    code.extend([answer(no), answer(yes)]);
    Ok(code)
}

/// Loads the half of an argument that the kernel looks at (both machines are little-endian).
const fn low_half(arg: u32) -> sock_filter {
    op(LOAD, 0, 0, ARGUMENTS + 8 * arg)
}

const fn answer(value: u32) -> sock_filter {
    op(RETURN, 0, 0, value)
}

fn distance(instructions: usize) -> io::Result<u8> {
    u8::try_from(instructions).map_err(|_| io::Error::other("a filter that is too long"))
}

const fn op(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}
