//! Images from layouts on disk and from a registry on loopback.
#![expect(clippy::unwrap_used, reason = "a test")]

mod common;

use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use common::{TestImage, tar};
use woodfrog_images::{
    Image, ImportError, LayerStore, Limits, Platform, Progress, PullOptions, import_oci_layout,
    import_rootfs_tar, pull_registry, read_file,
};

fn amd64() -> Platform {
    Platform {
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
    }
}

async fn store(dir: &Path) -> LayerStore {
    LayerStore::open(dir.join("layers")).await.unwrap()
}

fn check(store: &LayerStore, image: &Image, source: &TestImage) {
    assert_eq!(image.layers, source.diff_ids);
    assert_eq!(image.config.env("A"), Some("b=c"));
    assert_eq!(image.config.user.as_deref(), Some("1000:1000"));
    assert_eq!(image.config.workdir.as_deref(), Some("/srv"));
    assert_eq!(
        (image.config.entrypoint.len(), image.config.cmd.len()),
        (1, 2)
    );
    let layers = store.paths(&image.layers).unwrap();
    assert_eq!(read_file(&layers, "/etc/motd", 100).unwrap(), b"hello");
    assert!(read_file(&layers, "/etc/passwd", 100).is_ok());
    assert!(read_file(&layers, "/gone", 100).is_err());
}

fn write_layout(dir: &Path, image: &TestImage) {
    std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    std::fs::write(dir.join("index.json"), &image.index).unwrap();
    for (digest, bytes) in &image.blobs {
        std::fs::write(dir.join("blobs").join(digest.replace(':', "/")), bytes).unwrap();
    }
}

async fn import(store: &LayerStore, path: &Path, platform: Platform) -> Result<Image, ImportError> {
    import_oci_layout(store, path, platform, Limits::default(), Progress::none()).await
}

#[tokio::test]
async fn layouts_are_imported_from_directories_and_archives() {
    let tmp = tempfile::tempdir().unwrap();
    let (layout, source) = (tmp.path().join("layout"), TestImage::new());
    write_layout(&layout, &source);
    let first = store(&tmp.path().join("1")).await;
    check(
        &first,
        &import(&first, &layout, amd64()).await.unwrap(),
        &source,
    );

    let archive = tmp.path().join("image.tar");
    let mut builder = tar::Builder::new(std::fs::File::create(&archive).unwrap());
    builder.append_dir_all(".", &layout).unwrap();
    builder.finish().unwrap();
    let second = store(&tmp.path().join("2")).await;
    check(
        &second,
        &import(&second, &archive, amd64()).await.unwrap(),
        &source,
    );

    let arm = Platform {
        os: "linux".to_owned(),
        architecture: "arm64".to_owned(),
    };
    assert!(matches!(
        import(&second, &layout, arm).await,
        Err(ImportError::Platform { .. })
    ));
}

#[tokio::test]
async fn tampered_layouts_leave_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let source = TestImage::new();
    let store = store(tmp.path()).await;
    for digest in [&source.layers[0], &source.manifest] {
        let layout = tmp.path().join("layout");
        write_layout(&layout, &source);
        let blob = layout.join("blobs").join(digest.replace(':', "/"));
        let mut bytes = std::fs::read(&blob).unwrap();
        bytes[10] ^= 1;
        std::fs::write(&blob, bytes).unwrap();
        let refused = import(&store, &layout, amd64()).await;
        assert!(
            matches!(refused, Err(ImportError::DigestMismatch { .. })),
            "{refused:?}"
        );
        assert!(store.list().await.unwrap().is_empty());
    }
    // A blob that is a link out of the layout is not followed.
    let layout = tmp.path().join("linked");
    write_layout(&layout, &source);
    let blob = layout
        .join("blobs")
        .join(source.layers[0].replace(':', "/"));
    let outside = tmp.path().join("outside");
    std::fs::rename(&blob, &outside).unwrap();
    std::os::unix::fs::symlink(&outside, &blob).unwrap();
    assert!(matches!(
        import(&store, &layout, amd64()).await,
        Err(ImportError::Read { .. })
    ));
    let nothing = tmp.path().join("empty");
    std::fs::create_dir(&nothing).unwrap();
    assert!(matches!(
        import(&store, &nothing, amd64()).await,
        Err(ImportError::NotAnImage(_))
    ));
}

#[tokio::test]
async fn docker_save_archives_and_plain_root_filesystems_work() {
    let tmp = tempfile::tempdir().unwrap();
    let store = store(tmp.path()).await;
    let layer = tar(&[("f", "x")]);
    let diff_id = woodfrog_images::Digest::of(&layer);
    let saved = tmp.path().join("saved");
    std::fs::create_dir(&saved).unwrap();
    std::fs::write(saved.join("layer.tar"), &layer).unwrap();
    let config = format!(
        r#"{{"rootfs":{{"diff_ids":["{}"]}},"config":{{"Cmd":["sh"]}}}}"#,
        diff_id.to_oci()
    );
    std::fs::write(saved.join("c.json"), config).unwrap();
    std::fs::write(
        saved.join("manifest.json"),
        r#"[{"Config":"c.json","Layers":["layer.tar"]}]"#,
    )
    .unwrap();
    let image = import(&store, &saved, amd64()).await.unwrap();
    assert_eq!(
        (image.layers, image.config.cmd),
        (vec![diff_id], vec!["sh".to_owned()])
    );

    let archive = std::io::Cursor::new(tar(&[
        ("etc/", ""),
        ("etc/x", "y"),
        (".wh.name", "literal"),
    ]));
    let image = import_rootfs_tar(&store, archive, Limits::default(), Progress::none())
        .await
        .unwrap();
    let layers = store.paths(&image.layers).unwrap();
    assert_eq!(read_file(&layers, ".wh.name", 10).unwrap(), b"literal");
}

#[derive(Clone)]
struct Registry {
    image: Arc<TestImage>,
    blobs_served: Arc<Mutex<Vec<String>>>,
    tamper: bool,
}

async fn serve(State(registry): State<Registry>, uri: Uri) -> Response {
    let path = uri.path();
    if path == "/v2/" {
        return StatusCode::OK.into_response();
    }
    let Some(rest) = path.strip_prefix("/v2/team/app/") else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let image = &registry.image;
    match rest.split_once('/') {
        Some(("manifests", "v1")) => (
            [("content-type", "application/vnd.oci.image.index.v1+json")],
            image.index.clone(),
        )
            .into_response(),
        Some(("manifests", digest)) => match image.blobs.get(digest) {
            Some(bytes) => (
                [("content-type", "application/vnd.oci.image.manifest.v1+json")],
                bytes.clone(),
            )
                .into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        Some(("blobs", digest)) => match image.blobs.get(digest) {
            Some(bytes) => {
                registry
                    .blobs_served
                    .lock()
                    .unwrap()
                    .push(digest.to_owned());
                let mut bytes = bytes.clone();
                if registry.tamper && image.layers.iter().any(|layer| layer == digest) {
                    bytes[10] ^= 1;
                }
                bytes.into_response()
            }
            None => StatusCode::NOT_FOUND.into_response(),
        },
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn start(tamper: bool) -> (String, Registry) {
    let registry = Registry {
        image: Arc::new(TestImage::new()),
        blobs_served: Arc::default(),
        tamper,
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let app = axum::Router::new()
        .fallback(serve)
        .with_state(registry.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (host, registry)
}

#[tokio::test]
async fn registries_are_pulled_from_and_known_layers_are_not_fetched_again() {
    let tmp = tempfile::tempdir().unwrap();
    let store = store(tmp.path()).await;
    let (host, registry) = start(false).await;
    let options = PullOptions {
        platform: amd64(),
        insecure_hosts: vec![host.clone()],
        ..PullOptions::default()
    };
    let reference = format!("{host}/team/app:v1");
    for _ in 0..2 {
        let image = pull_registry(&store, &reference, options.clone(), Progress::none())
            .await
            .unwrap();
        check(&store, &image, &registry.image);
    }
    let served = registry.blobs_served.lock().unwrap().clone();
    let layers = served
        .iter()
        .filter(|digest| registry.image.layers.contains(digest))
        .count();
    assert_eq!(layers, 2, "{served:?}");

    let missing = pull_registry(
        &store,
        &format!("{host}/team/app:v2"),
        options.clone(),
        Progress::none(),
    )
    .await;
    assert!(matches!(missing, Err(ImportError::Registry { .. })));
    let arm = Platform {
        os: "linux".to_owned(),
        architecture: "arm64".to_owned(),
    };
    let other = PullOptions {
        platform: arm,
        ..options.clone()
    };
    assert!(
        pull_registry(&store, &reference, other, Progress::none())
            .await
            .is_err()
    );
    // Plain HTTP must be asked for.
    let secure = PullOptions {
        insecure_hosts: Vec::new(),
        ..options.clone()
    };
    assert!(
        pull_registry(&store, &reference, secure, Progress::none())
            .await
            .is_err()
    );
    let bad = pull_registry(&store, "NOT A NAME", options, Progress::none()).await;
    assert!(matches!(bad, Err(ImportError::Reference { .. })));
}

#[tokio::test]
async fn tampered_registry_layers_are_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let store = store(tmp.path()).await;
    let (host, _) = start(true).await;
    let options = PullOptions {
        platform: amd64(),
        insecure_hosts: vec![host.clone()],
        ..PullOptions::default()
    };
    let refused = pull_registry(
        &store,
        &format!("{host}/team/app:v1"),
        options,
        Progress::none(),
    )
    .await;
    assert!(
        matches!(refused, Err(ImportError::Registry { .. })),
        "{refused:?}"
    );
    assert!(store.list().await.unwrap().is_empty());
}
