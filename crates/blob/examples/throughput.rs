//! Speed of archives beside a plain copy of the same bytes to the same disk.
//!
//! `cargo run --release -p woodfrog-blob --example throughput -- DIRECTORY [MIB]` works in a new
//! folder below DIRECTORY and removes it.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use woodfrog_blob::{Archive, Limits, ObjectBlobs};

type Failure = Box<dyn std::error::Error>;

/// Small files of the second tree.
const SMALL: usize = 20_000;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let below = args.next().ok_or("which directory?")?;
    let mib: usize = args.next().map_or(Ok(1024), |text| text.parse())?;
    let dir = tempfile::tempdir_in(below)?;
    let large = dir.path().join("large");
    std::fs::create_dir(&large)?;
    memory_like(&large.join("pages.img"), mib)?;
    let bytes = run(dir.path(), &large, "a file like memory").await?;
    println!("peak memory so far: {} MiB", peak()?);
    let small = dir.path().join("small");
    std::fs::create_dir(&small)?;
    for number in 0..SMALL {
        let text = format!("module {number} ").repeat(number % 300);
        std::fs::write(small.join(format!("file-{number}.js")), text)?;
    }
    run(dir.path(), &small, "small files").await?;
    println!(
        "peak memory: {} MiB, largest tree {} MiB",
        peak()?,
        bytes >> 20
    );
    Ok(())
}

/// A third each: noise, text, zeros.
fn memory_like(path: &Path, mib: usize) -> Result<(), Failure> {
    let mut file = std::fs::File::create(path)?;
    let mut noise = vec![0; 1 << 20];
    for number in 0..mib {
        match number % 3 {
            0 => {
                let mut hasher = blake3::Hasher::new();
                hasher.update(&number.to_le_bytes());
                hasher.finalize_xof().fill(&mut noise);
                file.write_all(&noise)?;
            }
            1 => file.write_all(format!("{number:015} ").repeat(1 << 16).as_bytes())?,
            _ => file.write_all(&vec![0; 1 << 20])?,
        }
    }
    file.sync_all()?;
    Ok(())
}

async fn run(dir: &Path, tree: &Path, name: &str) -> Result<u64, Failure> {
    let bytes = size(tree)?;
    let rate = |start: Instant| {
        let seconds = start.elapsed().as_secs_f64();
        format!(
            "{seconds:6.2} s, {:5.0} MiB/s",
            bytes as f64 / seconds / 1048576.0
        )
    };
    println!("{name}: {} MiB", bytes >> 20);
    let copy = dir.join("copy");
    let start = Instant::now();
    let script = "cp -a --reflink=never --sparse=never \"$0\" \"$1\" && sync -f \"$1\"";
    let status = std::process::Command::new("sh")
        .args(["-c", script])
        .args([tree, &copy])
        .status()?;
    if !status.success() {
        return Err("the copy failed".into());
    }
    println!("  plain copy, synced   {}", rate(start));
    std::fs::remove_dir_all(&copy)?;
    let store = ObjectBlobs::directory(&dir.join("archive"))?;
    let archive = Archive::new(Arc::new(store), Limits::default());
    let start = Instant::now();
    let stored = archive.store(tree, "first").await?;
    let written = stored.bytes_written;
    println!(
        "  store                {}, wrote {} MiB",
        rate(start),
        written >> 20
    );
    let start = Instant::now();
    let again = archive.store(tree, "second").await?;
    let written = again.bytes_written;
    println!(
        "  store, unchanged     {}, wrote {written} bytes",
        rate(start)
    );
    let start = Instant::now();
    archive.verify(stored.id).await?;
    println!("  verify               {}", rate(start));
    let start = Instant::now();
    archive.fetch(stored.id, &copy).await?;
    println!("  fetch, synced        {}", rate(start));
    std::fs::remove_dir_all(&copy)?;
    Ok(bytes)
}

fn size(tree: &Path) -> Result<u64, Failure> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(tree)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

/// The most MiB that this process had.
fn peak() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let text = line.ok_or("VmHWM")?.trim().trim_end_matches(" kB");
    Ok(text.parse::<u64>()? >> 10)
}
