//! The layer store and the layers that builds add to it.
#![expect(clippy::unwrap_used, reason = "a test")]

mod common;

use std::io::Cursor;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use common::{gzip, tar};
use woodfrog_images::{
    CopyError, CopySpec, Digest, LayerOrigin, LayerStore, Limits, Progress, StoreError, Whiteouts,
    ensure_e2b_basics, prepare_copy_layer, read_file,
};

async fn store(dir: &Path) -> LayerStore {
    LayerStore::open(dir.join("layers")).await.unwrap()
}

async fn unpack(store: &LayerStore, files: &[(&str, &str)]) -> Digest {
    let archive = Cursor::new(tar(files));
    let layer = store
        .unpack_tar(archive, Limits::default(), Whiteouts::Oci, Progress::none())
        .await;
    layer.unwrap().digest
}

#[tokio::test]
async fn layers_come_and_go_whole() {
    let tmp = tempfile::tempdir().unwrap();
    let store = store(tmp.path()).await;
    let digest = unpack(&store, &[("a", "12"), ("d/", ""), ("d/b", "345")]).await;
    assert_eq!(
        digest,
        unpack(&store, &[("a", "12"), ("d/", ""), ("d/b", "345")]).await
    );
    let layers = store.list().await.unwrap();
    assert_eq!(
        (layers.len(), layers[0].bytes, layers[0].entries),
        (1, 5, 3)
    );
    assert_eq!(store.origin(&digest), Some(LayerOrigin::Archive));
    // The size is known again after its note is lost.
    std::fs::remove_file(tmp.path().join("layers/.info").join(digest.as_str())).unwrap();
    assert_eq!(store.list().await.unwrap()[0].bytes, 5);

    let refused = store
        .unpack_tar(
            Cursor::new(vec![b'x'; 1000]),
            Limits::default(),
            Whiteouts::Oci,
            Progress::none(),
        )
        .await;
    assert!(matches!(refused, Err(StoreError::Unpack(_))));
    let left: Vec<_> = std::fs::read_dir(tmp.path().join("layers"))
        .unwrap()
        .collect();
    assert_eq!(left.len(), 2, "only the layer and the notes: {left:?}");

    // What a crash left is swept, what was finished stays.
    std::fs::create_dir_all(tmp.path().join("layers/.tmp-dead/layer")).unwrap();
    let again = LayerStore::open(tmp.path().join("layers")).await.unwrap();
    assert!(!tmp.path().join("layers/.tmp-dead").exists());
    assert!(again.exists(&digest));
    assert_eq!(
        std::fs::metadata(tmp.path().join("layers")).unwrap().mode() & 0o777,
        0o700
    );
    let used = again.moment();
    assert!(again.exists(&digest));
    assert!(
        !again.remove_unused(&digest, used).await.unwrap(),
        "it was just found"
    );
    let later = again.next_moment();
    again.list().await.unwrap();
    assert!(again.remove_unused(&digest, later).await.unwrap());
    assert!(!again.remove_unused(&digest, later).await.unwrap());
    assert!(matches!(again.path(&digest), Err(StoreError::Unknown(_))));
}

#[tokio::test]
async fn directories_are_committed_by_content_or_key() {
    let tmp = tempfile::tempdir().unwrap();
    let store = store(tmp.path()).await;
    let make = |name: &str, content: &str| {
        let dir = tmp.path().join(name);
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        std::fs::write(dir.join("sub/f"), content).unwrap();
        std::fs::hard_link(dir.join("sub/f"), dir.join("g")).unwrap();
        dir
    };
    let one = store.commit_dir(&make("1", "x"), None).await.unwrap();
    let two = store.commit_dir(&make("2", "x"), None).await.unwrap();
    let other = store.commit_dir(&make("3", "y"), None).await.unwrap();
    assert_eq!(one, two);
    assert_ne!(one.digest, other.digest);
    assert_eq!((one.bytes, one.entries), (1, 3));
    assert!(!tmp.path().join("1").exists() && !tmp.path().join("2").exists());
    let key = Digest::of(b"key");
    assert_eq!(
        store
            .commit_dir(&make("4", "z"), Some(key.clone()))
            .await
            .unwrap()
            .digest,
        key
    );
    // From another filesystem it is copied.
    let shm = tempfile::tempdir_in("/dev/shm").unwrap();
    let far = shm.path().join("far");
    std::fs::rename(make("5", "far"), &far).unwrap_err();
    std::fs::create_dir_all(far.join("sub")).unwrap();
    std::fs::write(far.join("sub/f"), "x").unwrap();
    std::fs::hard_link(far.join("sub/f"), far.join("g")).unwrap();
    std::os::unix::fs::symlink("/x", far.join("link")).unwrap();
    let layer = store.commit_dir(&far, None).await.unwrap();
    let path = store.path(&layer.digest).unwrap();
    assert_eq!(std::fs::metadata(path.join("g")).unwrap().nlink(), 2);
    assert_eq!(
        std::fs::read_link(path.join("link")).unwrap(),
        Path::new("/x")
    );
    assert!(!far.exists());
    // Devices and sockets are not content.
    let bad = make("6", "x");
    let _socket = std::os::unix::net::UnixListener::bind(bad.join("socket")).unwrap();
    assert!(matches!(
        store.commit_dir(&bad, None).await,
        Err(StoreError::Content(_))
    ));
}

const PASSWD: (&str, &str) = (
    "etc/passwd",
    "root:x:0:0::/root:/bin/sh\nuser:x:1000:1001::/home/user:/bin/bash\n",
);
const GROUP: (&str, &str) = ("etc/group", "root:x:0:\nuser:x:1002:\nstaff:x:50:\n");

fn spec(src: &str, dst: &str) -> CopySpec {
    let (src, dst, user) = (src.to_owned(), dst.to_owned(), "user".to_owned());
    CopySpec {
        src,
        dst,
        owner: None,
        mode: None,
        user,
        workdir: None,
    }
}

struct Copying {
    store: LayerStore,
    base: Vec<Digest>,
    _tmp: tempfile::TempDir,
}

impl Copying {
    async fn new() -> Self {
        let tmp = tempfile::tempdir().unwrap();
        let store = store(tmp.path()).await;
        let bottom = unpack(
            &store,
            &[
                PASSWD,
                GROUP,
                ("home/user/", ""),
                ("usr/lib/", ""),
                ("lib -> usr/lib", ""),
                ("file", "old"),
                ("out -> ../../../../tmp", ""),
                ("dir/", ""),
                ("dir/sub/", ""),
            ],
        )
        .await;
        Self {
            store,
            base: vec![bottom],
            _tmp: tmp,
        }
    }

    async fn copy(
        &self,
        files: &[(&str, &str)],
        spec: CopySpec,
    ) -> Result<std::path::PathBuf, CopyError> {
        let archive = Cursor::new(gzip(&tar(files)));
        let layer =
            prepare_copy_layer(&self.store, &self.base, archive, spec, Limits::default()).await?;
        Ok(self.store.path(&layer.digest).unwrap())
    }
}

fn owner(path: &Path) -> (u32, u32, u32) {
    let meta = std::fs::symlink_metadata(path).unwrap();
    (meta.uid(), meta.gid(), meta.mode() & 0o7777)
}

#[tokio::test]
async fn copy_lands_where_the_sdk_means() {
    let test = Copying::new().await;
    let app = [("app.py", "code")];
    for (dst, at) in [
        ("/new/name.py", "new/name.py"),
        ("/new/", "new/app.py"),
        ("/dir", "dir/app.py"),
        (".", "home/user/app.py"),
        ("sub/x", "home/user/sub/x"),
        ("/lib/x", "usr/lib/x"),
        ("/file", "file"),
        ("/../../etc/x", "etc/x"),
    ] {
        let layer = test.copy(&app, spec("app.py", dst)).await.unwrap();
        assert_eq!(
            std::fs::read_to_string(layer.join(at)).unwrap(),
            "code",
            "{dst}"
        );
        assert_eq!(owner(&layer.join(at)), (1000, 1002, 0o644), "{dst}");
    }
    let layer = test
        .copy(&app, spec("app.py", "/new/deep/x"))
        .await
        .unwrap();
    assert_eq!(owner(&layer.join("new/deep")), (0, 0, 0o755));
    assert!(!layer.join("etc").exists());

    let tree = [
        ("src/", ""),
        ("src/a.js", "a"),
        ("src/sub/", ""),
        ("src/sub/b", "b"),
        ("src/l -> a.js", ""),
    ];
    for src in ["src", "./src/", "src/*", "src/**/*.js"] {
        let mut how = spec(src, "/dir");
        (how.owner, how.mode) = (Some("root:staff".to_owned()), Some(0o700));
        let layer = test.copy(&tree, how).await.unwrap();
        assert_eq!(owner(&layer.join("dir/a.js")), (0, 50, 0o700), "{src}");
        // An existing directory keeps its own.
        assert_eq!(owner(&layer.join("dir/sub")), (0, 0, 0o755));
        assert!(layer.join("dir/l").is_symlink());
    }
    let layer = test.copy(&tree, spec(".", "/all")).await.unwrap();
    assert_eq!(owner(&layer.join("all/src/sub")), (1000, 1002, 0o755));
}

#[tokio::test]
async fn copy_stays_inside_and_says_what_is_wrong() {
    let test = Copying::new().await;
    let layer = test
        .copy(&[("f", "x")], spec("f", "/out/woodfrog-escape"))
        .await
        .unwrap();
    assert!(layer.join("tmp/woodfrog-escape").exists());
    assert!(!Path::new("/tmp/woodfrog-escape").exists());
    let missing = test.copy(&[("f", "x")], spec("g", "/x")).await;
    assert!(matches!(missing, Err(CopyError::MissingSource(_))));
    let outside = test
        .copy(&[("l -> /etc", "")], spec("l/passwd", "/x"))
        .await;
    assert!(matches!(outside, Err(CopyError::MissingSource(_))));
    let mut who = spec("f", "/x");
    who.owner = Some("nobody-here".to_owned());
    assert!(matches!(
        test.copy(&[("f", "x")], who).await,
        Err(CopyError::UnknownOwner(_))
    ));
    let conflict = test
        .copy(&[("s/", ""), ("s/sub", "file")], spec("s", "/dir"))
        .await;
    assert!(matches!(conflict, Err(CopyError::Conflict(_))));
    assert!(
        test.copy(&[("s/", ""), ("s/file/", "")], spec("s", "/"))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn images_get_the_user_they_lack() {
    let tmp = tempfile::tempdir().unwrap();
    let store = store(tmp.path()).await;
    let bare = unpack(
        &store,
        &[
            (
                "etc/passwd",
                "root:x:0:0::/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh",
            ),
            ("etc/group", "root:x:0:\nnode:x:1000:\n"),
            ("etc/shadow", "root:*:1::::::\n"),
            ("etc/sudoers", "root ALL\n"),
            ("etc/sudoers.d/", ""),
            ("bin/bash", ""),
        ],
    )
    .await;
    let added = ensure_e2b_basics(&store, std::slice::from_ref(&bare))
        .await
        .unwrap()
        .unwrap();
    let image = [bare, added.digest];
    let paths = store.paths(&image).unwrap();
    let read = |path| String::from_utf8(read_file(&paths, path, 1000).unwrap()).unwrap();
    assert!(read("/etc/passwd").ends_with("/bin/sh\nuser:x:1001:1001::/home/user:/bin/bash\n"));
    assert!(read("/etc/group").ends_with("user:x:1001:\n"));
    assert!(read("/etc/shadow").contains("user:*:"));
    assert!(read("/etc/sudoers.d/user").contains("NOPASSWD"));
    assert_eq!(owner(&paths[1].join("home/user")), (1001, 1001, 0o755));
    assert_eq!(owner(&paths[1].join("etc/sudoers.d/user")), (0, 0, 0o440));
    // Nothing lacks any more.
    assert_eq!(ensure_e2b_basics(&store, &image).await.unwrap(), None);
    // An empty image gets what is needed at least.
    let empty = unpack(&store, &[("app", "x")]).await;
    let added = ensure_e2b_basics(&store, &[empty]).await.unwrap().unwrap();
    let path = store.path(&added.digest).unwrap();
    assert!(
        std::fs::read_to_string(path.join("etc/passwd"))
            .unwrap()
            .starts_with("root:x:0:0")
    );
    assert!(!path.join("etc/sudoers.d").exists());
}
