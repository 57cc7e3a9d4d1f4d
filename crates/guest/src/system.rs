//! What the sandbox uses, and where it listens.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Instant, SystemTime},
};

use woodfrog_guest_proto::{Metrics, Port, limits};

use crate::error::{OpResult, system};

/// CPU time used at a moment.
#[derive(Clone, Copy)]
pub(crate) struct CpuSample {
    at: Instant,
    used_ns: u64,
}

/// Nanoseconds of one tick of `/proc/stat`; the unit is 1/100 s on every Linux we run on.
const TICK_NS: u64 = 10_000_000;

pub(crate) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}

/// Reads everything now; percentages are since `before`.
pub(crate) fn metrics(before: Option<CpuSample>) -> OpResult<(Metrics, CpuSample)> {
    let cpu_count = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    let sample = CpuSample {
        at: Instant::now(),
        used_ns: cpu_used_ns(),
    };
    let cpu_used_pct = before.map_or(0.0, |before| {
        let wall = sample.at.duration_since(before.at).as_nanos() as f64 * f64::from(cpu_count);
        let used = sample.used_ns.saturating_sub(before.used_ns) as f64;
        if wall > 0.0 {
            (used * 100.0 / wall).clamp(0.0, 100.0)
        } else {
            0.0
        }
    });
    let (mem_total, mem_used, mem_cache) = memory();
    let disk = rustix::fs::statvfs("/").map_err(|e| system("/", e))?;
    let metrics = Metrics {
        ts_ms: unix_ms(),
        cpu_count,
        cpu_used_ns: sample.used_ns,
        cpu_used_pct,
        mem_total,
        mem_used,
        mem_cache,
        disk_total: disk.f_blocks.saturating_mul(disk.f_frsize),
        disk_used: disk
            .f_blocks
            .saturating_sub(disk.f_bfree)
            .saturating_mul(disk.f_frsize),
    };
    Ok((metrics, sample))
}

/// The control group's own account where it can be seen, else the machine's.
fn cpu_used_ns() -> u64 {
    let group = || field(&read("/sys/fs/cgroup/cpu.stat"), "usage_usec").map(|us| us * 1000);
    let machine = || {
        let stat = read("/proc/stat");
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = line
            .split_whitespace()
            .filter_map(|f| f.parse().ok())
            .collect();
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        // Guest time (the last two) is contained in user time.
        let all: u64 = ticks.iter().take(8).sum();
        Some(all.saturating_sub(idle).saturating_mul(TICK_NS))
    };
    group().or_else(machine).unwrap_or(0)
}

/// Total, used without cache, cache.
fn memory() -> (u64, u64, u64) {
    let info = read("/proc/meminfo");
    let kib = |name| field(&info, name).unwrap_or(0).saturating_mul(1024);
    let total = kib("MemTotal:");
    if let Ok(current) = read("/sys/fs/cgroup/memory.current").trim().parse::<u64>() {
        let limit = read("/sys/fs/cgroup/memory.max")
            .trim()
            .parse()
            .unwrap_or(total);
        let cache = field(&read("/sys/fs/cgroup/memory.stat"), "file").unwrap_or(0);
        return (limit.min(total), current.saturating_sub(cache), cache);
    }
    let cache = kib("Cached:") + kib("Buffers:") + kib("SReclaimable:");
    (total, total.saturating_sub(kib("MemFree:") + cache), cache)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == name).then(|| words.next()?.parse().ok())?
    })
}

/// Listening TCP sockets of the sandbox.
pub(crate) fn ports() -> Vec<Port> {
    let mut ports: Vec<Port> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .flat_map(|path| {
            read(path)
                .lines()
                .skip(1)
                .filter_map(listening)
                .collect::<Vec<_>>()
        })
        .take(limits::MAX_PORTS)
        .collect();
    ports.sort_by_key(|p| (p.port, p.address));
    ports.dedup();
    ports
}

/// One line: `sl local remote state queues timers retransmits uid …`.
fn listening(line: &str) -> Option<Port> {
    let mut fields = line.split_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    if fields.nth(1)? != "0A" {
        return None;
    }
    let uid = fields.nth(3)?.parse().ok()?;
    Some(Port {
        port: u16::from_str_radix(port, 16).ok()?,
        address: address_of(address)?,
        uid,
    })
}

/// Addresses are printed as 32-bit words in the machine's byte order.
fn address_of(hex: &str) -> Option<IpAddr> {
    let word = |i: usize| u32::from_str_radix(hex.get(i * 8..i * 8 + 8)?, 16).ok();
    match hex.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?.to_ne_bytes()))),
        32 => {
            let mut bytes = [0; 16];
            for (i, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(i)?.to_ne_bytes());
            }
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_listening_sockets_only() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1";
        let port = listening(line).unwrap();
        assert_eq!(
            (port.port, port.uid, port.address),
            (8080, 1000, "127.0.0.1".parse().unwrap())
        );
        assert_eq!(listening(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(listening("garbage"), None);
        let v6 = address_of("00000000000000000000000001000000").unwrap();
        assert_eq!(v6, "::1".parse::<IpAddr>().unwrap());
    }
}
