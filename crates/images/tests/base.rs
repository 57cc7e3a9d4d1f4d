//! Builds the base template for real (once per machine: the archive is cached) and runs it.

use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use woodfrog_images::{BaseBuilder, LayerStore, Progress};

#[tokio::test(flavor = "multi_thread")]
async fn base_template_is_built_once_and_works() {
    let dir = tempfile::tempdir().unwrap();
    let store = LayerStore::open(dir.path().join("layers")).await.unwrap();
    let builder = BaseBuilder::default();
    let percents: Arc<Mutex<Vec<u8>>> = Arc::default();
    let sink = percents.clone();
    let progress = Progress::new(move |event| sink.lock().unwrap().extend(event.percent));
    let started = Instant::now();
    // Two at once: the second waits for the first and finds its result.
    let (one, two) = tokio::join!(
        builder.ensure(&store, progress),
        builder.ensure(&store, Progress::none())
    );
    let took = started.elapsed();
    let image = one.unwrap();
    assert_eq!(image, two.unwrap());
    assert!(percents.lock().unwrap().is_sorted());
    assert_eq!(percents.lock().unwrap().last(), Some(&100));

    let again = Instant::now();
    assert_eq!(
        builder.ensure(&store, Progress::none()).await.unwrap(),
        image
    );
    eprintln!("base, known to the store: {:.1?}", again.elapsed());

    let layer = store.list().await.unwrap().remove(0);
    eprintln!(
        "base: {took:.1?}, {} MB in {} entries",
        layer.bytes / 1_000_000,
        layer.entries
    );
    assert_eq!(layer.digest, image.layers[0]);
    assert!(layer.bytes < 400_000_000, "{}", layer.bytes);

    let root = store.path(&image.layers[0]).unwrap();
    assert!(!root.join("dev/null").exists());
    let home = std::fs::metadata(root.join("home/user")).unwrap();
    assert_eq!((home.uid(), home.gid()), (1000, 1000));
    assert_ne!(
        std::fs::metadata(root.join("usr/bin/sudo")).unwrap().mode() & 0o4000,
        0
    );
    let script = "set -e; for tool in bash python python3 pip git curl sudo ps ip; do command -v $tool; done; \
        python -c 'import ssl, venv, sqlite3; print(ssl.create_default_context().cert_store_stats())'; \
        id user; test \"$(locale charmap)\" = UTF-8; visudo -c; \
        sudo -l -U user | grep -q NOPASSWD; ! grep -r '@' /etc/apt/sources.list /etc/apt/sources.list.d";
    // Layers are immutable: the trial runs read-only.
    let output = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c"])
        .arg("mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && exec chroot \"$1\" env -i \
              PATH=/usr/sbin:/usr/bin LANG=C.UTF-8 bash -c \"$2\"")
        .arg("sh")
        .arg(&root)
        .arg(script)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Giving up in the middle of a build leaves no process, mount or file behind.
#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_build_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let builder = BaseBuilder::new(woodfrog_images::BaseOptions {
        cache_dir: cache.clone(),
    });
    let (started, mut installing) = tokio::sync::mpsc::unbounded_channel();
    let progress = Progress::new(move |event| {
        if event.phase == woodfrog_images::Phase::Installing {
            let _ = started.send(());
        }
    });
    let build = tokio::spawn(async move { builder.archive(progress).await });
    let seen = tokio::time::timeout(std::time::Duration::from_secs(300), installing.recv()).await;
    assert_eq!(
        seen.unwrap(),
        Some(()),
        "the build ended before it could be abandoned"
    );
    build.abort();
    let deadline = Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let files: Vec<_> = std::fs::read_dir(&cache)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(cache.to_str().unwrap()));
        let only_lock = files
            .iter()
            .all(|name| name.to_str().unwrap().ends_with(".lock"));
        if only_lock && !process_mentions(&cache) {
            break;
        }
        assert!(Instant::now() < deadline, "{files:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

fn process_mentions(path: &std::path::Path) -> bool {
    let path = path.to_str().unwrap();
    let commands = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok());
    commands
        .into_iter()
        .any(|line| String::from_utf8_lossy(&line).contains(path))
}
