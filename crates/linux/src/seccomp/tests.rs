//! Runs the compiled programs on every number, as the kernel would.

use super::*;

const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
/// Beyond the last call that any kernel has.
const NUMBERS: i64 = 1024;

struct Run {
    answer: u32,
    steps: usize,
}

fn native() -> u32 {
    if cfg!(target_arch = "x86_64") {
        0xc000_003e
    } else {
        0xc000_00b7
    }
}

/// Interprets the few instructions that the compiler uses.
fn run(program: &[libc::sock_filter], arch: u32, number: u32, args: [u64; 6]) -> Run {
    let load = |offset: u32| match offset {
        0 => number,
        4 => arch,
        _ => {
            let arg = args[(offset as usize - 16) / 8];
            if (offset - 16).is_multiple_of(8) {
                arg as u32
            } else {
                (arg >> 32) as u32
            }
        }
    };
    let (mut at, mut value, mut steps) = (0, 0, 0);
    loop {
        let instruction = program[at];
        steps += 1;
        at += 1;
        let holds = match instruction.code {
            0x20 => {
                value = load(instruction.k);
                continue;
            }
            0x06 => {
                return Run {
                    answer: instruction.k,
                    steps,
                };
            }
            0x15 => value == instruction.k,
            0x35 => value >= instruction.k,
            0x45 => value & instruction.k != 0,
            other => panic!("instruction {other:#x}"),
        };
        at += usize::from(if holds {
            instruction.jt
        } else {
            instruction.jf
        });
    }
}

fn answer(policy: SeccompPolicy, number: i64, args: [u64; 6]) -> u32 {
    let filter = Filter::new(policy).unwrap();
    run(&filter.program, native(), number as u32, args).answer
}

fn with(arg: usize, value: u64) -> [u64; 6] {
    let mut args = [0; 6];
    args[arg] = value;
    args
}

fn all() -> SeccompPolicy {
    SeccompPolicy {
        allow_nested_namespaces: true,
        allow_io_uring: true,
        allow_userfaultfd: true,
        allow_landlock: true,
        allow_message_queues: true,
    }
}

#[test]
fn every_number_has_the_verdict_of_the_lists() {
    let mut strict: Vec<i64> = [ALWAYS, IO_URING, LANDLOCK, NAMESPACES].concat();
    strict.extend([libc::SYS_userfaultfd, libc::SYS_mq_open]);
    for number in 0..NUMBERS {
        let expected = match number {
            libc::SYS_clone3 => ENOSYS,
            n if strict.contains(&n) => EPERM,
            _ => ALLOW,
        };
        assert_eq!(
            answer(SeccompPolicy::default(), number, [0; 6]),
            expected,
            "{number}"
        );
        let wide = if ALWAYS.contains(&number) {
            EPERM
        } else {
            ALLOW
        };
        assert_eq!(
            answer(all(), number, [0; 6]),
            wide,
            "{number}, everything switched on"
        );
    }
}

#[test]
fn each_switch_opens_its_own_list_only() {
    let policy = SeccompPolicy {
        allow_io_uring: true,
        ..SeccompPolicy::default()
    };
    assert_eq!(answer(policy, libc::SYS_io_uring_setup, [0; 6]), ALLOW);
    assert_eq!(answer(policy, libc::SYS_userfaultfd, [0; 6]), EPERM);
    assert_eq!(
        answer(policy, libc::SYS_landlock_create_ruleset, [0; 6]),
        EPERM
    );
    let queues = SeccompPolicy {
        allow_message_queues: true,
        ..SeccompPolicy::default()
    };
    assert_eq!(answer(policy, libc::SYS_mq_open, [0; 6]), EPERM);
    assert_eq!(answer(queues, libc::SYS_mq_open, [0; 6]), ALLOW);
    assert_eq!(answer(queues, libc::SYS_io_uring_setup, [0; 6]), EPERM);
}

#[test]
fn arguments_decide_where_they_must() {
    let policy = SeccompPolicy::default();
    let answer = |number, args| answer(policy, number, args);
    assert_eq!(answer(libc::SYS_socket, with(0, 40)), EPERM);
    assert_eq!(answer(libc::SYS_socket, with(0, 2)), ALLOW);
    // The kernel looks at the lower half only.
    assert_eq!(answer(libc::SYS_socket, with(0, 1 << 32 | 40)), EPERM);
    for request in [0x5412, 0x541c] {
        assert_eq!(answer(libc::SYS_ioctl, with(1, request)), EPERM);
    }
    assert_eq!(answer(libc::SYS_ioctl, with(1, 0x5413)), ALLOW);
    for known in PERSONALITIES {
        assert_eq!(
            answer(libc::SYS_personality, with(0, u64::from(*known))),
            ALLOW
        );
    }
    assert_eq!(answer(libc::SYS_personality, with(0, 1)), EPERM);
    for flag in CLONE_FLAGS {
        let flags = u64::from(*flag as u32) | 0x11;
        assert_eq!(answer(libc::SYS_clone, with(0, flags)), EPERM);
        assert_eq!(
            super::tests::answer(all(), libc::SYS_clone, with(0, flags)),
            ALLOW
        );
    }
    assert_eq!(answer(libc::SYS_clone, with(0, 0x11)), ALLOW);
}

#[test]
fn other_numberings_do_not_walk_around_it() {
    let filter = Filter::new(all()).unwrap();
    for number in [X32_BIT, X32_BIT | 165, u32::MAX] {
        assert_eq!(
            run(&filter.program, native(), number, [0; 6]).answer,
            ENOSYS
        );
    }
    let i386 = run(&filter.program, 0x4000_0003, 21, [0; 6]);
    assert_eq!(i386.answer, libc::SECCOMP_RET_KILL_PROCESS);
}

#[test]
fn a_verdict_is_found_in_few_steps() {
    let filter = Filter::new(SeccompPolicy::default()).unwrap();
    for number in 0..NUMBERS {
        let steps = run(&filter.program, native(), number as u32, [0; 6]).steps;
        assert!(steps <= 18, "{number} takes {steps}");
    }
}

#[test]
fn no_subvolumes_are_made_whatever_is_switched_on() {
    for policy in [SeccompPolicy::default(), all()] {
        let ioctl = |request: u64| answer(policy, libc::SYS_ioctl, with(1, request));
        for request in [0x5000_940e, 0x5000_9418, 0x5000_9401, 0x5000_9417] {
            assert_eq!(ioctl(request), EPERM, "{request:#x}");
        }
        // Copies of files that share blocks.
        for request in [0x4004_9409, 0x4020_940d, 0xc018_9436] {
            assert_eq!(ioctl(request), ALLOW, "{request:#x}");
        }
    }
}
