//! Builds the base template for real (once per machine: the archive is cached) and runs it.
#![expect(clippy::unwrap_used, reason = "a test")]

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
